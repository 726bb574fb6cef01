"""An account's companies. https://developers.kommo.com/reference/companies-list"""

from __future__ import annotations

from portaria.core.callbacks import Secret
from portaria.core.entities import Changes, Page
from portaria.platforms.kommo.pagination import Account, Send

__all__ = ["DEFAULT_MAPPING", "read_changes", "read_page"]

# Marketo's attribute ← a JMESPath expression over one company. Names are not unique in Kommo, so the id identifies a company.
DEFAULT_MAPPING = {
    "externalCompanyId": "to_string(id)",
    "company": "name",
    "website": "custom_fields_values[?field_code=='WEB'].values[].value | [0]",
    "mainPhone": "custom_fields_values[?field_code=='PHONE'].values[].value | [0]",
    "billingStreet": "custom_fields_values[?field_code=='ADDRESS'].values[].value | [0]",
}


def read_page(send: Send, account_host: str, access_token: Secret, page: int, after: str = "") -> Page:
    """Return one page. Raises as `pagination` documents."""
    return Account(send, account_host, access_token).page("companies", page, after)


def read_changes(send: Send, account_host: str, access_token: Secret, since: int, cursor: str) -> Changes:
    """Return a page of changes since `since` (epoch seconds), by ascending `updated_at`. Raises as `pagination` documents.

    `cursor` is empty for the first page.
    """
    return Account(send, account_host, access_token).changes("companies", since, cursor)

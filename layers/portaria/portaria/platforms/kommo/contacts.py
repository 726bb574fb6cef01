"""An account's contacts. https://developers.kommo.com/reference/contacts-list"""

from __future__ import annotations

from portaria.core.callbacks import Secret
from portaria.core.entities import Changes, Page
from portaria.platforms.kommo.pagination import Account, Entity, Send, embedded

__all__ = ["DEFAULT_MAPPING", "read_changes", "read_page"]

# The ids are in the URL. Kommo's nginx accepts URLs of up to 8 kB.
COMPANIES_A_REQUEST = 125

# Marketo's attribute ← a JMESPath expression over one contact.
DEFAULT_MAPPING = {
    "firstName": "first_name || name",
    "lastName": "last_name",
    "email": "custom_fields_values[?field_code=='EMAIL'].values[].value | [0]",
    "phone": "custom_fields_values[?field_code=='PHONE'].values[].value | [0]",
    "company": "_embedded.companies[0].name",
}


def read_page(send: Send, account_host: str, access_token: Secret, page: int, after: str = "") -> Page:
    """Return one page with the companies' names. Raises as `pagination` documents."""
    contacts = _Contacts(send, account_host, access_token)
    return contacts.page("contacts", page, after, contacts.name_companies)


def read_changes(send: Send, account_host: str, access_token: Secret, since: int, cursor: str) -> Changes:
    """Return a page of changes since `since` (epoch seconds), by ascending `updated_at`, with the companies' names.

    `cursor` is empty for the first page. Raises as `pagination` documents.
    """
    contacts = _Contacts(send, account_host, access_token)
    return contacts.changes("contacts", since, cursor, contacts.name_companies)


class _Contacts(Account):
    def name_companies(self, contacts: list[Entity]) -> None:
        """Add the companies' names, because a contact has only their ids."""
        companies = [company for contact in contacts for company in embedded(contact, "companies")]
        ids = sorted({int(company["id"]) for company in companies if not company.get("name")})
        names: dict[int, str] = {}
        for start in range(0, len(ids), COMPANIES_A_REQUEST):
            chunk = ids[start : start + COMPANIES_A_REQUEST]
            query = "&".join([f"limit={len(chunk)}", *(f"filter[id][]={company_id}" for company_id in chunk)])
            found, _ = self.listed("companies", query)
            names |= {int(company["id"]): str(company.get("name") or "") for company in found}
        for company in companies:
            company["name"] = company.get("name") or names.get(int(company["id"]), "")

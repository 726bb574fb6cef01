"""Reading an account's contacts. https://developers.kommo.com/reference/contacts-list"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from portaria.contract import Page, Record, Rejected, Request, Response, Retryable, Secret
from portaria.platforms.kommo.tokens import UNREADABLE, not_now

PAGE_SIZE = 250
# Ids travel in the URL, which Kommo's nginx takes up to 8 kB.
COMPANIES_A_REQUEST = 125
# 7 requests a second for one address, and Lambda's addresses are shared by all accounts. At most two workers read at
# once (MaximumConcurrency in template.yaml), each at three a second: six in total, which leaves one for exchanges.
REQUESTS_PER_SECOND = 3.0

# What a contact is to a destination: the part of its platform that takes it.
DESTINATION_OBJECT = "persons"
# JMESPath over one contact: Marketo's attribute ← Kommo's field.
DEFAULT_MAPPING = {
    "firstName": "first_name || name",
    "lastName": "last_name",
    "email": "custom_fields_values[?field_code=='EMAIL'].values[].value | [0]",
    "phone": "custom_fields_values[?field_code=='PHONE'].values[].value | [0]",
    "company": "_embedded.companies[0].name",
}


def read_page(send: Callable[[Request], Response], account_host: str, access_token: Secret, page: int) -> Page:
    """Read one page, counted from 1, with the companies' names; `send` carries each request and paces it.

    Pages are ordered by id: what is added or changed meanwhile moves no contact from a page still to come.
    Raises `Rejected` (`token_refused`) on 401 and `Retryable` on anything else that is not a page.
    """
    query = f"page={page}&limit={PAGE_SIZE}&order[id]=asc"
    body = _read_list(send(_get(account_host, access_token, f"/api/v4/contacts?{query}")))
    try:
        contacts = _embedded(body, "contacts")
        _name_companies(send, account_host, access_token, contacts)
        has_next = bool((body.get("_links") or {}).get("next"))
        return Page([_record(contact) for contact in contacts], page + 1 if has_next else None)
    except UNREADABLE as error:
        raise Retryable("answer_unreadable", f"Kommo's list is not as documented: {type(error).__name__}") from None


def _name_companies(
    send: Callable[[Request], Response], account_host: str, access_token: Secret, contacts: list[dict[str, Any]]
) -> None:
    """A contact comes with its companies' ids only: read their names and put them beside the ids."""
    companies = [company for contact in contacts for company in _embedded(contact, "companies")]
    ids = sorted({int(company["id"]) for company in companies if not company.get("name")})
    names: dict[int, str] = {}
    for start in range(0, len(ids), COMPANIES_A_REQUEST):
        chunk = ids[start : start + COMPANIES_A_REQUEST]
        query = "&".join([f"limit={len(chunk)}", *(f"filter[id][]={company_id}" for company_id in chunk)])
        body = _read_list(send(_get(account_host, access_token, f"/api/v4/companies?{query}")))
        names |= {int(company["id"]): str(company.get("name") or "") for company in _embedded(body, "companies")}
    for company in companies:
        company["name"] = company.get("name") or names.get(int(company["id"]), "")


def _get(account_host: str, access_token: Secret, path: str) -> Request:
    headers = {"Authorization": f"Bearer {access_token.reveal()}", "Accept": "application/json"}
    return Request("GET", f"https://{account_host}{path}", headers, read_timeout_s=15)


def _read_list(response: Response) -> dict[str, Any]:
    if response.status == 204:
        return {}
    if response.status == 401:
        raise Rejected("token_refused", "Kommo refused the access token")
    if response.status != 200:
        raise not_now(response)
    try:
        body = json.loads(response.body)
    except UNREADABLE:
        body = None
    if not isinstance(body, dict):
        raise Retryable("answer_unreadable", "Kommo answered 200 without a list")
    return body


def _embedded(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return (body.get("_embedded") or {}).get(name) or []


def _record(contact: dict[str, Any]) -> Record:
    return Record(str(int(contact["id"])), int(contact.get("updated_at") or 0), contact)

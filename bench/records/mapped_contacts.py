"""The contacts of the benchmark as persons: our mappings, and the same in plain Python for the peer.

`MAPPING` has 20 attributes. They use 7 plain paths, the first values of 6 custom fields, 4 function calls, 4 more filters, and
3 multi-selects.
"""

from __future__ import annotations

from typing import Any

_FIRST = "custom_fields_values[?field_code=='{}'].values[].value | [0]"

MAPPING = {
    "firstName": "first_name || name",
    "lastName": "last_name",
    "email": _FIRST.format("EMAIL"),
    "phone": _FIRST.format("PHONE"),
    "company": "_embedded.companies[0].name",
    "title": _FIRST.format("POSITION"),
    "website": _FIRST.format("WEB"),
    "dateOfBirth": _FIRST.format("BIRTHDAY"),
    "address": _FIRST.format("ADDRESS"),
    "mobilePhone": "custom_fields_values[?field_code=='PHONE'].values[] | [?enum_code=='MOB'].value | [0]",
    "workEmail": "custom_fields_values[?field_code=='EMAIL'].values[] | [?enum_code=='WORK'].value | [0]",
    "otherPhones": "join('; ', custom_fields_values[?field_code=='PHONE'].values[].value | [1:])",
    "fullName": "join(' ', [first_name, last_name][?@])",
    "kommoTags": "join(', ', _embedded.tags[].name)",
    "kommoId": "to_string(id)",
    "kommoUrl": "_links.self.href",
    "hasPhone": "length(custom_fields_values[?field_code=='PHONE'].values[]) > `0`",
    "titleOrCompany": (
        "{title: custom_fields_values[?field_code=='POSITION'].values[].value | [0], "
        "company: _embedded.companies[0].name}.[title, company][?@] | [0]"
    ),
    "createdAt": "created_at",
    "isDeleted": "is_deleted",
}


def by_default(contact: dict[str, Any]) -> dict[str, Any]:
    """The default mapping."""
    codes = {field["field_code"]: field["values"][0]["value"] for field in contact["custom_fields_values"] or []}
    companies = contact["_embedded"]["companies"]
    person = {
        "firstName": contact["first_name"] or contact["name"],
        "lastName": contact["last_name"],
        "email": codes.get("EMAIL"),
        "phone": codes.get("PHONE"),
        "company": companies[0].get("name") if companies else None,
    }
    return {name: value for name, value in person.items() if value}


def by_mapping(contact: dict[str, Any]) -> dict[str, Any]:
    """`MAPPING`."""
    values = {field["field_code"]: field["values"] for field in contact["custom_fields_values"] or []}
    firsts = {code: some[0]["value"] for code, some in values.items()}
    phones, emails = values.get("PHONE", []), values.get("EMAIL", [])
    embedded = contact["_embedded"]
    company = embedded["companies"][0].get("name") if embedded["companies"] else None
    person = {
        "firstName": contact["first_name"] or contact["name"],
        "lastName": contact["last_name"],
        "email": firsts.get("EMAIL"),
        "phone": firsts.get("PHONE"),
        "company": company,
        "title": firsts.get("POSITION"),
        "website": firsts.get("WEB"),
        "dateOfBirth": firsts.get("BIRTHDAY"),
        "address": firsts.get("ADDRESS"),
        "mobilePhone": next((each["value"] for each in phones if each["enum_code"] == "MOB"), None),
        "workEmail": next((each["value"] for each in emails if each["enum_code"] == "WORK"), None),
        "otherPhones": "; ".join([each["value"] for each in phones[1:]]),
        "fullName": " ".join([name for name in (contact["first_name"], contact["last_name"]) if name]),
        "kommoTags": ", ".join([tag["name"] for tag in embedded["tags"]]),
        "kommoId": str(contact["id"]),
        "kommoUrl": contact["_links"]["self"]["href"],
        "hasPhone": len(phones) > 0,
        "titleOrCompany": firsts.get("POSITION") or company,
        "createdAt": contact["created_at"],
        "isDeleted": contact["is_deleted"],
    }
    return {name: value for name, value in person.items() if value is not None and value != ""}

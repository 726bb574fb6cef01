"""Generated contacts in Kommo's format. The same account, size and seed give the same contacts, with many edge cases."""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local.simulators.world import BadInstruction

FIRST_NAMES = (
    "Ana", "João", "Íris", "Conceição", "Zoë", "Łukasz", "Ñandú", "Søren", "Дарья", "美咲", "أمل", "Renée", "O'Neil",
    "Maria Clara", "Ayşe", "Đorđe", "Chloe 🌻", "Bia",
)  # fmt: skip
LAST_NAMES = (
    "Souza", "Gonçalves", "Müller", "Núñez", "d'Ávila", "Sant'Anna", "Петрова", "田中", "van der Berg", "Lima-Reis",
    "Øst", "Čapek", "Testova", "Exemplo",
)  # fmt: skip
COMPANIES = (
    "Padaria São José", "Müller & Söhne", "Acme \"Test\" Ltda.", "Café Zürich", "Exemplo S/A", "Ação <Verde>",
    "株式会社テスト",
)  # fmt: skip

PHONE_FIELD = 1_698_052
EMAIL_FIELD = 1_698_054
POSITION_FIELD = 1_698_050
BIRTHDAY_FIELD = 1_700_001
NEWSLETTER_FIELD = 1_700_002
WEBSITE_FIELD = 1_698_056
ADDRESS_FIELD = 1_698_058
ENUMS = {"WORK": 1_037_743, "MOB": 1_037_745, "PRIV": 1_037_755, "OTHER": 1_037_757}
# Changeable custom fields: id, code and type.
CUSTOM_FIELDS = {
    "email": (EMAIL_FIELD, "EMAIL", "multitext"),
    "phone": (PHONE_FIELD, "PHONE", "multitext"),
    "position": (POSITION_FIELD, "POSITION", "text"),
    "website": (WEBSITE_FIELD, "WEB", "url"),
}
CHANGEABLE = ("name", "first_name", "last_name", "company", *CUSTOM_FIELDS)

OLDEST = 1_672_531_200  # 2023-01-01
NEWEST = 1_735_603_200  # 2024-12-31


@dataclass(frozen=True)
class Contacts:
    """An account's contacts and companies. A contact names its company by id only, as Kommo's list does."""

    contacts: list[dict[str, Any]]
    companies: list[dict[str, Any]]


def make_contacts(account_id: int, host: str, count: int, *, seed: int, without_email: float) -> Contacts:
    """`count` contacts. A share `without_email` of them has no e-mail address; some of these have no custom field at all.

    E-mail addresses are unique across accounts. Some contacts have the same `updated_at`.
    """
    chance = random.Random(f"{seed}/{host}")
    companies = [
        _company(account_id, host, account_id * 100 + number, name, _company_fields(number))
        | {"updated_at": OLDEST + number}
        for number, name in enumerate(COMPANIES, start=1)
    ]
    return Contacts(
        [_contact(chance, account_id, host, number, companies, without_email) for number in range(1, count + 1)],
        companies,
    )


def new_contact(
    account_id: int, host: str, contacts: list[dict[str, Any]], companies: list[dict[str, Any]]
) -> dict[str, Any]:
    """A new contact without a name and custom fields."""
    first = zlib.crc32(host.encode()) % 40_000 * 50_000
    number = max((contact["id"] for contact in contacts), default=first) - first + 1
    contact = _contact(random.Random(number), account_id, host, number, companies, 1.0)
    return contact | {
        "name": "",
        "first_name": "",
        "last_name": "",
        "custom_fields_values": None,
        "_embedded": {"tags": [], "companies": []},
    }


def new_company(account_id: int, host: str, companies: list[dict[str, Any]], _: list[dict[str, Any]]) -> dict[str, Any]:
    """A new company without a name and custom fields."""
    return _company(account_id, host, max((each["id"] for each in companies), default=account_id * 100) + 1, "", None)


def change_entity(entity: dict[str, Any], fields: Mapping[str, str], companies: list[dict[str, Any]]) -> None:
    """Set some of a contact's or company's `name`, `first_name`, `last_name`, `email`, `phone`, `position`, `website`, and
    `company` (the name of an existing one). An empty text removes the value."""
    for name, value in fields.items():
        if name in CUSTOM_FIELDS:
            field_id, code, kind = CUSTOM_FIELDS[name]
            kept = [each for each in entity["custom_fields_values"] or [] if each["field_id"] != field_id]
            marked = {"enum_id": ENUMS["WORK"], "enum_code": "WORK"} if kind == "multitext" else {}
            made = [_field(field_id, code.title(), code, kind, [{"value": value, **marked}])] if value else []
            entity["custom_fields_values"] = [*kept, *made] or None
        elif name == "company":
            named = [{"id": each["id"], "_links": each["_links"]} for each in companies if each["name"] == value]
            entity["_embedded"]["companies"] = named[:1]
        elif name in ("name", "first_name", "last_name"):
            entity[name] = value
        else:
            raise BadInstruction(f"{name} cannot be set; only {', '.join(CHANGEABLE)}")
    if "name" not in fields and {"first_name", "last_name"} & set(fields):
        entity["name"] = f"{entity['first_name']} {entity['last_name']}".strip()


def _company(
    account_id: int, host: str, identifier: int, name: str, custom_fields: list[dict[str, Any]] | None
) -> dict[str, Any]:
    return {
        "id": identifier,
        "name": name,
        "created_at": OLDEST,
        "updated_at": OLDEST,
        "custom_fields_values": custom_fields,
        "account_id": account_id,
        "_links": {"self": {"href": f"https://{host}/api/v4/companies/{identifier}"}},
        "_embedded": {"tags": []},
    }


def _company_fields(number: int) -> list[dict[str, Any]] | None:
    """Every second company has a website, every third an address."""
    fields = []
    if number % 2:
        fields.append(_field(WEBSITE_FIELD, "Web", "WEB", "url", [{"value": f"https://company{number}.example"}]))
    if number % 3 == 0:
        fields.append(_field(ADDRESS_FIELD, "Address", "ADDRESS", "textarea", [{"value": f"Rua Exemplo, {number}"}]))
    return fields or None


def _contact(
    chance: random.Random,
    account_id: int,
    host: str,
    number: int,
    companies: list[dict[str, Any]],
    without_email: float,
) -> dict[str, Any]:
    identifier = zlib.crc32(host.encode()) % 40_000 * 50_000 + number
    first, last = chance.choice(FIRST_NAMES), chance.choice(LAST_NAMES)
    form = chance.random()
    if form < 0.1:  # only the full name was filled in
        name, first, last = f"{first} {last}", "", ""
    elif form < 0.2:  # no surname
        name, last = first, ""
    else:
        name = f"{first} {last}"
    updated_at = chance.randrange(OLDEST, NEWEST)
    if number % 25 < 3:  # an import: many contacts in one second
        updated_at = OLDEST + number // 25
    company = chance.choice(companies) if chance.random() < 0.7 else None
    return {
        "id": identifier,
        "name": name,
        "first_name": first,
        "last_name": last,
        "responsible_user_id": account_id + 1,
        "group_id": 0,
        "created_by": account_id + 1,
        "updated_by": 0,
        "created_at": OLDEST - 86_400,
        "updated_at": updated_at,
        "closest_task_at": None,
        "is_deleted": False,
        "is_unsorted": False,
        "custom_fields_values": _custom_fields(chance, host, number, without_email),
        "account_id": account_id,
        "_links": {"self": {"href": f"https://{host}/api/v4/contacts/{identifier}"}},
        "_embedded": {
            "tags": [],
            "companies": [{"id": company["id"], "_links": company["_links"]}] if company else [],
        },
    }


def _custom_fields(chance: random.Random, host: str, number: int, without_email: float) -> list[dict[str, Any]] | None:
    fields: list[dict[str, Any]] = []
    if chance.random() < 0.8:
        fields.append(_multitext(chance, PHONE_FIELD, "PHONE", _phones(chance)))
    if chance.random() >= without_email:
        fields.append(_multitext(chance, EMAIL_FIELD, "EMAIL", _emails(chance, host, number)))
    elif chance.random() < 0.5:
        return None
    if chance.random() < 0.3:
        fields.append(_field(POSITION_FIELD, "Position", "POSITION", "text", [{"value": "Gerente de operações"}]))
    if chance.random() < 0.1:
        fields.append(_field(BIRTHDAY_FIELD, "Birthday", None, "birthday", [{"value": 631_152_000}]))
    if chance.random() < 0.1:
        fields.append(_field(NEWSLETTER_FIELD, "Newsletter", None, "checkbox", [{"value": True}]))
    chance.shuffle(fields)
    return fields or None


def _phones(chance: random.Random) -> list[str]:
    forms = ("+55 11 9{:04d}-{:04d}", "+55119{:04d}{:04d}", "(11) 9{:04d}.{:04d}", "+49 30 {:04d}{:04d}")
    return [
        chance.choice(forms).format(chance.randrange(10_000), chance.randrange(10_000))
        for _ in range(chance.choice((1, 1, 1, 2, 3)))
    ]


def _emails(chance: random.Random, host: str, number: int) -> list[str]:
    domain = f"{host.partition('.')[0]}.example"
    names = ("contact", "Contact.Upper", "first+tag", "o'neil")
    addresses = [f"{chance.choice(names)}-{number}@{domain}"]
    return addresses + [f"second-{number}-{extra}@{domain}" for extra in range(chance.choice((0, 0, 0, 1, 2)))]


def _multitext(chance: random.Random, field_id: int, code: str, values: list[str]) -> dict[str, Any]:
    kinds = [chance.choice(("WORK", "MOB" if code == "PHONE" else "PRIV", "OTHER")) for _ in values]
    marked = [
        {"value": value, "enum_id": ENUMS[kind], "enum_code": kind} for value, kind in zip(values, kinds, strict=True)
    ]
    return _field(field_id, code.title(), code, "multitext", marked)


def _field(field_id: int, name: str, code: str | None, kind: str, values: list[dict[str, Any]]) -> dict[str, Any]:
    return {"field_id": field_id, "field_name": name, "field_code": code, "field_type": kind, "values": values}

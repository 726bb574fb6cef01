"""The form of an event, as Kommo sends it to a webhook."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from local.simulators.kommo.state import Account

# A field's name in an event → its name in the API.
EVENT_FIELDS = {
    "name": "name",
    "responsible_user_id": "responsible_user_id",
    "date_create": "created_at",
    "last_modified": "updated_at",
    "created_user_id": "created_by",
    "modified_user_id": "updated_by",
    "account_id": "account_id",
}


def event_form(account: Account, action: str, kind: str, entity: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The form fields that captured events have (docs/fidelity.md).

    Events use the format of API v2: companies are listed under `contacts`, every value is text, and a deletion has only the
    id and the type. The event has the full name but not its parts, a field's id and name but not its type, and an option's id
    but not its code. An event captured in 2018 has the contact's company; later events do not, so the simulator omits it.
    """
    form = [
        ("account[subdomain]", account.subdomain),
        ("account[id]", str(account.id)),
        ("account[_links][self]", f"https://{account.host}"),
    ]
    start = f"contacts[{action}][0]"
    form.append((f"{start}[id]", str(entity["id"])))
    if action == "delete":
        return [*form, (f"{start}[type]", kind)]
    form += [
        (f"{start}[{event_name}]", str(entity[name])) for event_name, name in EVENT_FIELDS.items() if name in entity
    ]
    for number, custom_field in enumerate(entity["custom_fields_values"] or []):
        place = f"{start}[custom_fields][{number}]"
        form += [(f"{place}[id]", str(custom_field["field_id"])), (f"{place}[name]", custom_field["field_name"])]
        for index, value in enumerate(custom_field["values"]):
            form.append((f"{place}[values][{index}][value]", event_value(custom_field["field_type"], value["value"])))
            if "enum_id" in value:
                form.append((f"{place}[values][{index}][enum]", str(value["enum_id"])))
        form += [(f"{place}[code]", custom_field["field_code"])] if custom_field["field_code"] else []
    form += [(f"{start}[{name}]", str(entity[name])) for name in ("created_at", "updated_at")]
    return [*form, (f"{start}[type]", kind)]


def event_value(field_type: str, value: Any) -> str:
    """A checkbox is `1` or `0`; a birthday is `DD.MM.YYYY`."""
    if field_type == "birthday":
        return datetime.fromtimestamp(value, UTC).strftime("%d.%m.%Y")
    return str(int(value)) if isinstance(value, bool) else str(value)

"""Event webhooks of an account. https://developers.kommo.com/docs/webhooks-general

Events are forms with PHP-style names (`contacts[update][0][id]=1`) in the format of Kommo's API v2
(https://github.com/amocrm/amocrm-api-php/issues/195). The reader gives them the shape of API v4
(https://developers.kommo.com/reference/contacts-list), so that one mapping serves both. An event has fewer fields than the
API: no `first_name`, `last_name`, `field_type` or `enum_code`. Each record is therefore partial: an absent key is unknown, and
None means that the event proves that there is no value. Kommo does not sign events: the secret is the key in the URL.
A delivery must be answered within two seconds, so this module imports as little as possible.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from portaria.core.callbacks import EventAddress, Events, Record, WebhookDelivery, time_of_change
from portaria.core.error_roots import Rejected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Node = dict[str, Any]

# Kommo retries after any error status. It disables the webhook after more than 100 errors in two hours.
RETRY_STATUS = 503
SECRET_HEADER = ""

CONTENT_TYPE = "application/x-www-form-urlencoded"
MAX_KEYS = 5_000
# contacts[update][0][custom_fields][0][values][0][value] has eight parts; a value can add more.
MAX_DEPTH = 12

# Events with the contact's present state. A new responsible user is an update, too.
READ = ("add", "update", "restore")
DELETED = "delete"
OBJECTS = {"contact": "contacts", "company": "companies"}
# The webhooks' older names ← the API's.
API_NAMES = {
    "date_create": "created_at",
    "last_modified": "updated_at",
    "created_user_id": "created_by",
    "modified_user_id": "updated_by",
}
NUMBERS = frozenset({"id", "account_id", "group_id", "created_at", "updated_at", "created_by", "updated_by",
                     "responsible_user_id", "closest_task_at"})  # fmt: skip
# Fields that have another place in the API's shape, or none.
NOT_COPIED = frozenset(
    {"type", "custom_fields", "tags", "linked_company_id", "company_name", "linked_leads_id", "_links"}
)

_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_INDEX = re.compile(r"[0-9]{1,9}")
_ID = re.compile(r"[0-9]{1,18}")
# Dates before 1970 are negative, and so is the group of a contact without a group.
_NUMBER = re.compile(r"-?[0-9]{1,18}")
# Without the field's type, these values are ambiguous: the API has true and false for a checkbox, epoch seconds for a birthday,
# and the same text for a text field.
_AMBIGUOUS = re.compile(r"[01]?|[0-9]{2}\.[0-9]{2}\.[0-9]{4}")


def account_of(account_id: str, fields: dict[str, str]) -> str:
    """Events name the account by its numeric id."""
    return account_id


def read(delivery: WebhookDelivery, address: EventAddress) -> Events:
    """Raises `Rejected` (415 `not_a_form`, 413 `too_many_keys`, 400 `too_deep`, `no_account`) for an invalid delivery.

    Events that are not the present state of a contact or company are left out and counted: `deleted` (a deletion has only an
    id and a type, and no destination deletes), `other` kinds, `unreadable` ones, and all events of a `foreign` account.
    """
    if delivery.headers.get("content-type", "").partition(";")[0].strip().lower() != CONTENT_TYPE:
        raise Rejected("not_a_form", f"events come as {CONTENT_TYPE}", field="Content-Type", status=415)
    pairs, mended = _pairs(delivery.body)
    form = _tree(pairs)
    account = _of(form.pop("account", None), "id")
    if not isinstance(account, str):
        raise Rejected("no_account", "account[id] is missing", field="account[id]")
    # Only the id identifies the account: the sender chooses the links.
    if account != address.account_id:
        return Events({}, {"foreign": sum(len(_items(node)) for _, _, node in _kinds(form)) or 1}, mended=mended)
    records: dict[str, list[Record]] = {}
    left = {"deleted": 0, "other": 0, "unreadable": 0}
    for name, action, node in _kinds(form):
        for item in _items(node) or [None]:
            kind = OBJECTS.get(str(_of(item, "type") or "contact"))
            if name != "contacts" or not kind or action not in (*READ, DELETED):
                left["other"] += 1
            elif action == DELETED:
                left["deleted"] += 1
            elif record := _record(item, delivery.received_at):
                records.setdefault(kind, []).append(record)
            else:
                left["unreadable"] += 1
    return Events(records, left, mended=mended)


def _pairs(body: bytes) -> tuple[list[tuple[str, str]], bool]:
    """Return names and values, and whether some bytes were not UTF-8.

    Such bytes become U+FFFD: Kommo would retry a refused delivery unchanged, and its other values are valid.
    """
    try:
        return _parse(body, "strict"), False
    except UnicodeDecodeError:
        return _parse(body, "replace"), True


def _parse(body: bytes, errors: str) -> list[tuple[str, str]]:
    text = body.decode("utf-8", errors)
    if (keys := text.count("&") + 1) > MAX_KEYS:
        raise Rejected("too_many_keys", f"a delivery may have {MAX_KEYS} keys; this has {keys}", status=413)
    return parse_qsl(text, keep_blank_values=True, errors=errors)


def _tree(pairs: list[tuple[str, str]]) -> Node:
    """Return the form as PHP reads it, except that lists stay dictionaries by index. Invalid names are ignored.

    No library: qs-codec would add thousands of lines to the cold start, and querystring-parser is not maintained.
    """
    tree: Node = {}
    for name, value in pairs:
        named = _NAME.fullmatch(name)
        if not named:
            continue
        path = [named[1], *(named[2][1:-1].split("][") if named[2] else ())]
        if len(path) > MAX_DEPTH:
            raise Rejected("too_deep", f"names may have {MAX_DEPTH} parts; one has {len(path)}")
        node = tree
        for step in path[:-1]:
            child = node.get(step)
            if not isinstance(child, dict):
                child = node[step] = {}
            node = child
        node[path[-1] or str(len(node))] = value
    return tree


def _kinds(form: Node) -> list[tuple[str, str, Any]]:
    """Return each kind of event: (`contacts`, `update`, its events)."""
    return [
        (name, action, node)
        for name, actions in form.items()
        if isinstance(actions, dict)
        for action, node in actions.items()
    ]


def _items(node: Any) -> list[Any]:
    """Return a list's items in the order of their indices, which can start anywhere and have gaps."""
    if not isinstance(node, dict):
        return []
    return [node[index] for index in sorted(filter(_INDEX.fullmatch, node), key=int)]


def _of(node: Any, name: str) -> Any:
    return node.get(name) if isinstance(node, dict) else None


def _record(item: Any, received_at: int) -> Record | None:
    """Return a contact or company in the API's shape; None for an item without an id or without further fields."""
    contact_id = _of(item, "id")
    if not isinstance(contact_id, str) or not _ID.fullmatch(contact_id) or not item.keys() - {"id", "type"}:
        return None
    data: Node = {}
    for name, value in item.items():
        api_name = API_NAMES.get(name, name)
        if name in NOT_COPIED or (name in API_NAMES and api_name in item):
            continue
        data[api_name] = _number(value) if api_name in NUMBERS else value
    # Kommo omits an empty list.
    data["custom_fields_values"] = [_custom_field(field) for field in _items(item.get("custom_fields"))] or None
    embedded: Node = {}
    if "tags" in item:
        embedded["tags"] = [_with_number_id(tag) for tag in _items(item["tags"])]
    if companies := _companies(item):
        embedded["companies"] = companies
    data["_embedded"] = embedded
    updated_at = data.get("updated_at")
    version = time_of_change(updated_at, received_at) if isinstance(updated_at, int) else received_at
    return Record(str(int(contact_id)), version, data, is_partial=True)


def _companies(item: Node) -> list[Node]:
    company_id, name = _number(item.get("linked_company_id")), item.get("company_name")
    found = {"id": company_id} if isinstance(company_id, int) and company_id else {}
    return [found | ({"name": name} if name else {})] if found or name else []


def _custom_field(field: Any) -> Node:
    # Only fields that Kommo defines have a code.
    made: Node = {"field_id": _number(_of(field, "id")), "field_code": _of(field, "code")}
    if isinstance(name := _of(field, "name"), str):
        made["field_name"] = name
    values = _of(field, "values")
    # The value of a radio button has no index.
    several = _items(values) or ([values] if isinstance(values, dict) else [])
    return made | {"values": [_value(value) for value in several]}


def _value(value: Any) -> Node:
    if not isinstance(value, dict):
        # A date in seconds.
        return {"value": _number(value)}
    made: Node = {}
    if "value" in value and not _is_ambiguous(value):
        made["value"] = value["value"]
    if "enum" in value:
        made["enum_id"] = _number(value["enum"])
    return made


def _is_ambiguous(value: Node) -> bool:
    """Whether the API's form of a value depends on the field's type, which events lack. An option of a list is text."""
    text = value["value"]
    return "enum" not in value and isinstance(text, str) and bool(_AMBIGUOUS.fullmatch(text))


def _with_number_id(node: Any) -> Any:
    return {**node, "id": _number(node["id"])} if isinstance(node, dict) and "id" in node else node


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value

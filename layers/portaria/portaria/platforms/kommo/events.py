"""Reading an account's event webhooks. https://developers.kommo.com/docs/webhooks-general

Events are forms with PHP-style names (`contacts[update][0][id]=1`) in the format of Kommo's API v2
(https://github.com/amocrm/amocrm-api-php/issues/195). The reader gives them the shape of API v4
(https://developers.kommo.com/reference/contacts-list), so that one mapping serves both. An event has less than the API:
no `first_name`, `last_name`, `field_type` or `enum_code`. Each record is therefore partial: an absent key is unknown, and
None means that the event proves that there is no value. Kommo signs nothing: the address is the secret.
This module is on a path with a budget of two seconds: it imports as little as possible.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

from portaria.core.callbacks import EventAddress, Events, Record, Rejected, WebhookDelivery, time_of_change

# Kommo comes again after any bad answer; more than 100 of them in two hours and it disables the hook.
RETRY_STATUS = 503
SECRET_HEADER = ""

CONTENT_TYPE = "application/x-www-form-urlencoded"
MAX_KEYS = 5_000
# contacts[update][0][custom_fields][0][values][0][value] has eight; a value may have parts of its own.
MAX_DEPTH = 12

# What a contact is like now. A new responsible user comes as an update as well.
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
# What stands elsewhere in the API's shape, or nowhere.
NOT_COPIED = frozenset(
    {"type", "custom_fields", "tags", "linked_company_id", "company_name", "linked_leads_id", "_links"}
)

_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_INDEX = re.compile(r"[0-9]{1,9}")
_ID = re.compile(r"[0-9]{1,18}")
# A date before 1970 is negative, and so is the group of a contact without one.
_NUMBER = re.compile(r"-?[0-9]{1,18}")
# Without a field type, these values do not tell what the API has for them: for a checkbox true and false, for a birthday
# epoch seconds, for a text field the same text.
_AMBIGUOUS = re.compile(r"[01]?|[0-9]{2}\.[0-9]{2}\.[0-9]{4}")

Node = dict[str, Any]


def account_of(account_id: str, fields: dict[str, str]) -> str:
    """What events of a connection must name as their account."""
    return account_id


def read(delivery: WebhookDelivery, address: EventAddress) -> Events:
    """Raises `Rejected` (415 `not_a_form`, 413 `too_many_keys`, 400 `too_deep`, `no_account`) for what is no delivery.

    Whatever is no contact's or company's present state is left out and counted: `deleted` (a deletion carries id and type
    only, and no destination deletes), `other` kinds of events, `unreadable` ones, and all events of a `foreign` account.
    """
    if delivery.headers.get("content-type", "").partition(";")[0].strip().lower() != CONTENT_TYPE:
        raise Rejected("not_a_form", f"events come as {CONTENT_TYPE}", field="Content-Type", status=415)
    pairs, mended = _pairs(delivery.body)
    form = _tree(pairs)
    account = _of(form.pop("account", None), "id")
    if not isinstance(account, str):
        raise Rejected("no_account", "account[id] is missing", field="account[id]")
    # Only the id is the account's own: its links are whatever the sender wrote.
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
    """Names and values, and whether something in them was not UTF-8.

    That becomes U+FFFD: Kommo would send a refused delivery again as it is, and the rest of it is good.
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
    """The form as PHP would read it, except that lists stay dictionaries by index. What is no name is passed over.

    Own code: qs-codec would do it, at thousands of lines on this path; querystring-parser is no longer kept.
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
    """What each kind of event brings: (`contacts`, `update`, its events)."""
    return [
        (name, action, node)
        for name, actions in form.items()
        if isinstance(actions, dict)
        for action, node in actions.items()
    ]


def _items(node: Any) -> list[Any]:
    """A list's items in the order of their indices, which may begin anywhere and have gaps."""
    if not isinstance(node, dict):
        return []
    return [node[index] for index in sorted(filter(_INDEX.fullmatch, node), key=int)]


def _of(node: Any, name: str) -> Any:
    return node.get(name) if isinstance(node, dict) else None


def _record(item: Any, received_at: int) -> Record | None:
    """A contact or company in the API's shape; None for an item without an id, or with an id and nothing else."""
    contact_id = _of(item, "id")
    if not isinstance(contact_id, str) or not _ID.fullmatch(contact_id) or not item.keys() - {"id", "type"}:
        return None
    data: Node = {}
    for name, value in item.items():
        api_name = API_NAMES.get(name, name)
        if name in NOT_COPIED or (name in API_NAMES and api_name in item):
            continue
        data[api_name] = _number(value) if api_name in NUMBERS else value
    # Kommo leaves the list out where it is empty.
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
    # Only the fields that Kommo itself defines have a code.
    made: Node = {"field_id": _number(_of(field, "id")), "field_code": _of(field, "code")}
    if isinstance(name := _of(field, "name"), str):
        made["field_name"] = name
    values = _of(field, "values")
    # A radio button's one value comes without an index.
    several = _items(values) or ([values] if isinstance(values, dict) else [])
    return made | {"values": [_value(value) for value in several]}


def _value(value: Any) -> Node:
    if not isinstance(value, dict):
        # A date: seconds, in a field that holds nothing else.
        return {"value": _number(value)}
    made: Node = {}
    if "value" in value and not _is_ambiguous(value):
        made["value"] = value["value"]
    if "enum" in value:
        made["enum_id"] = _number(value["enum"])
    return made


def _is_ambiguous(value: Node) -> bool:
    """Whether only the field's type, which events lack, tells what the API has for a value. An option of a list is text."""
    text = value["value"]
    return "enum" not in value and isinstance(text, str) and bool(_AMBIGUOUS.fullmatch(text))


def _with_number_id(node: Any) -> Any:
    return {**node, "id": _number(node["id"])} if isinstance(node, dict) and "id" in node else node


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value

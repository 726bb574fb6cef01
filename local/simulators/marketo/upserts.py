"""The effect of an accepted request on an instance's objects, and its outcomes in the request's report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from local.simulators.marketo.bodies import Objects
from local.simulators.marketo.instance import CustomObject, Instance, Report, StoredObject


def put(
    objects: dict[Any, StoredObject], key: Any, attributes: dict[str, Any], report: Report, instance: Instance
) -> StoredObject:
    """Create or update one object, and count it."""
    found = objects.get(key)
    if found:
        found.attributes |= attributes
        found.writes += 1
        found.request_id = report.request_id
        report.updated += 1
    else:
        request_id = report.request_id
        found = StoredObject(dict(attributes), request_id=request_id, created_by=request_id, id=instance.next_id())
        objects[key] = found
        report.created += 1
    return found


def upsert_persons(instance: Instance, document: dict[str, Any], report: Report, _: dict[str, str]) -> None:
    names = list((document.get("dedupeFields") or {"field1": "email"}).values())
    for attributes in document["persons"]:
        values = tuple(attributes.get(name) for name in names)
        if any(value in (None, "") for value in values):
            instance.failed.append({"attributes": attributes, "request_id": report.request_id})
            report.failed["400"] += 1
            continue
        person = put(instance.persons, (*names, *values), attributes, report, instance)
        person.partition = person.partition or document.get("partitionName", "Default")
        instance.emails[str(attributes.get("email", "")).lower()] = person.id
    for custom_object in instance.custom_objects.values():
        if not custom_object.waiting:
            continue
        waiting, custom_object.waiting = custom_object.waiting, []
        for attributes, waiting_report in waiting:
            waiting_report.waiting -= 1
            put_custom_object(instance, custom_object, attributes, waiting_report)


def upsert_custom_objects(instance: Instance, document: dict[str, Any], report: Report, parts: dict[str, str]) -> None:
    custom_object = instance.custom_objects[parts["name"]]
    for attributes in document["customObjects"]:
        if document.get("dedupeBy") == "marketoGUID":
            guid = attributes.get("marketoGUID")
            found = next((each for each in custom_object.records.values() if str(each.id) == str(guid)), None)
            if found is None:
                report.failed["404"] += 1
                continue
            found.attributes |= attributes
            found.writes += 1
            report.updated += 1
        elif any(attributes.get(name) in (None, "") for name in custom_object.dedupe_fields):
            report.failed["400"] += 1
        else:
            waiting = len(custom_object.waiting)
            put_custom_object(instance, custom_object, attributes, report)
            custom_object.waited += len(custom_object.waiting) - waiting


def put_custom_object(
    instance: Instance, custom_object: CustomObject, attributes: dict[str, Any], report: Report
) -> None:
    """Create or update a custom object, or let it wait if its person does not exist yet."""
    if custom_object.link and str(attributes.get(custom_object.link, "")).lower() not in instance.emails:
        custom_object.waiting.append((attributes, report))
        report.waiting += 1
        return
    key = tuple(attributes.get(name) for name in custom_object.dedupe_fields)
    put(custom_object.records, key, attributes, report, instance)


def upsert_companies(instance: Instance, document: dict[str, Any], report: Report, _: dict[str, str]) -> None:
    action = document.get("action", "createOrUpdate")
    for attributes in document["input"]:
        external, number = attributes.get("externalCompanyId"), attributes.get("id")
        if (external is None) == (number is None):
            report.failed["400"] += 1
            continue
        if number is None:
            key: str | None = str(external)
        else:
            key = next((key for key, each in instance.companies.items() if each.id == number), None)
        if key is None or (action == "updateOnly" and key not in instance.companies):
            report.failed["404"] += 1
        elif action == "createOnly" and key in instance.companies:
            report.failed["409"] += 1
        else:
            put(instance.companies, key, attributes, report, instance)


def known_leads(instance: Instance, objects: Objects, report: Report) -> Iterator[int]:
    leads = set(instance.emails.values())
    for each in objects:
        if each.get("leadId") in leads:
            yield each["leadId"]
        else:
            report.failed["404"] += 1


def add_members(instance: Instance, document: dict[str, Any], report: Report, _: dict[str, str]) -> None:
    for program in document["programs"]:
        members = instance.members.setdefault(program["programId"], {})
        for lead in known_leads(instance, program["members"], report):
            report.updated += lead in members
            report.created += lead not in members
            members[lead] = program["status"]


def remove_members(instance: Instance, document: dict[str, Any], report: Report, _: dict[str, str]) -> None:
    for program in document["programs"]:
        for lead in known_leads(instance, program["members"], report):
            was_member = instance.members.get(program["programId"], {}).pop(lead, None) is not None
            report.updated += was_member
            report.failed.update({"404": 1} if not was_member else {})


def add_to_list(instance: Instance, document: dict[str, Any], report: Report, _: dict[str, str]) -> None:
    leads = set(known_leads(instance, document["input"], report))
    instance.lists.setdefault(document["listId"], set()).update(leads)
    report.updated += len(leads)


def remove_from_list(instance: Instance, document: dict[str, Any], report: Report, _: dict[str, str]) -> None:
    leads = set(known_leads(instance, document["input"], report))
    instance.lists.setdefault(document["listId"], set()).difference_update(leads)
    report.updated += len(leads)

"""The conformance suite that every destination passes.

    tests/platforms/{name}/facts.json   `objects`: for each destination object some targets, with valid attributes, pairs that
                                        are the same object, and attributes that must be refused

The meanings of responses are recorded as fixtures of the module that reads them; the suite in `conformance` reads those.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portaria.core import record_messages
from portaria.core.entities import Answer, Disposition, Target, Trace
from portaria.core.errors import Rejected
from portaria.core.http.messages import Request, Response
from portaria.delivery.stages import destination_request
from portaria.records.mapping import request_filling
from portaria.records.mapping.record_mapping import Message, MessageRecords, OutgoingRecord, RejectedRecord, Source
from tests.platforms.conformance import HERE, NAMES, Platform, destination_targets, garbage, platform_of

DESTINATIONS = [name for name in NAMES if "destination" in platform_of(name).parts]
FUNCTIONS = {
    "check": ["attributes", "target"],
    "identity": ["attributes", "target"],
    "frame": ["target"],
    "request": ["connection", "credentials", "target", "body", "trace"],
    "read_answer": ["response"],
}
# SQS can hide a message for twelve hours.
MAX_WAIT_S = 43_200.0
DONE = (Disposition.ACCEPTED, Disposition.APPLIED)


def objects(platform: Platform) -> list[str]:
    """The parts that send records, by what they offer."""
    return [name for name, part in platform.parts.items() if hasattr(part, "RANK")]


def each_target() -> pytest.MarkDecorator:
    cases = []
    for name in DESTINATIONS:
        for part, targets in platform_of(name).facts["objects"].items():
            cases += [
                pytest.param(platform_of(name), part, told, id=f"{name}-{part}-{number}")
                for number, told in enumerate(targets)
            ]
    return pytest.mark.parametrize(("platform", "part", "told"), cases)


def each_object() -> pytest.MarkDecorator:
    cases = [
        pytest.param(platform_of(name), part, id=f"{name}-{part}")
        for name in DESTINATIONS
        for part in objects(platform_of(name))
    ]
    return pytest.mark.parametrize(("platform", "part"), cases)


def each_reader() -> pytest.MarkDecorator:
    """Objects may share a reader of responses; each reader is checked once."""
    cases = {
        (name, platform_of(name).parts[part].read_answer.__module__.rsplit(".", 1)[-1])
        for name in DESTINATIONS
        for part in objects(platform_of(name))
    }
    return pytest.mark.parametrize(
        ("platform", "part"),
        [pytest.param(platform_of(name), part, id=f"{name}-{part}") for name, part in sorted(cases)],
    )


def outgoing(platform: Platform, part: str, target: Target, attributes: dict[str, Any]) -> OutgoingRecord:
    sender = platform.parts[part]
    checked = sender.check(attributes, target)
    message = Message("m-1", "one", "contacts", record_messages.EVENT, MessageRecords([{}]))
    return OutgoingRecord(sender.identity(checked, target), checked, (Source(message, 0, "1", 1),), ("route",))


def bodies(platform: Platform, part: str, target: Target, all_attributes: list[dict[str, Any]]) -> Iterator[bytes]:
    """Receipts as `pipeline` creates them."""
    sender = platform.parts[part]
    before, after = sender.frame(target)
    filled = request_filling.fill(
        [outgoing(platform, part, target, attributes) for attributes in all_attributes],
        frame_bytes=len(before) + len(after),
        max_objects=sender.MAX_OBJECTS,
        max_bytes=sender.MAX_BODY_BYTES,
    )
    for chunk in filled:
        assert isinstance(chunk, request_filling.Chunk), chunk
        yield before + chunk.text + after


def built(platform: Platform, part: str, target: Target, body: bytes) -> Request:
    request: Request = platform.parts[part].request(
        platform.connection, platform.credentials, target, body, Trace("correlation-1")
    )
    return request


def found_in(document: Any, wanted: dict[str, Any]) -> bool:
    """Whether an object with at least these members is somewhere in a document."""
    if isinstance(document, dict):
        if wanted.items() <= {key: value for key, value in document.items() if key in wanted}.items():
            return True
        return any(found_in(value, wanted) for value in document.values())
    return isinstance(document, list) and any(found_in(value, wanted) for value in document)


class DestinationConformance:
    """The suite itself."""

    @each_object()
    def test_destination_object_has_required_members(self, platform: Platform, part: str) -> None:
        sender = platform.parts[part]
        for name, parameters in FUNCTIONS.items():
            assert list(inspect.signature(getattr(sender, name)).parameters) == parameters
        assert isinstance(sender.RANK, int)
        assert 1 <= sender.MAX_OBJECTS <= 10_000
        assert 1_000 <= sender.MAX_BODY_BYTES <= 6_000_000
        assert 0 < (sender.REQUESTS_PER_SECOND or 1) <= 100
        assert 1 <= sender.REQUESTS_IN_PROGRESS <= 10
        assert isinstance(sender.NEEDS_STATIC_CREDENTIALS, bool)
        assert platform.facts["objects"].get(part), "write down in facts.json what it takes"

    @pytest.mark.parametrize("name", DESTINATIONS)
    def test_destination_targets_and_options_are_defined(self, name: str) -> None:
        platform = platform_of(name)
        destination = platform.parts["destination"]
        for target in destination.ACCEPTED.values():
            assert destination.TARGETS.fullmatch(target)
            assert Target("one", target).object_type in objects(platform)
        assert not destination.TARGETS.fullmatch("")
        assert not destination.TARGETS.fullmatch("persons/../x\n")
        assert destination.TARGETS_RULE
        for pattern, rule in destination.OPTIONS.values():
            assert isinstance(pattern, re.Pattern)
            assert rule
        for listed in (destination.DEDUPE_ATTRIBUTES, destination.DEFAULT_DEDUPE):
            assert all(destination.TARGETS.fullmatch(target) and fields for target, fields in listed.items())

    @pytest.mark.parametrize("name", DESTINATIONS)
    def test_destination_default_mapping_of_any_source_passes_check(self, name: str) -> None:
        platform = platform_of(name)
        destination = platform.parts["destination"]
        for source in map(platform_of, NAMES):
            for object_name, part in source.parts.items():
                target = Target("one", destination.ACCEPTED.get(object_name, ""))
                if target.object and hasattr(part, "DEFAULT_MAPPING"):
                    made = destination.default_mapping(part.DEFAULT_MAPPING, target.object)
                    attributes = dict.fromkeys(made, "text")
                    assert not made or platform.parts[target.object_type].check(attributes, target) == attributes

    @each_target()
    def test_destination_frame_and_objects_form_one_document_within_limits(
        self, platform: Platform, part: str, told: dict[str, Any]
    ) -> None:
        sender, (target,) = platform.parts[part], destination_targets([told])
        good = [sender.check(attributes, target) for attributes in told["good"]]
        many = (good * (sender.MAX_OBJECTS + 1))[: sender.MAX_OBJECTS + 1]
        for some in (good[:1], many):
            made = list(bodies(platform, part, target, some))
            assert len(made) == -(-len(some) // sender.MAX_OBJECTS)
            for body in made:
                assert len(body) <= sender.MAX_BODY_BYTES
                document = json.loads(body)
                assert any(found_in(document, attributes) for attributes in some)

    @each_target()
    def test_destination_request_carries_objects_and_no_credential_in_body(
        self, platform: Platform, part: str, told: dict[str, Any]
    ) -> None:
        sender, (target,) = platform.parts[part], destination_targets([told])
        for attributes in told["good"]:
            (body,) = bodies(platform, part, target, [attributes])
            request = built(platform, part, target, body)
            platform.check(request)
            assert request.method == "POST"
            assert request.url.startswith(f"https://{platform.connection.allowed_domain}/")
            assert request.headers["Content-Type"] == "application/json"
            sent = (request.body or b"").decode()
            assert found_in(json.loads(sent), sender.check(attributes, target))
            allowed = [f"canary-{name}" for name in platform.facts.get("credentials_in_bodies", ())]
            assert "canary" not in re.sub("|".join(allowed) or "(?!)", "", sent)
            assert "canary" in f"{request.headers}", "a request without credentials?"
            # The rest of the receive must leave time for this
            assert request.connect_timeout_s + request.read_timeout_s + destination_request.TIME_TO_FINISH_S < 60

    @each_target()
    def test_destination_identity_is_stable_and_distinguishes_objects(
        self, platform: Platform, part: str, told: dict[str, Any]
    ) -> None:
        sender, (target,) = platform.parts[part], destination_targets([told])

        def identity(attributes: dict[str, Any]) -> str:
            return str(sender.identity(sender.check(attributes, target), target))

        good = told["good"]
        assert len({identity(attributes) for attributes in good}) == len(good) > 1
        assert [identity(dict(reversed(each.items()))) for each in good] == [identity(each) for each in good]
        for one, other in told["same"]:
            assert identity(one) == identity(other)

    @each_target()
    def test_destination_check_is_idempotent_and_keeps_its_input(
        self, platform: Platform, part: str, told: dict[str, Any]
    ) -> None:
        """Merged objects and those from dead letters are checked again."""
        sender, (target,) = platform.parts[part], destination_targets([told])
        for attributes in told["good"]:
            before = json.dumps(attributes)
            checked = sender.check(attributes, target)
            assert sender.check(checked, target) == checked
            assert json.dumps(attributes) == before

    @each_target()
    def test_destination_check_invalid_object_is_refused_and_not_quoted(
        self, platform: Platform, part: str, told: dict[str, Any]
    ) -> None:
        sender, (target,) = platform.parts[part], destination_targets([told])
        for bad in told["refused"]:
            attributes = {
                name: f"canary{value}" if value == "x" else value for name, value in bad["attributes"].items()
            }
            with pytest.raises(Rejected) as refused:
                sender.check(attributes, target)
            assert refused.value.reason == bad["reason"]
            assert len(refused.value.detail) > 15
            assert "canary" not in str(refused.value)
            assert "maria" not in str(refused.value)

    @each_object()
    @settings(max_examples=50)
    @given(data=st.data())
    def test_destination_check_arbitrary_object_is_refused_or_sent_as_json(
        self, platform: Platform, part: str, data: st.DataObject
    ) -> None:
        """What a mapping or accept_records returns: refused with the name of the field, or sent as JSON."""
        sender = platform.parts[part]
        told = data.draw(st.sampled_from(platform.facts["objects"][part]))
        (target,) = destination_targets([told])
        known = sorted({name for attributes in told["good"] for name in attributes} | {"tags", "dnd", "locationId"})
        simple = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=5)
        values = simple | st.lists(simple, max_size=2) | st.dictionaries(st.text(max_size=3), simple, max_size=2)
        attributes = data.draw(st.dictionaries(st.sampled_from(known) | st.text(max_size=3), values, max_size=5))
        try:
            one = outgoing(platform, part, target, attributes)
        except Rejected as refused:
            assert refused.detail  # noqa: PT017 - whether it is refused is the example's affair
            return
        before, after = sender.frame(target)
        filled = request_filling.fill(
            [one], frame_bytes=len(before) + len(after), max_objects=1, max_bytes=sender.MAX_BODY_BYTES
        )
        for chunk in filled:
            if isinstance(chunk, RejectedRecord):
                continue
            request = built(platform, part, target, before + chunk.text + after)
            platform.check(request)
            orjson.loads(request.body or b"")

    @each_reader()
    def test_destination_error_codes_each_have_a_recorded_answer(self, platform: Platform, part: str) -> None:
        recorded = [
            json.loads(path.read_text())["expect"]["gives"]
            for path in (HERE / platform.name / "fixtures" / f"{part}.read_answer").glob("*.json")
        ]
        table: dict[str, Disposition] = platform.parts[part].MEANINGS
        told = {(one["meaning"], one.get("code", "")) for one in recorded}
        missing = [
            code for code, meaning in table.items() if (meaning.value, "" if meaning in DONE else code) not in told
        ]
        assert missing == []
        assert {"retry", "back_off", "stop", "bad_data", "token_again"} <= {meaning for meaning, _ in told}

    @each_reader()
    @given(
        status=st.sampled_from([200, 201, 202, 204, 301, 400, 401, 403, 404, 405, 409, 413, 418, 422, 429, 500, 503, 599]),
        body=garbage(),
        headers=st.dictionaries(
            st.sampled_from(
                ["retry-after", "x-request-id", "x-ratelimit-remaining", "x-ratelimit-daily-remaining",
                 "x-ratelimit-interval-milliseconds", "date", "content-type"]
            ),
            st.sampled_from(["", "0", "1", "-1", "nan", "inf", "1e999", "²", "9" * 30, "x" * 300, "canary-header"]),
        ),
    )  # fmt: skip
    def test_destination_read_answer_garbage_has_a_disposition(
        self, platform: Platform, part: str, status: int, body: bytes, headers: dict[str, str]
    ) -> None:
        answer = platform.parts[part].read_answer(Response(status, headers, body))
        assert isinstance(answer, Answer)
        assert isinstance(answer.meaning, Disposition)
        assert answer.meaning not in DONE or 200 <= status < 300
        assert answer.meaning in DONE or answer.code
        assert "canary" not in answer.detail
        assert len(answer.code) <= 64
        assert len(answer.request_id) <= 255
        for wait_s in (answer.after_s, answer.pause_s):
            assert wait_s is None or 0 < wait_s <= MAX_WAIT_S
        assert answer.pause_s is None or answer.meaning in DONE, "after_s is what is heeded there"

    @each_reader()
    @pytest.mark.parametrize("status", [200, 201, 204, 302, 404, 500, 502])
    def test_destination_read_answer_html_page_is_not_a_success(
        self, platform: Platform, part: str, status: int
    ) -> None:
        page = Response(status, {"content-type": "text/html"}, b"<html><body>Sign in to the network</body></html>")
        answer = platform.parts[part].read_answer(page)
        assert answer.meaning in (Disposition.RETRY, Disposition.STOP)
        assert answer.detail.find("Sign in") < 0

"""Calls made up from the API's own document, and what their answers are held against.

Nothing is raised while calls go out: whatever is wrong is counted and kept with the first call that showed it.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import requests
import schemathesis
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
)

from tests.fakes.local_cloud.session import LocalCloud
from tests.leaks import without_secrets
from tests.stack.api.fuzz_draws import Draw, How, draws, spoil
from tests.stack.api.fuzz_operations import Case, Operation, Path, operation_id, parameters_of
from tests.stack.api.fuzz_scenery import Scenery

CHECKS = [content_type_conformance, response_headers_conformance, response_schema_conformance, negative_data_rejection]
EXCERPT = 300
RENEWAL_WAITS = "urn:portaria:problem:renewal_waits"
# A pause after a failed refresh can be longer.
MAX_WAIT_S = 10.0


@dataclass
class Tally:
    """What came of the calls. `gateway` counts answers that are not the product's: MiniStack's 403 for a path or a method that
    no resource has, and for a call below /admin/v1 that is not signed. On AWS the template makes problem documents of them."""

    calls: int = 0
    server_errors: int = 0
    undocumented: int = 0
    violations: int = 0
    gateway: int = 0
    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    succeeded: set[str] = field(default_factory=set)
    # What answered 2xx to a caller without a valid token.
    opened: set[str] = field(default_factory=set)
    findings: dict[tuple[str, ...], str] = field(default_factory=dict)

    def find(self, kind: str, where: str, what: str, shown: str) -> None:
        self.findings.setdefault((kind, where, what), shown)

    def figures(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "server_errors": self.server_errors,
            "undocumented": self.undocumented,
            "violations": self.violations,
            "gateway": self.gateway,
            "statuses": {
                group: {str(status): count for status, count in sorted(counts.items())}
                for group, counts in self.statuses.items()
            },
        }

    def sentences(self) -> list[str]:
        return [f"{kind}: {where}: {what}: {shown}" for (kind, where, what), shown in self.findings.items()]


@dataclass
class Group:
    """Calls of one kind of caller: `draws` made-up ones an operation, with `bounds` also one for each bound of its schemas.

    `headers` go with each, and take the place of made-up ones.
    """

    name: str
    base_url: str
    session: requests.Session
    headers: Callable[[], dict[str, str]]
    draws: int
    bounds: bool = False


@dataclass
class Fuzz:
    cloud: LocalCloud
    scenery: Scenery
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.document: dict[str, Any] = self.cloud.web.get(f"{self.cloud.public_url}/v1/openapi.json").json()
        fuzzed = deepcopy(self.document)
        # Below the two doors, and sign-on links. What else is public answers in other formats, which the checks do not know.
        fuzzed["paths"] = {
            path.removeprefix("/v1"): {method: operation for method, operation in each.items() if method != "servers"}
            for path, each in fuzzed["paths"].items()
            if path.startswith(("/v1/", "/sso/")) and path not in ("/v1/openapi.json", "/v1/reference")
        }
        schema = schemathesis.openapi.from_dict(fuzzed)
        schema.config.update(base_url=f"{self.cloud.public_url}/v1")
        schema.config.generation.update(with_security_parameters=False)
        self.schema = schema
        results = [result for result in schema.get_all_operations() if isinstance(result, Ok)]
        self.operations = [result.ok() for result in results]
        self.scenery.learn(self.operations)

    def run(self, groups: list[Group]) -> None:
        """Each operation in its turn."""
        for operation in self.operations:
            made = draws(operation, max(group.draws for group in groups))
            bounds = list(self._bounds(operation)) if any(group.bounds for group in groups) else []
            for group in groups:
                self._best(group, operation)
                for draw in made[: group.draws]:
                    self._send(group, operation, draw)
                for position, case in enumerate(bounds if group.bounds else []):
                    how = (How.GOOD, How.GOOD_KNOWN)[position % 2]
                    self._send(group, operation, Draw(how, case, (position,) * 4))

    def _bounds(self, operation: Operation) -> Iterator[Case]:
        modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
        generation = self.schema.config.generation
        yield from self.schema.iter_coverage_cases(operation, generation_modes=modes, generation_config=generation)

    def _best(self, group: Group, operation: Operation) -> None:
        """The call that should succeed."""
        media_type = "application/json" if operation.body else None
        case = operation.Case(media_type=media_type, query=self.scenery.query(operation))
        self._send(group, operation, Draw(How.BEST, case, (0, 0, 0, 0)))

    def _send(self, group: Group, operation: Operation, draw: Draw) -> None:
        # A case belongs to one call: the next group's is about something else.
        case = draw.case if draw.how is How.BEST else deepcopy_case(draw.case)
        if draw.how is How.BEST:
            self.scenery.prepare(operation)
        path = self._path(operation, draw)
        if any(unquote(str(value)) in (".", "..", "") for value in path.values()):
            return  # an HTTP client makes another path of it
        case.path_parameters = path
        body = draw.raw if draw.how is How.RAW else self._seeded(operation, draw, case)
        # Neither stands below both prefixes.
        outside = {"sso": self.cloud.public_url, "health": f"{self.cloud.public_url}/v1"}
        base_url = outside.get(operation.path.split("/")[1], group.base_url)
        wanted: dict[str, Any] = case.as_transport_kwargs(base_url=base_url)
        if body is not None:
            wanted.pop("json", None)
            wanted["data"] = body
            wanted["headers"] = {**wanted["headers"], "Content-Type": "application/json"}
        wanted["headers"] = {**wanted["headers"], **group.headers()}
        try:
            answer = group.session.request(**wanted, allow_redirects=False)
            if draw.how is How.BEST and answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
                # The platform's rate limit: the caller waits as long as the response says, and asks again.
                time.sleep(min(float(answer.headers["Retry-After"]), MAX_WAIT_S))
                answer = group.session.request(**wanted, allow_redirects=False)
        except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidJSONError, UnicodeEncodeError):
            return  # no HTTP client sends it
        self.scenery.note(operation, path, answer)
        self._judge(group, operation, draw, case, answer)

    def _path(self, operation: Operation, draw: Draw) -> Path:
        """What the call is about: something that exists, or whatever was made up."""
        if draw.how in (How.GOOD, How.BAD):
            return dict(draw.case.path_parameters or {})
        known = self.scenery.known(operation, best=draw.how is How.BEST)
        if known:
            return dict(known[draw.numbers[0] % len(known)])
        return dict(draw.case.path_parameters or {name: "nothing" for name in parameters_of(operation)})

    def _seeded(self, operation: Operation, draw: Draw, case: Case) -> bytes | None:
        """A good body or what was made of one, put into the case; None where the case has its own."""
        seeds = self.scenery.bodies(operation, dict(case.path_parameters))
        if draw.how not in (How.BEST, How.SEED, How.SPOILT) or not seeds:
            return None
        seed = seeds[0 if draw.how is How.BEST else draw.numbers[1] % len(seeds)]
        case.body = spoil(seed, draw.numbers, draw.value) if draw.how is How.SPOILT else seed
        # A number that no double holds is JSON, other than the word that Python has for it.
        return json.dumps(case.body).replace("Infinity", "1e999").encode()

    def _judge(self, group: Group, operation: Operation, draw: Draw, case: Case, answer: requests.Response) -> None:
        tally, status = self.tally, answer.status_code
        tally.calls += 1
        tally.statuses[group.name][status] += 1
        where = f"{group.name}: {operation.method.upper()} {operation.path}"
        shown = self._shown(draw, answer)
        if status == HTTPStatus.SERVICE_UNAVAILABLE and answer.json()["type"] == RENEWAL_WAITS:
            # The platform has refused an earlier renewal, so the next one is later.
            return
        if status >= 500:
            tally.server_errors += 1
            tally.find("server error", where, str(status), shown)
            return
        if "X-Request-Id" not in answer.headers and status == 403 and "x-amzn-ErrorType" in answer.headers:
            tally.gateway += 1
            return
        if case.method.upper() != operation.method.upper():
            # The path's other operations: each is called by its own.
            return
        if "X-Portaria-Request-Id" in answer.headers:
            # The response of a connection's API, which may be any.
            tally.succeeded.add(operation_id(operation))
            return
        if case.method.upper() == "HEAD" and status >= 400:
            # A response without a body; its header says whose error it is.
            if "X-Portaria-Error" not in answer.headers:
                tally.find("problem", where, "no X-Portaria-Error", shown)
                tally.violations += 1
            return
        if not {str(status), "default"} & set(operation.definition.raw["responses"]):
            tally.undocumented += 1
            tally.find("undocumented", where, str(status), shown)
            return
        if status < 400:
            tally.succeeded.add(operation_id(operation))
        if status < 300 and group.name in ("no token", "guessed token"):
            tally.opened.add(operation_id(operation))
        wrong = self._problem_wrong(operation, answer)
        if wrong:
            tally.violations += 1
            tally.find("problem", where, wrong, shown)
        # What was done must have been good; of what was refused it does not matter why.
        made_up = draw.how in (How.GOOD, How.BAD, How.GOOD_KNOWN, How.BAD_KNOWN)
        checks = CHECKS if made_up and status < 400 else CHECKS[:-1]
        try:
            case.validate_response(answer, checks=checks)
        except FailureGroup as group_of_failures:
            for failure in group_of_failures.exceptions:
                tally.violations += 1
                title = getattr(failure, "title", type(failure).__name__)
                tally.find(title, where, str(status), f"{str(failure)[:EXCERPT]} … {shown}")

    @staticmethod
    def _problem_wrong(operation: Operation, answer: requests.Response) -> str:
        """What is wrong with a refusal, beyond its schema; a sign-on link's are pages for people."""
        if answer.status_code < 400 or operation.path.startswith("/sso/"):
            return ""
        if answer.headers.get("Content-Type") != "application/problem+json":
            return f"{answer.status_code} as {answer.headers.get('Content-Type')}"
        problem = answer.json()
        if problem["status"] != answer.status_code or problem["request_id"] != answer.headers["X-Request-Id"]:
            return "its status or request_id is another"
        if answer.status_code in (429, 503) and not answer.headers.get("Retry-After", "").isdigit():
            return "no Retry-After"
        return ""

    @staticmethod
    def _shown(draw: Draw, answer: requests.Response) -> str:
        """The call and its answer, without secrets and not at length."""
        sent = answer.request
        body = sent.body if isinstance(sent.body, str) else (sent.body or b"").decode(errors="replace")
        headers = {name: sent.headers[name] for name in ("If-Match", "Idempotency-Key") if name in sent.headers}
        told = f"[{draw.how.value}] {sent.method} {sent.path_url} {headers or ''} {body[:EXCERPT]!r}"
        return without_secrets(f"{told} → {answer.status_code} {answer.text[:EXCERPT]}")


def deepcopy_case(case: Case) -> Case:
    """The case again, to be changed."""
    copy = case.derive()
    copy.body = deepcopy(case.body) if isinstance(case.body, dict | list) else case.body
    return copy

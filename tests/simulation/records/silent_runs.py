"""A platform that does not answer, beside a destination that does: in virtual time, on AWS in memory.

Records come for many LeadConnector locations, which share a host, and for one Marketo subscription. For a while, some of the
locations or all of them answer nothing until a request's timeout. Other records must not wait for them, and all must arrive.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from portaria.aws.table import Table
from portaria.connections import connection_store, request_budget
from portaria.connections.vault import Vault
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection, Route
from portaria.core.errors import AnswerLost
from portaria.core.http.messages import Request, Response
from portaria.records import routes
from tests.fakes.outgoing import SentRequest
from tests.simulation.aws.cloud import PREFIX, TABLE
from tests.simulation.records import waiting_runs
from tests.simulation.records.waiting_runs import BEGIN, OPEN, REQUEST_S, Broken, Flow, Result, Scenario

HOST = "services.leadconnectorhq.com"
# What LeadConnector accepts of one location, and within how many seconds.
WINDOW_S, MOST_IN_WINDOW = 10.0, 100
# Until then after its begin, a silence must have paused the host.
PAUSED_AFTER_S = 60.0


@dataclass(frozen=True)
class Silence:
    """`locations` get `count` records, `a_second`; the first `silent` of them answer nothing in `begins_s` to `ends_s`.

    At most `most_silent` requests may get no answer, and a record for a location that answers may take `most_delay_s`.
    """

    locations: int
    count: int
    a_second: float
    silent: int
    begins_s: float
    ends_s: float
    most_silent: int
    most_delay_s: float


SILENCES = {
    # The whole platform, and then only two locations of many.
    "platform": Silence(
        locations=60,
        count=1_800,
        a_second=4.0,
        silent=60,
        begins_s=60.0,
        ends_s=360.0,
        most_silent=20,
        most_delay_s=60.0,
    ),
    "locations": Silence(
        locations=60,
        count=2_400,
        a_second=4.0,
        silent=2,
        begins_s=60.0,
        ends_s=540.0,
        most_silent=20,
        most_delay_s=60.0,
    ),
    # One location that never pauses, with more records than one worker sends.
    "rate": Silence(
        locations=1, count=2_000, a_second=20.0, silent=0, begins_s=0.0, ends_s=0.0, most_silent=0, most_delay_s=900.0
    ),
}


@dataclass
class SilentFlow(Flow):
    silence: Silence = field(default_factory=lambda: SILENCES["platform"])
    # When each request of a location arrived, and the longest delay of records for locations that answer.
    arrived: dict[str, list[float]] = field(default_factory=dict)
    slowest_location_s: float = 0.0
    # Requests that wait for an answer now.
    unanswered: int = 0

    def set_up(self) -> None:
        super().set_up()
        self.opens_at = BEGIN + self.silence.ends_s
        store, vault = Table(TABLE), Vault(PREFIX)
        # One for all, because Secrets Manager creates 50 a second.
        secret_id = vault.grant_id("locations")
        vault.create(secret_id, {"token": Secret("canary-token")})
        for number in range(self.silence.locations):
            name = f"location-{number}"
            connection_store.create(
                store,
                Connection(
                    name,
                    "leadconnector",
                    "bearer",
                    HOST,
                    "connected",
                    1,
                    secret_id,
                    fields={"location_id": f"L{number}"},
                ),
            )
            source = f"kommo-to-{name}"
            connection_store.create(
                store, Connection(source, "kommo", "oauth2", f"{name}.kommo.com", "connected", 1, "", account_id=name)
            )
            routes.put(store, Route(name, f"connection:{source}", "contacts", name, keep_newest="events"), new=True)

    def arrivals(self) -> Iterator[tuple[float, str, str]]:
        silence = self.silence
        located = (
            (BEGIN + number / silence.a_second, f"location-{number % silence.locations}", number, 1)
            for number in range(silence.count)
        )
        ends_at = max(BEGIN + silence.count / silence.a_second, self.opens_at) + 60
        others = (
            (BEGIN + number * self.scenario.others_every_s, OPEN, 100_000 + number, 1)
            for number in range(int((ends_at - BEGIN) / self.scenario.others_every_s))
        )
        for at, name, key, version in waiting_runs._merged(located, others):
            yield at, name, self.message(at, name, key, version)

    def begin(self, request: Request, *, allowed_domain: str, owner: str) -> SentRequest:
        if allowed_domain != HOST:
            return super().begin(request, allowed_domain=allowed_domain, owner=owner)
        self.result.requests += 1
        contact, now = json.loads(request.body or b""), self.time
        location = contact["locationId"]
        arrived = self.arrived.setdefault(location, [])
        arrived.append(now)
        if len(arrived) > MOST_IN_WINDOW and now - arrived[-MOST_IN_WINDOW - 1] < WINDOW_S:
            raise Broken(f"{location} got more than {MOST_IN_WINDOW} requests within {WINDOW_S:.0f} s")
        silence = self.silence
        if int(location[1:]) < silence.silent and silence.begins_s <= now - BEGIN < silence.ends_s:
            self.result.refused += 1
            if self.result.refused > silence.most_silent:
                raise Broken(f"more than {silence.most_silent} requests waited for an answer")
            self.unanswered += 1
            is_paused = silence.silent == silence.locations and now - BEGIN > silence.begins_s + PAUSED_AFTER_S
            if is_paused and self.unanswered > 1:
                raise Broken("several requests try the host at the same time")
            return SentRequest(partial(self.time_out, now + request.connect_timeout_s + request.read_timeout_s))
        return SentRequest(partial(self.apply, contact, now + REQUEST_S))

    def time_out(self, ends_at: float) -> Response:
        self.wait(max(0.0, ends_at - self.time))
        self.unanswered -= 1
        raise AnswerLost("no answer came")

    def apply(self, contact: dict[str, Any], answered_at: float) -> Response:
        silence = self.silence
        self.wait(max(0.0, answered_at - self.time))
        self.taken[contact["email"]].append(int(contact["lastName"]))
        self.result.applied += 1
        if int(contact["locationId"][1:]) >= silence.silent:
            key = int(contact["email"].removeprefix("person").partition("@")[0])
            self.slowest_location_s = max(self.slowest_location_s, self.time - BEGIN - key / silence.a_second)
            if self.slowest_location_s > silence.most_delay_s:
                raise Broken(f"a record for a location that answers took {self.slowest_location_s:.0f} s")
        return Response(200, {}, json.dumps({"contact": {"id": f"c{self.result.applied}"}}).encode())


def play(name: str) -> tuple[Silence, Result, SilentFlow]:
    """Raises `Broken` if a record for the destination that answers takes longer than a minute, or if any does not arrive."""
    silence = SILENCES[name]
    scenario = Scenario(0, 1.0, silence.ends_s, "", 120_000, keys=1, others_every_s=1.0, objects_a_request=1_000)
    request_budget._destination.cache_clear()
    with waiting_runs.playing(scenario, lambda given: SilentFlow(given, silence=silence)) as flow:
        assert isinstance(flow, SilentFlow)
        return silence, flow.run(), flow


def attempt(name: str) -> str:
    """The violation of a scenario; empty if there is none."""
    try:
        play(name)
    except Broken as broken:
        return f"{name}: {broken}"
    return ""


def main() -> int:
    """`python -m tests.simulation.records.silent_runs NAME …`"""
    for name in sys.argv[1:] or SILENCES:
        started = time.monotonic()
        try:
            _, result, flow = play(name)
            told: object = (result, f"slowest_location_s={flow.slowest_location_s:.0f}")
        except Broken as broken:
            told = f"broken: {broken}"
        print(f"{name} in {time.monotonic() - started:.1f} s: {told}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

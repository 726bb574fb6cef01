"""Real installs beside a flood of forged install hooks, in virtual time on AWS in memory.

The product's own handlers of accept_install and exchange_code run: hooks go to the first one, SQS hands batches to the second
one as Lambda's pollers do, in processes of their own, whose processor and whose calls of AWS take time. Accounts' hosts are
modelled: a forged one refuses, does not answer, or does not exist. SQS delivers in the order of sending, without the fairness
between message groups that AWS promises.
"""

from __future__ import annotations

import heapq
import io
import itertools
import json
import logging
import random
import re
import sys
import time as real_time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

from botocore.exceptions import ClientError
from greenlet import greenlet

from local.template_file import read_template
from portaria.aws import light_client, service_clients
from portaria.aws.table import Table
from portaria.connections import oauth_clients
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.errors import AnswerLost, Unreachable
from portaria.core.http.messages import Request, Response
from portaria.core.item_keys import install_key
from portaria.outbound import http_client, rate_limiter
from portaria.webhooks import (
    arrival_sources,
    install_receiver,
    oauth_client_cache,
    oauth_state,
    request_log,
)
from tests.fakes.aws import functions
from tests.simulation import platform as kommo
from tests.simulation.aws.cloud import BUS, KEY_ID, PREFIX, TABLE, Cloud, Message, Sqs, installed

# The modules of the receiving path that read the time.
TIMED = (arrival_sources, install_receiver, oauth_client_cache, oauth_state)
BEGIN = datetime(2026, 1, 5, 15, tzinfo=UTC).timestamp()
QUEUES = ("exchanges", "unproven_exchanges", "deferred_exchanges")
RESOURCES = {
    "exchanges": "Exchanges",
    "unproven_exchanges": "UnprovenExchanges",
    "deferred_exchanges": "DeferredExchanges",
}
# As in template.yaml.
TIME_LIMIT_S, HIDDEN_S = 40.0, 240.0
# How many batches of a queue Lambda runs at first, and how many more each second.
# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
FIRST_BATCHES, MORE_BATCHES_A_S = 5, 5
COLD_START_S = 1.5
# A call of AWS or of a platform: processor time, which the threads of a process share, and network time.
CALL_CPU_S, CALL_S, REQUEST_CPU_S, REQUEST_S = 0.004, 0.008, 0.012, 0.25
IN_TIME_S = 120.0
RECEIVERS = 4
SECRET = Secret(kommo.CLIENT_SECRET)
# The platform's servers. Forged webhooks also come from neighbouring addresses.
MARKETPLACE = tuple(f"185.40.77.{number}" for number in (10, 11, 12, 13))


@dataclass(frozen=True)
class Scenario:
    """`hosts` are what forged hooks name: `refuses`, `silent`, `missing`, `hangs`. `silent` gives no connection; `hangs` are
    five hosts that take the request and never answer. A real install comes every `real_every_s`, by turns with a state, from
    the marketplace, and from an address that was never seen before."""

    addresses: int
    flood_s: float
    forged_per_s: float = 100.0
    real_every_s: float = 10.0
    hosts: tuple[str, ...] = ("refuses", "silent", "missing", "refuses", "silent", "missing", "hangs")


@dataclass
class Real:
    arrived_at: float
    kind: str
    install: str
    connected_at: float = 0.0


@dataclass
class Result:
    """`slowest_s` is by kind of real install; `requests` are those to hosts, `most_a_second` the most of them."""

    forged_per_s: float = 0.0
    forged: int = 0
    real_installs: int = 0
    connected_within_120_s: int = 0
    lost: int = 0
    refused: int = 0
    slowest_s: dict[str, float] = field(default_factory=dict)
    requests: int = 0
    most_a_second: int = 0
    most_in_flight: int = 0
    most_waiting: dict[str, int] = field(default_factory=dict)


class Queue:
    """One queue of SQS: what is visible in order of sending, what becomes visible later, and what is in flight."""

    def __init__(self) -> None:
        self.visible: deque[Message] = deque()
        self.later: list[tuple[float, int, Message]] = []
        self.held: dict[str, Message] = {}
        self.numbers = itertools.count()

    def show(self, now: float) -> None:
        while self.later and self.later[0][0] <= now:
            visible_at, _, message = heapq.heappop(self.later)
            # A message whose timeout was changed has a later entry; a deleted one is removed.
            if message.visible_at == visible_at and message.id in self.held:
                message.visible_at = now
                self.visible.append(message)

    def hide(self, message: Message, until: float) -> None:
        message.visible_at = until
        heapq.heappush(self.later, (until, next(self.numbers), message))


class FloodSqs(Sqs):
    """SQS with three queues that hold hundreds of thousands of messages."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.queues = {name: Queue() for name in QUEUES}

    def send_message(
        self,
        QueueUrl: str,  # noqa: N803
        MessageBody: str,  # noqa: N803
        DelaySeconds: int = 0,  # noqa: N803
        MessageGroupId: str | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        name = QueueUrl.rpartition("/")[2]
        answer = super().send_message(QueueUrl, MessageBody, DelaySeconds, MessageGroupId)
        message = self.cloud.queues[name].pop()
        queue = self.queues[name]
        queue.held[message.id] = message
        if DelaySeconds:
            queue.hide(message, message.visible_at)
        else:
            queue.visible.append(message)
        return answer

    def take(self, name: str, most: int) -> list[Message]:
        queue, now = self.queues[name], clock.now().timestamp()
        queue.show(now)
        found: list[Message] = []
        while queue.visible and len(found) < most:
            message = queue.visible.popleft()
            message.deliveries += 1
            message.received_at = now
            queue.hide(message, now + HIDDEN_S)
            found.append(message)
        return found

    def delete(self, name: str, message_id: str) -> None:
        self.queues[name].held.pop(message_id, None)

    def change_message_visibility(self, QueueUrl: str, ReceiptHandle: str, VisibilityTimeout: int) -> dict[str, Any]:  # noqa: N803
        queue = self.queues[QueueUrl.rpartition("/")[2]]
        if message := queue.held.get(ReceiptHandle):
            queue.hide(message, clock.now().timestamp() + VisibilityTimeout)
        return {}


@dataclass
class Process:
    """One execution environment of exchange_code."""

    module: ModuleType
    cpu_free_at: float = 0.0


class Pool:
    """Replaces a pool of threads: greenlets of the running process."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self, _: int) -> Pool:
        return self

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def map(self, work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        world, parent = self.world, greenlet.getcurrent()
        process, deadline = world.process, world.deadline
        results: dict[int, Any] = {}
        tasks = list(items)

        def run(number: int, item: Any) -> None:
            results[number] = work(item)
            if len(results) == len(tasks):
                world.after(0, lambda: world.switch(parent, process, deadline))

        for number, item in enumerate(tasks):
            world.spawn(partial(run, number, item), process, deadline)
        world.main.switch()
        return [results[number] for number in range(len(tasks))]


class World:
    def __init__(self, scenario: Scenario, seed: int = 1) -> None:
        self.scenario = scenario
        self.chance = random.Random(seed)
        self.now = BEGIN
        self.main = greenlet.getcurrent()
        self.agenda: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = itertools.count()
        self.process: Process | None = None
        self.deadline = 0.0
        self.cloud = Cloud()
        self.sqs = FloodSqs(self.cloud)
        self.cloud.clients["sqs"]._operations = self.sqs
        self.cloud.carry = self.carry
        self.kommo = kommo.Platform("strict")
        self.idle: list[Process] = []
        self.running: Counter[str] = Counter()
        self.settings = read_settings()
        self.reals: dict[str, Real] = {}
        self.hosts: Counter[str] = Counter()
        self.requests_at: Counter[int] = Counter()
        self.result = Result(forged_per_s=scenario.forged_per_s)
        self.codes: deque[str] = deque(maxlen=1_000)

    # ------------------------------------------------------------------------------------------------- time and greenlets

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self.agenda, (self.now + seconds, next(self.numbers), call))

    def spawn(self, work: Callable[[], None], process: Process | None, deadline: float) -> None:
        task = greenlet(work, parent=self.main)
        self.after(0, lambda: self.switch(task, process, deadline))

    def switch(self, task: greenlet, process: Process | None, deadline: float) -> None:
        self.process, self.deadline = process, deadline
        try:
            task.switch()
        finally:
            self.process = None

    def wait(self, seconds: float) -> None:
        task, process, deadline = greenlet.getcurrent(), self.process, self.deadline
        if process is None:
            return
        self.after(seconds, lambda: self.switch(task, process, deadline))
        self.main.switch()

    def spend(self, cpu_s: float, wire_s: float) -> None:
        """Processor time of a process, one thread after the other, then network time."""
        if self.process is None:
            return
        begins = max(self.now, self.process.cpu_free_at)
        self.process.cpu_free_at = begins + cpu_s
        self.wait(begins - self.now + cpu_s + wire_s)

    def carry(self, name: str, call: Callable[[], Any]) -> Any:
        self.spend(CALL_CPU_S, CALL_S)
        return call()

    # -------------------------------------------------------------------------------------------------------------- world

    def set_up(self) -> None:
        table, vault = Table(TABLE), Vault(PREFIX)
        oauth_clients.put(table, OAuthClient("kommo", "acme", kommo.CLIENT_ID, kommo.REDIRECT_URI), new=True)
        vault.create(vault.client_secret_id("kommo", "acme"), {"client_secret": SECRET})
        self.environment = {
            "AWS_REGION": "us-east-1", "TABLE_NAME": TABLE, "SECRETS_PREFIX": PREFIX, "BUS_NAME": BUS, "SEALING_KEY_ID": KEY_ID,
            "EVENT_ENDPOINTS": "api", "CREDENTIAL_STORE": "secrets-manager", "SHARED_OUTBOUND_ADDRESSES": "0",
            **{f"{name.upper()}_QUEUE_URL": Cloud.url(name) for name in QUEUES},
        }  # fmt: skip
        self.receivers = [functions.load("accept_install", self.environment) for _ in range(RECEIVERS)]
        for receiver in self.receivers:
            vars(receiver)["handler"] = receiver.handler.__wrapped__

    def call(self, resource: str, address: str, query: dict[str, str], cookie: str = "") -> dict[str, Any]:
        """A call of the receiving function, with API Gateway's event."""
        event = {
            "resource": f"/install/{{platform}}/{{client}}{resource}",
            "pathParameters": {"platform": "kommo", "client": "acme"},
            "multiValueQueryStringParameters": {name: [value] for name, value in query.items()} or None,
            "multiValueHeaders": {"Cookie": [cookie]} if cookie else {},
            "requestContext": {"identity": {"sourceIp": address}},
        }
        receiver = self.receivers[self.chance.randrange(RECEIVERS)]
        answer: dict[str, Any] = receiver.handler(event, None)
        if answer["statusCode"] not in (200, 303):
            self.result.refused += 1
        return answer

    def forge(self) -> None:
        number, scenario = self.result.forged, self.scenario
        self.result.forged += 1
        address = f"185.40.77.{20 + number % 200}" if number % scenario.addresses < 200 else ""
        if not address or scenario.addresses == 1:
            at = number % scenario.addresses
            address = f"10.{at >> 16 & 255}.{at >> 8 & 255}.{at & 255}"
        kind = scenario.hosts[self.chance.randrange(len(scenario.hosts))]
        host = f"{kind}-{number % 5 if kind == 'hangs' else number}.kommo.com"
        if self.codes and self.chance.random() < 0.02:
            code = self.chance.choice(self.codes)
        else:
            code = f"forged-{number}"
            self.codes.append(code)
        self.call("", address, {"code": code, "referer": host, "from_widget": "1"})

    def install(self, number: int) -> None:
        kind = ("state", "marketplace", "new_address")[number % 3]
        host, code = f"customer-{number}.kommo.com", f"real-{number}"
        query = {"code": code, "referer": host}
        self.kommo.issue_code(code, host)
        name = install_receiver.install_id("kommo", "acme", Secret(code))
        self.reals[name] = Real(self.now, kind, name)
        if kind == "state":
            address = f"201.3.{number >> 8 & 255}.{number & 255}"
            page = self.call("/start", address, {})
            state = re.search(r"state=([A-Za-z0-9_-]{43})", page["body"])
            assert state is not None
            cookie = page["headers"]["Set-Cookie"].partition(";")[0]
            self.call("", address, query | {"state": state[1]}, cookie)
        else:
            address = MARKETPLACE[number % len(MARKETPLACE)]
            if kind == "new_address":
                address = f"185.41.{number >> 8 & 255}.{number & 255}"
            self.call("", address, query | {"from_widget": "1"})

    def send(self, request: Request, *, allowed_domain: str, follow_redirects: int = 0, owner: str = "") -> Response:
        """The edge of every account's host."""
        http_client.check(request, allowed_domain)
        host = urlsplit(request.url).hostname or ""
        kind = host.partition("-")[0]
        if kind == "missing":
            self.spend(REQUEST_CPU_S, 0.03)
            raise Unreachable("no such host")
        if kind == "silent":
            self.spend(REQUEST_CPU_S, request.connect_timeout_s)
            raise Unreachable("no connection")
        self.result.requests += 1
        self.requests_at[int(self.now)] += 1
        if kind == "hangs":
            self.spend(REQUEST_CPU_S, request.connect_timeout_s + request.read_timeout_s)
            raise AnswerLost("no answer")
        self.spend(REQUEST_CPU_S, REQUEST_S)
        return self.kommo.send(request, allowed_domain=allowed_domain)

    # ------------------------------------------------------------------------------------------------------------- Lambda

    def poll(self, name: str) -> None:
        """Start as many batches as Lambda would."""
        most, size = self.settings[name]
        most = min(most, FIRST_BATCHES + int(MORE_BATCHES_A_S * (self.now - BEGIN)))
        while self.running[name] < most and (batch := self.sqs.take(name, size)):
            self.running[name] += 1
            process = self.idle.pop() if self.idle else None
            cold_s = 0.0 if process else COLD_START_S
            process = process or Process(self.new_process())
            deadline = self.now + cold_s + TIME_LIMIT_S
            self.after(cold_s, partial(self.start, name, process, batch, deadline))
        waiting = len(self.sqs.queues[name].visible)
        self.result.most_waiting[name] = max(self.result.most_waiting.get(name, 0), waiting)

    def start(self, name: str, process: Process, batch: list[Message], deadline: float) -> None:
        self.spawn(lambda: self.work(name, process, batch), process, deadline)

    def new_process(self) -> ModuleType:
        module = functions.load("exchange_code", self.environment)
        vars(module)["handler"] = module.handler.__wrapped__
        vars(module)["ThreadPoolExecutor"] = Pool(self)
        return module

    def work(self, name: str, process: Process, batch: list[Message]) -> None:
        event = functions.sqs_event({message.id: message.body for message in batch}, name)
        for record, message in zip(event["Records"], batch, strict=True):
            record["receiptHandle"] = message.id
            record["attributes"]["ApproximateReceiveCount"] = str(message.deliveries)
        deadline = self.deadline
        context = functions.Context()
        vars(context)["get_remaining_time_in_millis"] = lambda: int((deadline - self.now) * 1_000)
        answer = process.module.handler(event, context)
        if self.now > deadline:
            raise AssertionError("a batch took longer than the function may")
        failed = functions.reported(answer)
        for message in batch:
            if message.id not in failed:
                self.sqs.delete(name, message.id)
        self.running[name] -= 1
        self.idle.append(process)
        self.poll(name)

    # ---------------------------------------------------------------------------------------------------------------- run

    def run(self) -> Result:
        scenario = self.scenario
        self.set_up()
        forged = int(scenario.flood_s * scenario.forged_per_s)
        for number in range(int(scenario.flood_s / scenario.real_every_s)):
            self.after((number + 0.5) * scenario.real_every_s, partial(self.install, number))
        ends_at = BEGIN + scenario.flood_s + IN_TIME_S + 5

        def forge_on() -> None:
            self.forge()
            if self.result.forged < forged:
                self.after(1 / scenario.forged_per_s, forge_on)

        def count_on() -> None:
            self.count_in_flight()
            self.after(10, count_on)

        def poll_on() -> None:
            for name in QUEUES:
                self.poll(name)
            self.look()
            if self.now < ends_at:
                self.after(0.1, poll_on)

        self.after(0, forge_on)
        self.after(0.1, poll_on)
        self.after(5, count_on)
        while self.agenda and self.now < ends_at and not self.is_over():
            at, _, call = heapq.heappop(self.agenda)
            self.now = at
            call()
        return self.judge()

    def is_over(self) -> bool:
        return self.now > BEGIN + self.scenario.flood_s and all(real.connected_at for real in self.reals.values())

    def look(self) -> None:
        for real in self.reals.values():
            if not real.connected_at and self.cloud.item(*install_key(real.install)).get("state") == "connected":
                real.connected_at = self.now

    def count_in_flight(self) -> None:
        """SQS allows 120,000 in a queue: messages that were received, and neither deleted nor visible again."""
        for queue in self.sqs.queues.values():
            in_flight = sum(message.is_in_flight(self.now) for message in queue.held.values())
            self.result.most_in_flight = max(self.result.most_in_flight, in_flight)

    def judge(self) -> Result:
        self.look()
        result = self.result
        result.real_installs = len(self.reals)
        for real in self.reals.values():
            took_s = (real.connected_at or float("inf")) - real.arrived_at
            result.slowest_s[real.kind] = max(result.slowest_s.get(real.kind, 0.0), round(took_s, 1))
            result.connected_within_120_s += took_s <= IN_TIME_S
            result.lost += not real.connected_at
        result.most_a_second = max(self.requests_at.values(), default=0)
        return result


def read_settings() -> dict[str, tuple[int, int]]:
    """How many batches of each queue run at once, and of how many messages, with the template's defaults."""
    found = read_template()
    sources = found["Resources"]["ExchangeCodeFunction"]["Properties"]["Events"]
    sizes = found["Mappings"]["Concurrency"][found["Parameters"]["Size"]["Default"]] | {
        "UnprovenExchanges": int(found["Parameters"]["UnprovenInstallBatches"]["Default"])
    }
    return {name: (sizes[key], sources[key]["Properties"]["BatchSize"]) for name, key in RESOURCES.items()}


def _call_aws(world: World) -> Callable[..., dict[str, Any]]:
    """Replaces the light client's transport to AWS, which the receiving function uses."""

    def call(client: Any, operation: str, payload: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        method = re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()
        try:
            answer: dict[str, Any] = getattr(world.cloud.client(client.service), method)(**payload)
        except ClientError as refused:
            raise light_client.AwsError(client.service, operation, service_clients.error_code(refused), 400) from None
        return answer

    return call


class _Null(io.StringIO):
    def write(self, text: str) -> int:
        return len(text)


@contextmanager
def playing(scenario: Scenario) -> Iterator[World]:
    world = World(scenario)
    virtual = SimpleNamespace(time=lambda: world.now, monotonic=lambda: world.now, strftime=real_time.strftime)
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            installed(lambda: world.cloud),
            redirect_stdout(_Null()),
            patch.object(clock, "now", lambda: datetime.fromtimestamp(world.now, UTC)),
            patch.object(clock, "sleep", world.wait),
            patch.object(http_client, "send", world.send),
            patch.object(light_client.AwsClient, "call", _call_aws(world)),
            ExitStack() as patches,
            patch.object(request_log, "write_line", lambda line: None),
            patch.object(rate_limiter, "time", virtual),
            patch.dict(
                "os.environ", {"POWERTOOLS_SERVICE_NAME": "portaria", "POWERTOOLS_METRICS_NAMESPACE": "Portaria"}
            ),
        ):
            for module in TIMED:
                patches.enter_context(patch.object(module, "time", virtual))
            yield world
    finally:
        logging.disable(disabled)


def play(scenario: Scenario) -> Result:
    with playing(scenario) as world:
        return world.run()


# The runs of `make test`, and an hour of each.
SHORT = {"one": Scenario(1, 15.0, real_every_s=1.0), "many": Scenario(10_000, 15.0, real_every_s=1.0)}
LONG = {"one": Scenario(1, 3_600.0), "many": Scenario(10_000, 3_600.0)}


def main() -> int:
    """`python -m tests.simulation.hook_floods ADDRESSES SECONDS [HOST ...]`"""
    addresses, seconds, *hosts = sys.argv[1:]
    scenario = Scenario(int(addresses), float(seconds))
    if hosts:
        scenario = replace(scenario, hosts=tuple(hosts))
    started = real_time.monotonic()
    result = play(scenario)
    print(f"{real_time.monotonic() - started:.0f} s", json.dumps(vars(result)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

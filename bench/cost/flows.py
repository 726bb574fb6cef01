"""What flows cost: a million records by each way, a million webhook deliveries, and an open console."""

from __future__ import annotations

import math
from typing import NamedTuple

from bench.cost.bill import MILLION, Bill
from bench.cost.counted import Counted, Received
from bench.cost.shape import Shape

API_GATEWAY, FUNCTION_URL = "api-gateway", "function-url"
ENDPOINTS = (API_GATEWAY, FUNCTION_URL)
# An SQS request is billed by this size.
SQS_CHUNK_BYTES = 64_000


class Assumed(NamedTuple):
    """Values that neither the template nor the code contains. A time is the billed duration of a warm invocation."""

    record_bytes: int = 600
    records_a_second: float = 10.0
    receive_events_s: float = 0.020
    accept_records_s: float = 0.080
    ingest_of_40_events_s: float = 0.800
    ingest_of_1000_records_s: float = 1.200
    release_of_1000_records_s: float = 1.000
    backfill_page_s: float = 0.700
    reconciliation_s: float = 0.700
    renewal_s: float = 0.800
    webhook_attempt_s: float = 0.250
    fan_out_of_10_events_s: float = 0.200
    webhook_bytes: int = 1_500
    # The share of cold starts among calls of event webhooks, and what one adds.
    cold_share: float = 0.001
    cold_start_s: float = 0.400
    # The share of events whose address is not remembered, or has been for more than a minute.
    address_reads: float = 0.1
    # What Adobe reports of a request: a write, and the end of the receipt, which stands in one index.
    report_write_units: float = 3.0
    # The sealed item of a grant: two versions of a token pair of 2.4 kB, in base64. The tokens of the counted runs are short.
    sealed_item_bytes: int = 7_000
    # The console's overview, which refreshes every 15 seconds. Reads and bytes as `python -m bench console` measures them. It
    # reads the age of twelve queues every 120 seconds, and the alarms every 60.
    overview_s: float = 0.250
    overview_refreshes: int = 22 * 8 * 3_600 // 15
    overview_read_units: int = 14
    overview_bytes: int = 40_000
    overview_queues: int = 12
    naive_s: float = 0.350
    naive_mb: int = 512
    front_door_records_a_call: int = 100
    contacts_a_page: int = 250
    messages_a_receive: int = 5
    messages_a_delete: int = 10
    # Lambda's START and REPORT in JSON, the handling of a line by CloudWatch, and the lines of a call or a batch.
    system_log_bytes: int = 700
    log_line_overhead: int = 26
    log_bytes_a_call: int = 1_000
    log_bytes_a_batch: int = 3_000
    log_compression: float = 0.15
    answer_bytes: int = 500


class Measures(NamedTuple):
    """What `counted` found; renewals and reconciliations by the store of the credentials."""

    batch: Counted
    backfill: Counted
    front_door: Counted
    renewal: dict[str, Counted]
    reconciliation: dict[str, Counted]
    event: Received
    event_each: Received


class Model(NamedTuple):
    shape: Shape
    assumed: Assumed
    measures: Measures


def live(model: Model, endpoint: str, *, traced: bool = False, logs_each: bool = False) -> Bill:
    """A million events of one record each, in batches that the window of five seconds fills.

    Of the webhook nothing leaves AWS but the answer: incoming data is free.
    """
    shape, assumed, measures = model
    seconds = assumed.receive_events_s + assumed.cold_share * assumed.cold_start_s
    event = measures.event_each if logs_each else measures.event
    logged = event.log_bytes + (assumed.system_log_bytes + 4 * assumed.log_line_overhead if logs_each else 0)
    calls = event.calls
    bill = Bill(
        api_call=MILLION if endpoint == API_GATEWAY else 0,
        lambda_request=MILLION,
        lambda_gb_s=MILLION * seconds * shape.memory_gb["ReceiveEventsFunction"],
        dynamodb_read=MILLION * (calls.get("GetItem", 0) + assumed.address_reads),
        dynamodb_write=MILLION * calls.get("PutItem", 0),
        out_gb=MILLION * assumed.answer_bytes / 1e9,
        trace=MILLION * sampled(assumed.records_a_second) if traced else 0,
        **logs(assumed, MILLION * logged),
    )
    bill.add(**messages(assumed, MILLION * calls["SendMessage"], assumed.record_bytes))
    batches = MILLION / shape.batch
    counted = measures.batch
    bill.add(
        dynamodb_write=batches * (counted.write_units + assumed.report_write_units),
        dynamodb_read=batches * counted.read_units,
        sqs_request=batches * counted.of("sqs"),
        secret_call=batches * counted.of("secretsmanager"),
        event=batches * counted.of("events"),
    )
    return bill.add(**_batches(model, batches, assumed.ingest_of_40_events_s, shape.batch, traced=traced))


def forged(model: Model, endpoint: str) -> Bill:
    """A million forged calls of unknown addresses: most are refused without a lookup."""
    shape, assumed, _ = model
    return Bill(
        api_call=MILLION if endpoint == API_GATEWAY else 0,
        lambda_request=MILLION,
        lambda_gb_s=MILLION * 0.003 * shape.memory_gb["ReceiveEventsFunction"],
        dynamodb_read=MILLION * 0.05,
        out_gb=MILLION * assumed.answer_bytes / 1e9,
    )


def front_door(model: Model, *, endpoint: str = API_GATEWAY) -> Bill:
    """A million records that programs send, with `front_door_records_a_call` in a call. It is always at API Gateway."""
    assumed = model.assumed
    calls = MILLION / assumed.front_door_records_a_call
    batches = MILLION / 1_000
    bill = Bill(
        api_call=calls if endpoint == API_GATEWAY else 0,
        lambda_request=calls,
        lambda_gb_s=calls * assumed.accept_records_s * model.shape.memory_gb["AcceptRecordsFunction"],
        # The token, the connection, and the note of what was taken; a pointer for each call, and the list of them.
        dynamodb_read=3 * calls,
        dynamodb_write=calls + calls + batches,
        out_gb=calls * assumed.answer_bytes / 1e9,
        **logs(assumed, calls * assumed.log_bytes_a_call),
    )
    bill.add(**messages(assumed, calls, assumed.record_bytes * assumed.front_door_records_a_call))
    return bill.add(**_thousands(model, batches, model.measures.front_door))


def backfill(model: Model) -> Bill:
    """A million contacts that are read from a platform, page by page."""
    assumed = model.assumed
    pages = MILLION / assumed.contacts_a_page
    bill = Bill(
        lambda_gb_s=pages * assumed.backfill_page_s * model.shape.memory_gb["BackfillRecordsFunction"],
        lambda_request=pages / 50,
        out_gb=pages * assumed.answer_bytes / 1e9,
        # Each page is checked off.
        dynamodb_write=2 * pages,
    )
    bill.add(**messages(assumed, pages, assumed.record_bytes * assumed.contacts_a_page))
    return bill.add(**_thousands(model, MILLION / 1_000, model.measures.backfill))


def waiting(model: Model) -> Bill:
    """What a million live events cost in addition if they wait in the table for their destination."""
    assumed = model.assumed
    arriving, leaving = MILLION / model.shape.batch, MILLION / 1_000
    bill = Bill(
        # An entry is put and deleted, and its version is marked again for its one way. Each batch that arrives or leaves writes
        # the list, and the backlog (an item in one index).
        dynamodb_write=3 * MILLION + 3 * (arriving + leaving),
        # An entry is read, of which four kilobytes are one unit, and so is the mark of all ways.
        dynamodb_read=MILLION * (1 + assumed.record_bytes / 4_000),
        lambda_gb_s=leaving * assumed.release_of_1000_records_s * model.shape.memory_gb["ReleaseRecordsFunction"],
    )
    # Marks are counted above; what remains is as for records without marks.
    return bill.add(**_thousands(model, leaving, model.measures.front_door))


def webhooks(model: Model) -> Bill:
    """A million events of the bus, each for one webhook that takes it at the first attempt."""
    shape, assumed, _ = model
    batches = MILLION / 10
    # The delivery is put and ended, each in one index too; a slot of the endpoint is taken and returned.
    units = math.ceil(assumed.webhook_bytes / 1_024)
    bill = Bill(
        event=MILLION,
        lambda_request=MILLION + batches,
        lambda_gb_s=MILLION * assumed.webhook_attempt_s * shape.memory_gb["DeliverWebhooksFunction"]
        + batches * assumed.fan_out_of_10_events_s * shape.memory_gb["FanOutEventsFunction"],
        dynamodb_write=MILLION * (2 * 2 * units + 2),
        # The webhooks by the fan-out, and by the worker the webhook, the delivery and the slots, all consistently.
        dynamodb_read=4 * MILLION,
        out_gb=MILLION * (assumed.webhook_bytes + assumed.answer_bytes) / 1e9,
        **logs(assumed, MILLION * assumed.log_bytes_a_call + batches * assumed.log_bytes_a_batch),
    )
    bill.add(**messages(assumed, MILLION, assumed.webhook_bytes))
    return bill.add(**messages(assumed, MILLION, 100))


def overview(model: Model) -> Bill:
    """The console's overview, left open for eight hours on each of 22 days."""
    assumed = model.assumed
    count = assumed.overview_refreshes
    return Bill(
        api_call=count,
        lambda_request=count,
        lambda_gb_s=count * assumed.overview_s * model.shape.memory_gb["ConsoleFunction"],
        dynamodb_read=count * assumed.overview_read_units,
        cloudwatch_request=count * 15 * (assumed.overview_queues / 120 + 1 / 60),
        out_gb=count * assumed.overview_bytes / 1e9,
        **logs(assumed, count * assumed.log_bytes_a_call),
    )


def messages(assumed: Assumed, count: float, size: int) -> dict[str, float]:
    """Sent one by one, received and deleted several at once, each billed by 64 kB and as one of a message group."""
    chunks = math.ceil((size + 300) / SQS_CHUNK_BYTES)
    received = max(1 / assumed.messages_a_receive, size / SQS_CHUNK_BYTES)
    requests = count * (chunks + received + 1 / assumed.messages_a_delete)
    return {"sqs_request": requests, "sqs_group": requests}


def logs(assumed: Assumed, size: float) -> dict[str, float]:
    """Lines taken in, and kept compressed for a month."""
    return {"log_gb": size / 1e9, "log_stored_gb": size * assumed.log_compression / 1e9}


def sampled(a_second: float) -> float:
    """The part that X-Ray records by default: the first of each second, and a twentieth of the others."""
    return 1.0 if a_second <= 1 else (1 + 0.05 * (a_second - 1)) / a_second


def _thousands(model: Model, batches: float, counted: Counted) -> Bill:
    """Batches of a thousand records, as counted, and what Adobe reports of them."""
    assumed = model.assumed
    bill = Bill(
        dynamodb_write=batches * (counted.write_units + assumed.report_write_units),
        dynamodb_read=batches * counted.read_units,
    )
    return bill.add(**_batches(model, batches, assumed.ingest_of_1000_records_s, 1_000))


def _batches(model: Model, batches: float, seconds: float, records: int, *, traced: bool = False) -> Bill:
    """Invocations of ingest_records, each with one request of so many records, without what they write and read."""
    assumed = model.assumed
    return Bill(
        lambda_request=batches,
        lambda_gb_s=batches * seconds * model.shape.memory_gb["IngestRecordsFunction"],
        out_gb=batches * (records * assumed.record_bytes + 1_000) / 1e9,
        trace=batches * sampled(assumed.records_a_second * batches / MILLION) if traced else 0,
        **logs(assumed, batches * assumed.log_bytes_a_batch),
    )

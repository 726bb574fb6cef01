"""The operations that use a connection: calls of its API, tests and renewals."""

from __future__ import annotations

from portaria.api.operation import Operation
from portaria.api.resources.connections import calls, connection_tests, connections, proxied, renewals, sample_records

CALL = "call_connection"

OPERATIONS = [
    Operation(
        "call_connection", "POST", "/connections/{name}/call", "connections:call", "Send a request through a connection",
        calls.call, calls.CallResponse, function=CALL, input=calls.CallRequest, max_bytes=calls.MAX_REQUEST_BYTES,
        creates=True, is_secret=True, at_most_once=True, changes=True,
        description="The request goes to the connection's API with its credential added. A response body that contains the "
        "credential is withheld.",
    ),
    *(
        Operation(
            f"{prefix}_{method.lower()}", method, path, "connections:call", f"Send a {method} to {what}",
            proxied.send, None, function=CALL, read=proxied.read, creates=True, is_secret=True, at_most_once=True, changes=True,
            description=description,
        )
        for prefix, path, what, description in (
            ("proxy", "/connections/{name}/proxy/{path+}", "a connection's API", proxied.DESCRIPTION),
            ("proxy_root", "/connections/{name}/proxy", "an API's root", proxied.ROOT_DESCRIPTION),
        )
        for method in proxied.METHODS
    ),
    Operation(
        "test_connection", "POST", "/connections/{name}/test", "connections:test", "Test a connection",
        connection_tests.test, connection_tests.ConnectionTest, function=CALL, creates=True, changes=True,
        description="Sends the platform's harmless request. Platforms without one (`is_testable` is false) answer 409 "
        "`not_offered`. A credential that the platform calls invalid ends the connection.",
    ),
    Operation(
        "renew_connection", "POST", "/connections/{name}/renew", "connections:renew", "Renew a connection's tokens now",
        renewals.renew, connections.ConnectionOutput, function=CALL, creates=True, changes=True,
        description="The tokens are renewed as the schedule renews them: by one worker at a time, which uses the refresh token "
        "once. A connection without a refresh token answers 409 `not_offered`.",
    ),
    Operation(
        "list_sample_records", "GET", "/connections/{name}/sample-records", "sample-records:list",
        "List sample records of a connection", sample_records.list_page, sample_records.SampleRecord, function=CALL,
        listing=True, filters=sample_records.FILTERS,
        description="Recent records of the account, read at its platform, in the shape that a mapping receives: for previews "
        "of routes. On one page, without records of more than 20,000 characters. `object` is `contacts` by default.",
    ),
]  # fmt: skip

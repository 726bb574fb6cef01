"""Start MiniStack so that requests count as sent over TLS and the API has the same id each time.

It runs in MiniStack's own virtual environment. AWS accepts https only, and the template's queue policies refuse everything
else. MiniStack listens on loopback without TLS, so without this it would refuse every function.
"""

from __future__ import annotations

import os
import sys

from ministack import app
from ministack.core.iam_evaluator import pin_request_origin
from ministack.services import apigateway_v1

API_ID = os.environ["PORTARIA_API_ID"]


def pin_as_tls(source_ip: str, _secure_transport: bool) -> None:
    pin_request_origin(source_ip, True)


def choose_api_id(_tags: object) -> tuple[str | None, None]:
    """The id of a new API, in MiniStack's form; None lets MiniStack choose one, where this one is in use."""
    return (API_ID if apigateway_v1.find_api_scope(API_ID) is None else None), None


app.pin_request_origin = pin_as_tls
apigateway_v1._resolve_custom_rest_api_id = choose_api_id

if __name__ == "__main__":
    sys.exit(app.main())

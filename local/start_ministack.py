"""Start MiniStack, which treats requests as sent over TLS and gives the API the same id at each start.

This runs in MiniStack's own virtual environment. The template's queue policies refuse requests without TLS, as AWS does.
MiniStack listens on loopback without TLS, so without this change it would refuse every function.
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
    """The id of a new API, in the format of MiniStack's function. None lets MiniStack choose, if the id is in use."""
    return (API_ID if apigateway_v1.find_api_scope(API_ID) is None else None), None


app.pin_request_origin = pin_as_tls
apigateway_v1._resolve_custom_rest_api_id = choose_api_id

if __name__ == "__main__":
    sys.exit(app.main())

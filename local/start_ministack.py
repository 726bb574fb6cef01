"""Start MiniStack, which treats requests as sent over TLS, gives the API the same id at each start, and unpacks layers once.

This runs in MiniStack's own virtual environment. The template's queue policies refuse requests without TLS, as AWS does.
MiniStack listens on loopback without TLS, so without this change it would refuse every function.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ministack import app
from ministack.core import lambda_runtime
from ministack.core.iam_evaluator import pin_request_origin
from ministack.services import apigateway_v1

ROOT = Path(__file__).resolve().parent.parent
API_ID = os.environ["PORTARIA_API_ID"]


def pin_as_tls(source_ip: str, _secure_transport: bool) -> None:
    pin_request_origin(source_ip, True)


def choose_api_id(_tags: object) -> tuple[str | None, None]:
    """The id of a new API, in the format of MiniStack's function. None lets MiniStack choose, if the id is in use."""
    return (API_ID if apigateway_v1.find_api_scope(API_ID) is None else None), None


def share_layers() -> None:
    # This checkout is not on the path of MiniStack's interpreter.
    sys.path.append(str(ROOT))
    from local import shared_layers

    sys.path.remove(str(ROOT))
    lambda_runtime.zipfile = shared_layers


app.pin_request_origin = pin_as_tls
apigateway_v1._resolve_custom_rest_api_id = choose_api_id
share_layers()

if __name__ == "__main__":
    sys.exit(app.main())

"""Start MiniStack with four changes.

- Requests count as sent over TLS. The template's queue policies refuse others, as AWS does, and MiniStack listens on loopback
  without TLS, so it would refuse every function.
- The API has the same id at each start.
- Layers are unpacked once (`shared_layers`).
- The first version of a secret has the id that the request names, as on AWS.

This runs in MiniStack's own virtual environment.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from ministack import app
from ministack.core import lambda_runtime
from ministack.core.iam_evaluator import pin_request_origin
from ministack.core.responses import json_response
from ministack.services import apigateway_v1, secretsmanager

ROOT = Path(__file__).resolve().parents[2]
API_ID = os.environ["PORTARIA_API_ID"]


def pin_as_tls(source_ip: str, _secure_transport: bool) -> None:
    pin_request_origin(source_ip, True)


def choose_api_id(_tags: object) -> tuple[str | None, None]:
    """The id of a new API, in the format of MiniStack's function. None lets MiniStack choose, if the id is in use."""
    return (API_ID if apigateway_v1.find_api_scope(API_ID) is None else None), None


def share_layers() -> None:
    # This checkout is not on the path of MiniStack's interpreter.
    sys.path.append(str(ROOT))
    from local.ministack import shared_layers

    sys.path.remove(str(ROOT))
    lambda_runtime.zipfile = shared_layers


_create_secret = secretsmanager._create_secret


def create_secret(data: dict[str, Any]) -> Any:
    """https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html, ClientRequestToken"""
    response = _create_secret(data)
    status, _, body = response
    token = data.get("ClientRequestToken")
    if status != 200 or not token:
        return response
    versions = secretsmanager._secrets[data["Name"]]["Versions"]
    (made_up,) = versions
    versions[token] = versions.pop(made_up)
    return json_response(json.loads(body) | {"VersionId": token})


app.pin_request_origin = pin_as_tls
apigateway_v1._resolve_custom_rest_api_id = choose_api_id
secretsmanager._create_secret = create_secret
share_layers()

if __name__ == "__main__":
    sys.exit(app.main())

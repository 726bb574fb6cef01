"""The URL at which a request reached the API."""

from __future__ import annotations

import os

from portaria.core.http.request import HttpRequest


def api_url(request: HttpRequest) -> str:
    """The URL without the resource's own path: a custom domain's, if the request came to one.

    API Gateway also matches a path with a trailing slash or with repeated slashes, and passes it on as it was sent.
    """
    steps = [step for step in request.path.split("/") if step]
    own = [step for step in request.resource.split("/") if step]
    base_path = "".join(f"/{step}" for step in steps[: len(steps) - len(own)])
    host = request.host or f"{request.api_id}.execute-api.{os.environ['AWS_REGION']}.amazonaws.com"
    return f"https://{host}{base_path}"

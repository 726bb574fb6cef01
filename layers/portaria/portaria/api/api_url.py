"""The URL at which a request reached the API."""

from __future__ import annotations

import os

from portaria.api.operation import Event


def api_url(event: Event) -> str:
    """The URL without the resource's own path: a custom domain's, if the request came to one.

    API Gateway also matches a path with a trailing slash or with repeated slashes, and passes it on as it was sent.
    """
    request = event["requestContext"]
    steps = [step for step in str(request["path"]).split("/") if step]
    own = [step for step in str(event["resource"]).split("/") if step]
    base_path = "".join(f"/{step}" for step in steps[: len(steps) - len(own)])
    host = request.get("domainName") or f"{request['apiId']}.execute-api.{os.environ['AWS_REGION']}.amazonaws.com"
    return f"https://{host}{base_path}"

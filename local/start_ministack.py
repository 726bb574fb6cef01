"""Start MiniStack so that requests count as sent over TLS. It runs in MiniStack's own virtual environment.

AWS accepts https only, and the template's queue policies refuse everything else. MiniStack listens on loopback without TLS, so
without this it would refuse every function.
"""

from __future__ import annotations

import sys

from ministack import app
from ministack.core.iam_evaluator import pin_request_origin


def pin_as_tls(source_ip: str, _secure_transport: bool) -> None:
    pin_request_origin(source_ip, True)


app.pin_request_origin = pin_as_tls

if __name__ == "__main__":
    sys.exit(app.main())

"""What protects the console's session: its cookie, the check of a form's origin, and the token in each form.

The cookie is `HttpOnly`, `Secure`, `SameSite=Strict` and has the prefix `__Host-`. A form's token is derived from the cookie's
secret, so it is stored nowhere and belongs to one session only. A request that changes something must also come from this very
origin (`Origin`, or `Sec-Fetch-Site` where a browser sends no `Origin`).
https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html
"""

from __future__ import annotations

import base64
import hmac

from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected
from portaria.core.http.request import HttpRequest

COOKIE = "__Host-portaria-console"
CSRF_FIELD = "csrf_token"


def read_cookie(request: HttpRequest) -> Secret:
    return Secret(request.cookie(COOKIE))


def set_cookie(secret: Secret, life_s: int) -> str:
    return f"{COOKIE}={secret.reveal()}; Path=/; Max-Age={life_s}; HttpOnly; Secure; SameSite=Strict"


def clear_cookie() -> str:
    return f"{COOKIE}=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Strict"


def csrf_token(cookie: Secret) -> str:
    digest = hmac.digest(cookie.reveal().encode(), b"portaria console form", "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def check_form(request: HttpRequest, cookie: Secret, sent: dict[str, list[str]], origin: str) -> None:
    """Raises `Rejected` (403 `foreign_form`) unless a form was made for this session and sent from this origin."""
    given = sent.get(CSRF_FIELD, [])
    expected = csrf_token(cookie)
    if len(given) != 1 or not hmac.compare_digest(given[0].encode("utf-8", "backslashreplace"), expected.encode()):
        raise _foreign()
    claimed = request.headers.values("origin")
    if claimed:
        if claimed != [origin]:
            raise _foreign()
    elif request.headers.get("sec-fetch-site") != "same-origin":
        raise _foreign()


def _foreign() -> Rejected:
    detail = "this form was not made for your session: go back, reload the page and send it again"
    return Rejected("foreign_form", detail, status=403)

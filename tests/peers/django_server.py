"""django-oauth-toolkit on Django: `python -m tests.peers.django_server`, its settings as JSON in PEER.

It is used as its documentation says, with a database of its own that ends with it. Every visitor of the consent page is logged
in, and every application is trusted. https://django-oauth-toolkit.readthedocs.io/
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from werkzeug.serving import WSGIRequestHandler, make_server

# A module with a name for Django, which imports the URLs and the middleware by name.
sys.modules.setdefault("django_peer", sys.modules[__name__])
control: dict[str, Any] = {"access_s": 3600, "offset_s": 0, "scopes": None}
Handler = Callable[[HttpRequest], HttpResponse]


def configure(database: Path) -> None:
    settings.configure(
        SECRET_KEY="canary-django",
        ALLOWED_HOSTS=["*"],
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": database,
                "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"},
            }
        },
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
        MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django_peer.prepared"],
        ROOT_URLCONF="django_peer",
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
        OAUTH2_PROVIDER={
            "SCOPES": {"read": "read", "write": "write"},
            "PKCE_REQUIRED": True,
            "ROTATE_REFRESH_TOKEN": True,
            "REFRESH_TOKEN_REUSE_PROTECTION": True,
            "REFRESH_TOKEN_EXPIRE_SECONDS": 86400,
            "EXTRA_SERVER_KWARGS": {"token_expires_in": lambda request: control["access_s"]},
        },
    )
    django.setup()
    urlpatterns.extend([path("o/", include("oauth2_provider.urls")), path("me", me), path("_control", change)])
    call_command("migrate", verbosity=0, interactive=False)


def shift_clock() -> None:
    real = timezone.now
    timezone.now = lambda: real() + timedelta(seconds=control["offset_s"])


def create(clients: list[dict[str, Any]]) -> None:
    from django.contrib.auth import get_user_model
    from oauth2_provider.models import get_application_model

    get_user_model().objects.create(username="somebody")
    for client in clients:
        get_application_model().objects.create(
            client_id=client["client_id"],
            client_secret=client["client_secret"],
            hash_client_secret=False,
            client_type="confidential",
            authorization_grant_type="authorization-code" if client.get("redirect_uri") else "client-credentials",
            redirect_uris=client.get("redirect_uri", ""),
            skip_authorization=True,
        )


def prepared(get_response: Handler) -> Handler:
    """The user of every browser is `somebody`, who consents to no more scopes than `control` says."""
    from django.contrib.auth import get_user_model

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.path == "/o/authorize/":
            request.user = get_user_model().objects.get(username="somebody")
            if control["scopes"] is not None:
                narrowed = request.GET.copy()
                narrowed["scope"] = control["scopes"]
                request.GET = narrowed
                request.META["QUERY_STRING"] = narrowed.urlencode()
        return get_response(request)

    return middleware


def me(request: HttpRequest) -> HttpResponse:
    from oauth2_provider.models import get_access_token_model

    shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
    found = get_access_token_model().objects.filter(token=shown, expires__gt=timezone.now()).exists()
    return JsonResponse({"sub": "somebody"}) if found else HttpResponse(status=401)


@csrf_exempt  # type: ignore[untyped-decorator]
def change(request: HttpRequest) -> HttpResponse:
    from oauth2_provider.models import get_access_token_model

    asked = json.loads(request.body or "{}")
    if ended := asked.pop("end_access_token", None):
        get_access_token_model().objects.filter(token=ended).update(expires=timezone.now() - timedelta(seconds=1))
    control.update(asked)
    return JsonResponse(control)


urlpatterns: list[Any] = []


class Quiet(WSGIRequestHandler):
    def log(self, *_: Any, **__: Any) -> None:
        pass


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        configure(Path(folder) / "peer.sqlite3")
        shift_clock()
        create(json.loads(os.environ["PEER"])["clients"])
        application = get_wsgi_application()

        def https(environ: dict[str, Any], start_response: Any) -> Any:
            """The proxy terminates TLS."""
            environ["wsgi.url_scheme"] = "https"
            return application(environ, start_response)

        listening = make_server("127.0.0.1", 0, https, threaded=True, request_handler=Quiet)
        print(f"ready {listening.server_port}", flush=True)
        listening.serve_forever()


if __name__ == "__main__":
    main()

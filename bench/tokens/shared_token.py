"""Eight workers share one expired refresh token that works once, 40 rounds: Authlib, requests-oauthlib and ours, in turn.

Each library is used as its documentation says: a session with the stored token, its token endpoint, and a hook that stores what
it gets. Ours are eight workers that share nothing but the table and the vault, as eight Lambda processes do. A worker has
failed where it is left without a token that the provider accepts.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import requests
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from requests_oauthlib import OAuth2Session as OauthlibSession

from bench.report import conclude, console, row, table
from bench.tokens.grants import CLIENT_SECRET, Grants, as_a_worker, running_stack
from local.__main__ import step
from local.stack import Stack
from portaria.connections.tokens.cache import TokenCache
from portaria.connections.tokens.provider import TokenProvider

WORKERS = 8
ROUNDS = 40
LIMITS = {"portaria_provider_calls_per_round": 1.0, "portaria_rounds_with_failures": 0.0}

# What one worker does: ask for the token; the token that it ends up with, or an exception.
Worker = Callable[[], str]


def measure() -> bool:
    with running_stack() as stack, as_a_worker(stack) as key:
        grants = {name: Grants(stack) for name in ("authlib", "requests_oauthlib", "portaria")}
        calls: dict[str, list[int]] = {name: [] for name in grants}
        failures: dict[str, list[int]] = {name: [] for name in grants}
        with step(f"{ROUNDS} rounds of each, in turn"):
            for _ in range(ROUNDS):
                for name, provider in grants.items():
                    before = provider.renewals()
                    failures[name].append(round_of(provider, WORKERS_OF[name](stack, provider, key)))
                    calls[name].append(provider.renewals() - before)
    shown = table("Eight workers, one single-use refresh token", "provider calls a round")
    figures: dict[str, float] = {"rounds": ROUNDS, "workers": WORKERS}
    for name, counts in calls.items():
        row(shown, name, [float(count) for count in counts])
        figures[f"{name}_provider_calls_per_round"] = statistics.mean(counts)
        figures[f"{name}_rounds_with_failures"] = sum(count > 0 for count in failures[name])
    console.print(shown)
    return conclude("shared_token", figures, LIMITS)


def round_of(grants: Grants, workers: list[Worker]) -> int:
    """Let all workers ask at the same moment; how many are left without a token that works."""
    barrier = threading.Barrier(len(workers))
    failed = [0] * len(workers)

    def work(number: int, worker: Worker) -> None:
        barrier.wait()
        try:
            token = worker()
        except Exception:  # whatever a library raises: this worker has no token
            failed[number] = 1
            return
        answer = requests.get(f"https://{grants.host}/api/me", headers={"Authorization": f"Bearer {token}"}, timeout=20)
        failed[number] = int(answer.status_code != 200)

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(failed)


def authlib_workers(stack: Stack, grants: Grants, key: str) -> list[Worker]:
    store = stored(grants)

    def worker() -> str:
        with AuthlibSession(
            f"id-{grants.name}",
            CLIENT_SECRET,
            token=dict(store),
            token_endpoint=grants.token_url,
            update_token=lambda token, refresh_token=None, access_token=None: store.update(token),
        ) as session:
            session.ensure_active_token(session.token)
            return str(session.token["access_token"])

    return [worker] * WORKERS


def oauthlib_workers(stack: Stack, grants: Grants, key: str) -> list[Worker]:
    store = stored(grants)

    def worker() -> str:
        with OauthlibSession(
            f"id-{grants.name}",
            token=dict(store),
            auto_refresh_url=grants.token_url,
            auto_refresh_kwargs={"client_id": f"id-{grants.name}", "client_secret": CLIENT_SECRET},
            token_updater=store.update,
        ) as session:
            session.get(f"https://{grants.host}/api/me", timeout=20)
            return str(store["access_token"])

    return [worker] * WORKERS


def our_workers(stack: Stack, grants: Grants, key: str) -> list[Worker]:
    connection = grants.expired_connection()

    def worker() -> str:
        supply = TokenProvider(grants.table, grants.vault, key, lambda: 600.0, cache=TokenCache())
        return supply.token(connection).credentials["access_token"].reveal()

    return [worker] * WORKERS


def stored(grants: Grants) -> dict[str, Any]:
    """The shared store: a token that has ended, with a refresh token that nobody has used."""
    given = grants.control.issue_oauth2_grant(grants.name)
    return {**given, "expires_in": -1, "expires_at": int(time.time()) - 10}


WORKERS_OF = {"authlib": authlib_workers, "requests_oauthlib": oauthlib_workers, "portaria": our_workers}

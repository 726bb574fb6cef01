"""One process of callers of this project's API: `python -m bench.tokens.token_callers URL PROXY CA_BUNDLE CALLERS CALLS_AFTER`.

It reads the token from its input, lets all callers call without a pause, prints `calling` when each has been answered, and at
the next line of its input lets each begin so many calls more. Then it prints them all as JSON: when each began and ended, by
the machine's monotonic clock, and the status of its answer. Each call comes from an address of its own.
"""

from __future__ import annotations

import json
import secrets
import sys
import threading
import time

import requests


def main(url: str, proxy: str, ca_bundle: str, callers: int, calls_after: int) -> None:
    token = sys.stdin.readline().strip()
    changed = threading.Event()
    answered = threading.Barrier(callers + 1)
    calls: list[dict[str, float]] = []

    def call(session: requests.Session) -> None:
        address = f"2001:db8::{secrets.token_hex(2)}:{secrets.token_hex(2)}:{secrets.token_hex(2)}"
        headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": address}
        began = time.monotonic()
        status = session.get(url, headers=headers, timeout=60).status_code
        calls.append({"began": began, "ended": time.monotonic(), "status": status})

    def go() -> None:
        with requests.Session() as session:
            session.trust_env, session.proxies, session.verify = False, {"https": proxy}, ca_bundle
            call(session)
            answered.wait()
            while not changed.is_set():
                call(session)
            for _ in range(calls_after):
                call(session)

    threads = [threading.Thread(target=go) for _ in range(callers)]
    for thread in threads:
        thread.start()
    answered.wait()
    print("calling", flush=True)
    sys.stdin.readline()
    changed.set()
    for thread in threads:
        thread.join()
    print(json.dumps(calls), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))

"""One process of many callers of one connection's token: `python -m bench.tokens.callers TABLE PREFIX KEY CONNECTION CALLERS`.

It prints `ready`, waits for a line, lets all its callers ask at the same moment, and prints what they got as JSON:
`waits_ms`, the SHA-256 of each distinct token, and how many failed by reason.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections import Counter

from portaria.aws.table import Table
from portaria.connections import connection_store
from portaria.connections.tokens.provider import TokenProvider
from portaria.connections.vault import Vault
from portaria.core.errors import Rejected, Retryable


def main(table_name: str, prefix: str, key: str, name: str, callers: int) -> None:
    table = Table(table_name)
    connection = connection_store.get(table, name)
    supply = TokenProvider(table, Vault(prefix), key, lambda: 600.0, patience_s=120.0)
    supply.vault.read(connection.secret_id, connection.version_id)
    waits_ms: list[float] = []
    tokens: set[str] = set()
    failed: Counter[str] = Counter()
    barrier = threading.Barrier(callers)

    def ask() -> None:
        barrier.wait()
        began = time.monotonic()
        try:
            token = supply.token(connection).credentials["access_token"].reveal()
        except (Rejected, Retryable) as error:
            failed[error.reason] += 1
            return
        waits_ms.append((time.monotonic() - began) * 1000)
        tokens.add(hashlib.sha256(token.encode()).hexdigest())

    print("ready", flush=True)
    sys.stdin.readline()
    threads = [threading.Thread(target=ask) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"waits_ms": waits_ms, "tokens": sorted(tokens), "failed": failed}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))

"""Which addresses may be connected to: those of the public internet.

The registries: https://www.iana.org/assignments/iana-ipv4-special-registry,
https://www.iana.org/assignments/iana-ipv6-special-registry. Python's `is_global` differs between versions.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from concurrent.futures import Future
from typing import Any

from portaria.core.errors import Rejected

_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        # Protocol assignments (Teredo and ORCHID among them), documentation, 6to4.
        *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
)
# Loopback, mapped, link-local, unique local and multicast addresses are all outside this network.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# An IPv4 address as a network without IPv4 sees it: the gateway connects to the address in the last four bytes.
# https://docs.aws.amazon.com/vpc/latest/userguide/nat-gateway-nat64-dns64.html
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip not in _GLOBAL_UNICAST:
            return False
    return not any(ip in network for network in _NOT_PUBLIC)


def resolve(host: str, port: int, timeout_s: float) -> list[Any]:
    """Every address of a host, at least one, as `getaddrinfo` returns them. Raises `OSError`.

    The look-up runs in its own thread, because `getaddrinfo` has no time-out and cannot be interrupted.
    """
    answer: Future[list[Any]] = Future()

    def ask() -> None:
        try:
            answer.set_result(socket.getaddrinfo(host, port, socket.AF_UNSPEC, socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001 - raised again where it is waited for
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    found = answer.result(timeout_s)
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
    return found


def resolve_public(host: str, port: int, timeout_s: float) -> list[Any]:
    """As `resolve`. Raises `Rejected` where any of the addresses is not public."""
    found = resolve(host, port, timeout_s)
    if not all(is_public(str(address[0])) for *_, address in found):
        raise Rejected(
            "address_not_allowed", f"{host} resolves to an address that is not on the public internet", field="url"
        )
    return found

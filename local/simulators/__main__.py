"""Run the simulators: one socket for the platforms' requests, which come through the proxy, and one for control."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
from pathlib import Path

from aiohttp import web

from local.simulators import saving
from local.simulators.control.application import control_application
from local.simulators.platforms import Platforms

# More than any limit that a simulator enforces itself.
MAX_BODY_BYTES = 50_000_000


async def run(
    platforms_socket: socket.socket, control_socket: socket.socket, proxy_url: str, state: Path | None
) -> None:
    """Serve until SIGTERM. Load the data from `state`, if it exists, and save it there at the end."""
    platforms = Platforms(proxy_url)
    if state and state.exists():
        saving.load(platforms, state)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)

    async def serve_platforms(request: web.Request) -> web.Response:
        return await platforms.front.serve(request)

    front = web.Application(client_max_size=MAX_BODY_BYTES)
    front.router.add_route("*", "/{path:.*}", serve_platforms)
    for application, listener in ((front, platforms_socket), (control_application(platforms), control_socket)):
        # No access log: the platforms' URLs and bodies contain codes and tokens.
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.SockSite(runner, listener).start()
    await ended.wait()
    if state:
        saving.save(platforms, state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=int, required=True, help="file descriptor of the platforms' listening socket")
    parser.add_argument(
        "--control-socket", type=int, required=True, help="file descriptor of control's listening socket"
    )
    parser.add_argument("--proxy-url", required=True)
    parser.add_argument("--state", type=Path, help="file that keeps the data between a stop and the next start")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            run(
                socket.socket(fileno=arguments.socket),
                socket.socket(fileno=arguments.control_socket),
                arguments.proxy_url,
                arguments.state,
            )
        )


if __name__ == "__main__":
    main()

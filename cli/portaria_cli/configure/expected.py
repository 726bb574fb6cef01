"""What the rules look up while a file is checked: what will be there once the file has been applied."""

from __future__ import annotations

from collections.abc import Iterable

from portaria.api.rules import connection_rules, oauth_client_rules
from portaria.api.validation import nearest
from portaria.core.callbacks import OAuthClient
from portaria.core.entities import Connection
from portaria.core.errors import Rejected
from portaria_cli.api import Api
from portaria_cli.configure.entries import UNREAD
from portaria_cli.errors import Document, NotDone
from portaria_cli.terminal import output

FORBIDDEN = 403


class Expected:
    """A `Known` that looks in the file first and then asks the API, which it only reads.

    `of_file` has what the file makes of each of its clients and connections, None where that cannot be told because the entry
    has problems. `unsure` collects what could not be looked up; `remarks` say why.
    """

    def __init__(self, api: Api) -> None:
        self.api = api
        self.of_file: dict[tuple[str, ...], OAuthClient | Connection | None] = {}
        self.unsure: set[str] = set()
        self.remarks: list[str] = []
        self._found: dict[tuple[str, ...], Document | None] = {}
        self._connections: list[Connection] | None = None

    def client(self, platform: str, name: str) -> OAuthClient:
        """Raises `Rejected` (`unknown_client`)."""
        path = ("oauth-clients", platform, name)
        advice = self._advice(path)
        unknown = Rejected("unknown_client", f"there is no OAuth client {platform}/{name}, here or in the file{advice}")
        if path in self.of_file:
            made = self.of_file[path]
            if isinstance(made, OAuthClient):
                return made
            raise self._unsure(f"{platform}/{name}", unknown)
        found = self._look_up(path, f"{platform}/{name}", unknown)
        return oauth_client_rules.read_shown(found)

    def connection(self, name: str) -> Connection:
        """Raises `Rejected` (`unknown_connection`)."""
        path = ("connections", name)
        unknown = Rejected(
            "unknown_connection", f"there is no connection {name}, here or in the file{self._advice(path)}"
        )
        if path in self.of_file:
            made = self.of_file[path]
            if isinstance(made, Connection):
                return made
            raise self._unsure(name, unknown)
        return connection_rules.read_shown(self._look_up(path, name, unknown))

    def connections_of(self, platform: str, client: str) -> Iterable[Connection]:
        if self._connections is None:
            self._connections = [connection_rules.read_shown(shown) for shown in self._list("connections")]
        for each in self._connections:
            if (each.platform, each.client) == (platform, client) and each.state != "removed":
                yield each

    def routes_of(self, connection: str) -> list[str]:
        """The routes that lead to a connection or start at it."""
        return [
            route["name"]
            for route in self._list("routes")
            if connection in (route["destination"], route["source"].removeprefix("connection:"))
        ]

    def find(self, *path: str) -> Document | None:
        """Return the resource at a path of the API, or None if there is none. Raises `NotDone`."""
        if path not in self._found:
            self._found[path] = self.api.find(*path)
        return self._found[path]

    def _look_up(self, path: tuple[str, ...], name: str, unknown: Rejected) -> Document:
        if path[-1] == UNREAD:
            raise self._unsure(name, unknown)
        try:
            found = self.find(*path)
        except NotDone as refused:
            if refused.status != FORBIDDEN:
                raise
            # Its name is not repeated: in a connection's `client` it may come from an environment variable.
            title = output.TITLES[path[0]]
            self.remarks.append(f"no {title} could be looked up, so what needs one was not checked: {refused}")
            raise self._unsure(name, unknown) from None
        if found is None:
            raise unknown
        return found

    def _advice(self, path: tuple[str, ...]) -> str:
        """The entry of the file that was probably meant."""
        kind, *names = path
        known = ["/".join(found[1:]) for found in self.of_file if found[0] == kind]
        meant = nearest("/".join(names), known)
        return f": did you mean {meant}?" if meant else ""

    def _unsure(self, name: str, unknown: Rejected) -> Rejected:
        self.unsure.add(name)
        return unknown

    def _list(self, kind: str) -> list[Document]:
        """A whole listing; an empty one where the caller may not read it, which the API checks again when it writes."""
        try:
            return list(self.api.list(kind))
        except NotDone as refused:
            if refused.status != FORBIDDEN:
                raise
            self.remarks.append(
                f"{output.plural_of(kind)} could not be listed, so what needs them was not checked: {refused}"
            )
            return []

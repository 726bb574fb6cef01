"""What applying a file would do: a step for each entry, and every problem that stands in the way.

The rules are the API's own; what only the API knows is read from it. Nothing is written.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from portaria.api.rules import connection_rules, oauth_client_rules, route_rules
from portaria.api.validation import Fault, faults_of
from portaria.core.callbacks import OAuthClient
from portaria.core.entities import Connection
from portaria.core.errors import Rejected
from portaria.records.routes import show as show_route
from portaria_cli.configure import bodies
from portaria_cli.configure.bodies import MODELS, Body
from portaria_cli.configure.entries import IDENTITY, UNREAD, Entry, Steps
from portaria_cli.configure.expected import Expected
from portaria_cli.configure.problems import Problem
from portaria_cli.errors import Document, NotDone

CREATE, CHANGE, REPLACE, NOTHING = "create", "change", "replace", "nothing"
_Made = TypeVar("_Made")

# A route that lacks one of these has follow-up faults in others, which say nothing new.
_FOLLOWS: dict[str, tuple[Steps, ...]] = {
    "object": (("mapping",), ("dedupe_fields",), ("target",)),
    "source": (("mapping",), ("dedupe_fields",), ("object",)),
    "target": (("mapping",), ("dedupe_fields",), ("object",)),
    "mapping": (("dedupe_fields",),),
}


@dataclass(frozen=True)
class Step:
    """`fields` lists the fields that change. `reason` says why an entry is replaced, or written without a known difference."""

    entry: Entry
    action: str
    fields: tuple[str, ...] = ()
    reason: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def path(self) -> tuple[str, ...]:
        return (self.entry.kind, *self.entry.identity)

    @property
    def name(self) -> str:
        return "/".join(self.entry.identity)

    def document(self) -> Document:
        return {
            "resource": self.entry.kind,
            "name": self.name,
            "action": self.action,
            "fields": list(self.fields),
            "reason": self.reason,
            "warnings": list(self.warnings),
            "line": self.entry.place.line,
        }


@dataclass
class Plan:
    steps: list[Step] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class Planner:
    """`replace` are the connections that may be deleted and created again. `command` is how the command line is called for
    this stack, for the commands that are proposed."""

    def __init__(
        self, file: Path, expected: Expected, replace: Collection[str], command: str, tell: Callable[[str], None]
    ) -> None:
        self.file = file
        self.expected = expected
        self.replace = replace
        self.command = command
        self.tell = tell
        self.plan = Plan()

    def make(self, entries: list[Entry]) -> Plan:
        """Raises `NotDone` where the API cannot be read; `plan` then holds what was found until then."""
        read = [(entry, self._read(entry)) for entry in entries]
        for number, (entry, body) in enumerate(read, 1):
            self.tell(f"checking {number}/{len(read)}  {'/'.join(entry.identity)}")
            plan = {"clients": self._client, "connections": self._connection, "routes": self._route}[entry.section]
            step = plan(entry, body)
            if step:
                self.plan.steps.append(step)
        return self.plan

    def _read(self, entry: Entry) -> Body:
        """What the entry's own fields say. A client's secret may be left out where one is stored."""
        content = entry.content
        if entry.section == "clients" and "client_secret" not in content:
            content = {**content, "client_secret": UNREAD}
        body = bodies.read(entry, MODELS[entry.section], content)
        for fault in body.faults:
            self._report(entry, fault)
        if entry.section != "routes" and all(entry.identity):
            self.expected.of_file[(entry.kind, *entry.identity)] = None
        return body

    def _find(self, entry: Entry, body: Body) -> Document | None:
        """What the API has under the entry's name. None where the name cannot be one."""
        names = IDENTITY[entry.section]
        if any((name,) in body.wrong for name in names):
            return None
        try:
            return self.expected.find(entry.kind, *entry.identity)
        except NotDone as refused:
            raise NotDone(
                f"{entry.title}: {refused}",
                exit_code=refused.exit_code,
                status=refused.status,
                problem=refused.problem,
            ) from None

    # ---------------------------------------------------------------------------------------------------------- clients

    def _client(self, entry: Entry, body: Body) -> Step | None:
        found = self._find(entry, body)
        api_url = self.expected.api.url
        if body.sent is None:
            return None
        if found is None:
            if "client_secret" not in entry.content:
                self._report(entry, Fault("client_secret", "client_secret is missing"))
            made = self._checked(entry, body, lambda: oauth_client_rules.check_creation(body.sent, api_url))
            return self._planned(entry, body, made, Step(entry, CREATE))
        old = oauth_client_rules.read_shown(found)
        sent = body.sent.model_copy(update={} if "client_secret" in entry.content else {"client_secret": None})
        made = self._checked(
            entry, body, lambda: oauth_client_rules.check_replacement(old, sent, self.expected, api_url),
            commands=lambda fault: self._in_the_way(fault, old, sent),
        )  # fmt: skip
        fields = _differences(found, oauth_client_rules.show(made)) if made else ()
        if made and "redirect_uri" not in entry.content and _is_own(found["redirect_uri"], made):
            fields = tuple(name for name in fields if name != "redirect_uri")
        reason = ""
        if "client_secret" in entry.content:
            fields, reason = (*fields, "client_secret"), "written each time: the stored one cannot be read"
        return self._planned(entry, body, made, Step(entry, CHANGE if fields else NOTHING, fields, reason))

    def _in_the_way(self, fault: Fault, old: OAuthClient, sent: Any) -> tuple[str, ...]:
        """The commands that delete the connections which a client's change would hurt."""
        users: Iterable[Connection] = ()
        if fault.field == "token_url" and oauth_client_rules.moves_tokens(old, sent):
            users = self.expected.connections_of(old.platform, old.name)
        elif fault.field == "api_domains" and sent.api_domains:
            changed = old._replace(api_domains=" ".join(sent.api_domains))
            users = oauth_client_rules.outside_of(changed, self.expected)
        return tuple(command for user in users for command in self._deletion(user.name))

    def _deletion(self, connection: str) -> list[str]:
        return [*self._routes_deleted(connection), f"{self.command} connections delete {connection}"]

    def _routes_deleted(self, connection: str) -> list[str]:
        warning = "# no record is sent on by it until it is there again"
        return [f"{self.command} routes delete {name}  {warning}" for name in self.expected.routes_of(connection)]

    # ------------------------------------------------------------------------------------------------------ connections

    def _connection(self, entry: Entry, body: Body) -> Step | None:
        found = self._find(entry, body)
        if body.sent is None or ("platform",) in body.wrong:
            return None
        sent = body.sent
        if found is None or found["state"] == "removed":
            made = _stub(sent)
            self.expected.of_file[(entry.kind, *entry.identity)] = made
            checked = self._checked(entry, body, lambda: connection_rules.check_creation(sent, self.expected))
            return self._planned(entry, body, checked, Step(entry, CREATE))
        old = connection_rules.read_shown(found)
        self.expected.of_file[(entry.kind, *entry.identity)] = old
        if fixed := self._fixed(entry, body, old):
            return self._replaced(entry, body, old, fixed)
        if "credentials" not in entry.content:
            return self._planned(entry, body, old, Step(entry, NOTHING))
        checked_credentials = self._checked(entry, body, lambda: connection_rules.check_replacement(old, sent))
        reason = "tried, and stored where they differ"
        return self._planned(entry, body, checked_credentials, Step(entry, CHANGE, ("credentials",), reason))

    def _replaced(self, entry: Entry, body: Body, old: Connection, fixed: list[Fault]) -> Step | None:
        """A deletion ends what waits for the connection: it needs the person's permission, and no route may need it."""
        first = self._routes_deleted(old.name)
        if first or old.name not in self.replace:
            last = f"{self.command} configure {shlex.quote(str(self.file))} --replace {old.name}"
            for number, fault in enumerate(fixed):
                advice = fault._replace(detail=f"{fault.detail}, or have this one deleted and created again:")
                self._report(entry, fault if number else advice, () if number else (*first, last))
            return None
        made = _stub(body.sent)
        self.expected.of_file[(entry.kind, *entry.identity)] = made
        checked = self._checked(entry, body, lambda: connection_rules.check_creation(body.sent, self.expected))
        fields = tuple(fault.field for fault in fixed)
        return self._planned(
            entry, body, checked, Step(entry, REPLACE, fields, "cannot change: deleted and created again")
        )

    def _fixed(self, entry: Entry, body: Body, old: Connection) -> list[Fault]:
        """What the entry says otherwise than the connection has it, and cannot change."""
        try:
            connection_rules.refuse_changes(old, body.sent)
        except Rejected as refused:
            return [fault for fault in faults_of(refused) if not self._follows(entry, body, _steps(fault))]
        return []

    # ----------------------------------------------------------------------------------------------------------- routes

    def _route(self, entry: Entry, body: Body) -> Step | None:
        found = self._find(entry, body)
        if body.sent is None:
            return None
        checked = self._checked(entry, body, lambda: route_rules.check(body.sent.name, body.sent, self.expected))
        if not checked:
            return None
        route, warnings = checked
        if found is None:
            return self._planned(entry, body, route, Step(entry, CREATE, warnings=tuple(warnings)))
        fields = _differences(found, show_route(route))
        step = Step(entry, CHANGE if fields else NOTHING, fields, warnings=tuple(warnings))
        return self._planned(entry, body, route, step)

    # -------------------------------------------------------------------------------------------------------------- all

    def _checked(
        self,
        entry: Entry,
        body: Body,
        check_rules: Callable[[], _Made],
        commands: Callable[[Fault], tuple[str, ...]] = lambda fault: (),
    ) -> _Made | None:
        """What a rule returns, or None after its refusals were reported."""
        self.expected.unsure.clear()
        try:
            return check_rules()
        except Rejected as refused:
            faults = faults_of(refused)
            meant = {(*_steps(fault)[:-1], fault.meant) for fault in faults if fault.meant}
            for fault in faults:
                steps = _steps(fault)
                if steps not in meant and not self._follows(entry, body, steps):
                    self._report(entry, fault, commands(fault))
            return None

    def _follows(self, entry: Entry, body: Body, steps: Steps) -> bool:
        """Whether a fault says nothing new: its field has a problem already, or depends on what is not known."""
        if body.is_about_a_wrong_field(steps):
            return True
        value = str(entry.content.get(str(steps[0]), "")) if steps else ""
        if steps[:1] in {("client",), ("source",), ("destination",)} and any(
            name == value.partition(":")[2] or name == value or name == f"{entry.content.get('platform')}/{value}"
            for name in self.expected.unsure
        ):
            return True
        if entry.section != "routes":
            return False
        missing = {str(wrong[0]) for wrong in body.wrong if wrong}
        return any(steps in _FOLLOWS.get(name, ()) for name in missing)

    def _planned(self, entry: Entry, body: Body, made: object, step: Step) -> Step | None:
        """The step, where the entry has no problem; what it makes is known to the entries after it."""
        if made is None or body.faults or entry.unread:
            return None
        if isinstance(made, OAuthClient | Connection):
            self.expected.of_file[(entry.kind, *entry.identity)] = made
        return step

    def _report(self, entry: Entry, fault: Fault, commands: tuple[str, ...] = ()) -> None:
        steps = _steps(fault)
        place = entry.place_at(steps, of_name=fault.of_name)
        detail = fault.detail
        source = next(
            (entry.references[steps[:end]] for end in range(len(steps) + 1) if steps[:end] in entry.references), ""
        )
        for read in entry.references:
            # What was read from elsewhere may be a secret in the wrong place.
            detail = detail.replace(entry.text_at(read), "***") if entry.text_at(read) else detail
        if source and not fault.of_name:
            detail += f" (read from {source})"
        elif steps in entry.read_as and entry.read_as[steps] == "nothing":
            detail += " (it is empty here)"
        elif steps in entry.read_as and detail.endswith("must be text"):
            detail += f" (YAML reads {entry.read_as[steps]} here: put it in quotes)"
        self.plan.problems.append(Problem(place, detail, commands))


def _steps(fault: Fault) -> Steps:
    return fault.steps or tuple(fault.field.split("."))


def _stub(sent: Any) -> Connection | None:
    """A connection that is still to be made, as far as routes must know it; None where its platform makes none."""
    try:
        if not connection_rules.kinds_of(sent.platform):
            return None
    except Rejected:
        return None
    return Connection(sent.name, sent.platform, sent.kind or "", sent.allowed_domain or "", "pending", 0, "")


def _is_own(redirect_uri: str, client: OAuthClient) -> bool:
    """Whether it is the API's own, which a client has that names none."""
    return redirect_uri.endswith(f"/install/{client.platform}/{client.name}")


def _differences(found: Document, wanted: Document) -> tuple[str, ...]:
    """The fields that would change; of an object the ones inside it."""
    fields: list[str] = []
    for name, value in wanted.items():
        before = found.get(name)
        # An empty text is absent, which the API shows as null.
        if (before or "") == (value or "") or name in ("client_secret", "install_page_url"):
            continue
        if isinstance(value, dict) and isinstance(before, dict):
            inner = sorted({*value, *before})
            fields += [f"{name}.{each}" for each in inner if value.get(each) != before.get(each)]
        else:
            fields.append(name)
    return tuple(fields)

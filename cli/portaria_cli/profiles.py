"""Profiles: named settings in `~/.config/portaria/config.toml`, and the settings that count for a command.

    [profiles.staging]
    stack_name = "portaria-staging"
    region = "eu-west-1"
    aws_profile = "staging"

A command takes its settings from the options, then the environment, then a profile. A profile that is named by the option
`--profile` is an option, so it comes before the environment. The profile `default` counts if no other is named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from portaria_cli.configure.problems import Place, Problem, WrongFile
from portaria_cli.errors import USAGE, NotDone

PROFILE_VARIABLE = "PORTARIA_PROFILE"
TOKEN_VARIABLE = "PORTARIA_TOKEN"  # noqa: S105 - a name
VARIABLES = {
    "api_url": ("PORTARIA_API_URL",),
    "stack_name": ("PORTARIA_STACK_NAME",),
    "stack_file": ("PORTARIA_STACK_FILE",),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
}
# The settings that say where the API is.
PLACES = ("api_url", "stack_name", "stack_file")
# What a profile may hold, with what it is.
FIELDS = {
    "stack_name": "the name of the CloudFormation stack",
    "stack_file": "the file of a local cloud",
    "api_url": "the URL of the API, with its stage",
    "region": "the AWS region",
    "aws_profile": "the profile of the AWS CLI whose credentials are used",
    "token_file": "the file that holds a private integration's token",
}
FILES = ("stack_file", "token_file")
DEFAULT_PROFILE = "default"
DEFAULT_STACK = "portaria"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SECRETS = ("token", "api_token", "access_token", "secret", "password", "aws_secret_access_key", "secret_access_key")


@dataclass(frozen=True)
class Settings:
    """The settings of a command. `sources` says where each setting comes from."""

    api_url: str | None = None
    stack_name: str = DEFAULT_STACK
    stack_file: Path | None = None
    region: str | None = None
    aws_profile: str | None = None
    token_file: Path | None = None
    reads_token_variable: bool = True
    profile: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)


_Source = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class _Chosen:
    """The profile that is used, if any. `is_option` says that the option `--profile` names it."""

    name: str
    settings: Mapping[str, str]
    is_option: bool

    @property
    def source(self) -> str:
        return f"profile {self.name}"


def config_file(environment: Mapping[str, str]) -> Path:
    """`$XDG_CONFIG_HOME/portaria/config.toml`. A relative XDG_CONFIG_HOME is ignored, as the specification says.

    https://specifications.freedesktop.org/basedir-spec/latest/
    """
    configured = Path(environment.get("XDG_CONFIG_HOME", ""))
    folder = configured if configured.is_absolute() else Path("~/.config").expanduser()
    return folder / "portaria" / "config.toml"


def settle(given: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    """The settings that count, from the options that were `given`, the environment and a profile.

    All places come from the first source that names one, so that no command works on two stacks. A profile's token is sent
    only to the place that the profile names. Raises `NotDone`.
    """
    environment = os.environ if environment is None else environment
    # A shell variable that is not set must not lead to another stack.
    for name in ("profile", "api_url", "stack_name"):
        if given.get(name) == "":
            raise NotDone(f"--{name.replace('_', '-')} is empty: leave it out, or give it a value", exit_code=USAGE)
    named = given.get("profile") or environment.get(PROFILE_VARIABLE, "")
    profile = _profile(named, environment)
    chosen = _Chosen(named or (DEFAULT_PROFILE if profile else ""), profile, is_option=bool(given.get("profile")))
    options = {name: value for name in (*PLACES, "token_file") if (value := given.get(name))}
    variables = {
        name: value
        for name, names in VARIABLES.items()
        if (value := next((environment[each] for each in names if environment.get(each)), ""))
    }
    last = [("environment", variables), (chosen.source, profile)]
    sources: list[_Source] = [("option", options), *(reversed(last) if chosen.is_option else last)]
    place, values = next((source for source in sources if source[1].keys() & set(PLACES)), ("", {}))
    found = {setting: (values[setting], place) for setting in PLACES if setting in values}
    for source, values in sources:
        if "region" in values:
            found.setdefault("region", (values["region"], source))
    reads_token_variable = _caller(chosen, options, environment, place, found)
    values_of: dict[str, Any] = {name: Path(value) if name in FILES else value for name, (value, _) in found.items()}
    return Settings(
        **values_of,
        reads_token_variable=reads_token_variable,
        profile=chosen.name,
        sources={name: source for name, (_, source) in found.items()},
    )


def _caller(
    chosen: _Chosen, options: Mapping[str, Any], environment: Mapping[str, str], place: str, found: dict[str, Any]
) -> bool:
    """Adds the settings that say who calls to those `found`. Returns whether the token of the environment may be used."""
    profile = chosen.settings
    has_keys = environment.get("AWS_PROFILE") or environment.get("AWS_ACCESS_KEY_ID")
    if "aws_profile" in profile and (chosen.is_option or not has_keys):
        found["aws_profile"] = (profile["aws_profile"], chosen.source)
    if "token_file" in options:
        found["token_file"] = (options["token_file"], "option")
        return False
    if chosen.is_option and "aws_profile" in profile:
        return False
    has_token = bool(environment.get(TOKEN_VARIABLE))
    if "token_file" in profile and place == chosen.source and (chosen.is_option or not has_token):
        found["token_file"] = (profile["token_file"], chosen.source)
        return False
    return True


def read(environment: Mapping[str, str] | None = None) -> dict[str, dict[str, str]]:
    """Every profile by its name; none if there is no file. Raises `WrongFile` with each problem's line and column."""
    file = config_file(os.environ if environment is None else environment)
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise NotDone(f"{file} cannot be read: {error.strerror}", exit_code=USAGE) from None
    except UnicodeDecodeError:
        raise NotDone(f"{file} is not UTF-8", exit_code=USAGE) from None
    import tomllib  # noqa: PLC0415 - most commands run without a configuration file

    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WrongFile(file, [_not_toml(text, str(error))], consequence="") from None
    if problems := list(_problems(text, content)):
        raise WrongFile(file, problems, consequence="")
    profiles: dict[str, dict[str, str]] = content.get("profiles", {})
    return {name: {key: _value(file, key, value) for key, value in held.items()} for name, held in profiles.items()}


def _profile(name: str, environment: Mapping[str, str]) -> dict[str, str]:
    profiles = read(environment)
    if not name:
        return profiles.get(DEFAULT_PROFILE, {})
    if name not in profiles:
        file = config_file(environment)
        known = f"it has {', '.join(sorted(profiles))}" if profiles else "there is no profile yet"
        raise NotDone(f"{file} has no profile {name}: {known}", exit_code=USAGE)
    return profiles[name]


def _value(file: Path, key: str, value: str) -> str:
    """A path is relative to the folder of the file, and may begin with ~."""
    return str(file.parent / Path(value).expanduser()) if key in FILES else value


def _problems(text: str, content: Mapping[str, Any]) -> Iterator[Problem]:
    for key in content:
        if key != "profiles":
            yield Problem(_place(text, "", key), f"{_shown(key)} is not known here: give profiles, as [profiles.NAME]")
    profiles = content.get("profiles", {})
    if not isinstance(profiles, dict):
        yield Problem(_place(text, "", "profiles"), "profiles must be tables: [profiles.NAME]")
        return
    for name, held in profiles.items():
        if not isinstance(held, dict):
            yield Problem(_place(text, "", "profiles"), f"profiles.{_shown(name)} must be a table: [profiles.NAME]")
        elif not _NAME.fullmatch(name):
            yield Problem(_place(text, name, ""), "a profile's name must be 1 to 64 of A-Z a-z 0-9 _ -")
        else:
            yield from _wrong_settings(text, name, held)


def _wrong_settings(text: str, name: str, held: Mapping[str, Any]) -> Iterator[Problem]:
    for key, value in held.items():
        place = _place(text, name, key)
        if key in _SECRETS:
            yield Problem(
                place,
                "a profile holds no secret: save the token in a file that only you can read, and name it: token_file",
            )
        elif key not in FIELDS:
            yield Problem(place, f"{_shown(key)} is not a setting of a profile: it has {', '.join(FIELDS)}")
        elif not isinstance(value, str) or not value:
            yield Problem(place, f"{key} must be text: {FIELDS[key]}")
        elif key == "api_url" and not value.startswith(("https://", "http://")):
            yield Problem(place, "api_url must be a URL that begins with https://")
    if "token_file" in held and not {"api_url", "stack_file"} & held.keys():
        place = _place(text, name, "token_file")
        yield Problem(place, "token_file needs api_url in the same profile: the token is sent only there")
    if "token_file" in held and "aws_profile" in held:
        place = _place(text, name, "token_file")
        yield Problem(place, "a profile has either token_file or aws_profile: they are two callers of the API")


def _shown(name: str) -> str:
    """A key, unless it may be a secret in the wrong place."""
    return name if re.fullmatch(r"[A-Za-z_-]{1,40}", name) else "this key"


def _place(text: str, table: str, key: str) -> Place:
    """Where a key of a profile stands, or else where the profile begins."""
    current, begins = "", Place(1, 1)
    wanted = re.escape(key)
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*(?:profiles\s*\.\s*)?(['\"]?)([^\]'\"]+)\1\s*\]", line):
            current = header[2].strip()
            if current == (table or key):
                begins = Place(number, line.index("[") + 1)
                if not table or not key:
                    return begins
        elif current == table and key and (found := re.match(rf"\s*(['\"]?){wanted}\1\s*[=.]", line)):
            return Place(number, found.end() - len(found[0].lstrip()) + 1)
    return begins


def _not_toml(text: str, said: str) -> Problem:
    """Python's message without the place, which it gives in words, and without what it quotes from the file."""
    found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", said)
    rule = re.sub(r" \(at .*\)$", "", said)
    rule = re.sub(r"'[^']*'|\"[^\"]*\"", "the text here", rule)
    if found and found[1]:
        return Problem(Place(int(found[1]), int(found[2])), f"not TOML: {rule}")
    lines = text.splitlines() or [""]
    return Problem(Place(len(lines), len(lines[-1]) + 1), f"not TOML: {rule}")

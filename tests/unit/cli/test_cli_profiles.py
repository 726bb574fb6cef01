"""Profiles: the configuration file, and which setting a command uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from portaria.access import api_tokens, private_integrations
from portaria.aws.table import Table
from tests.fakes.api.command_line import Wire, empty_listing, headers_of, run, told, wired
from tests.fakes.api.manage import API_URL
from tests.fakes.aws.moto_cloud import TABLE, Cloud

OTHER_URL = "https://def456.execute-api.us-east-1.amazonaws.com/live"


@pytest.fixture
def wire(stack: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Wire:
    wire = wired(stack, monkeypatch)
    monkeypatch.delenv("PORTARIA_API_URL")
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "PORTARIA_PROFILE", "PORTARIA_STACK_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    wire.instead = empty_listing
    return wire


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "portaria").mkdir()
    return tmp_path / "portaria" / "config.toml"


def called(wire: Wire) -> str:
    """The URL of the API that received the last request."""
    return str(wire.requests[-1].url).partition("/live")[0] + "/live"


class TestPrecedence:
    @pytest.fixture(autouse=True)
    def written(self, config: Path) -> None:
        config.write_text(
            f'[profiles.default]\napi_url = "{API_URL}"\n[profiles.other]\napi_url = "{OTHER_URL}"\nregion = "eu-west-1"\n'
        )

    def test_default_profile_counts_if_none_is_named(self, wire: Wire) -> None:
        run("routes", "list")
        assert called(wire) == API_URL

    def test_option_names_the_profile(self, wire: Wire) -> None:
        run("--profile", "other", "routes", "list")
        assert called(wire) == OTHER_URL

    def test_variable_names_the_profile(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PORTARIA_PROFILE", "other")
        run("routes", "list")
        assert called(wire) == OTHER_URL
        run("--profile", "default", "routes", "list")
        assert called(wire) == API_URL

    def test_variable_counts_before_the_profile(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PORTARIA_PROFILE", "other")
        monkeypatch.setenv("PORTARIA_API_URL", API_URL)
        run("routes", "list")
        assert called(wire) == API_URL

    def test_profile_that_an_option_names_counts_before_a_variable(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PORTARIA_API_URL", API_URL)
        run("--profile", "other", "routes", "list")
        assert called(wire) == OTHER_URL

    def test_option_counts_before_the_profile(self, wire: Wire) -> None:
        run("--profile", "other", "--api-url", API_URL, "routes", "list")
        assert called(wire) == API_URL

    def test_completion_knows_the_profiles(self, wire: Wire, config: Path) -> None:
        environment = {
            "_PORTARIA_COMPLETE": "bash_complete",
            "COMP_WORDS": "portaria\n--profile\no",
            "COMP_CWORD": "2",
        }
        completing: dict[str, Any] = {"env": environment, "prog_name": "portaria", "complete_var": "_PORTARIA_COMPLETE"}
        assert run(**completing).stdout == "plain,other\n"
        config.write_text("[")
        assert run(**completing).output.strip() == ""
        assert wire.requests == []

    def test_completion_uses_the_profile(self, wire: Wire) -> None:
        environment = {
            "_PORTARIA_COMPLETE": "bash_complete",
            "COMP_WORDS": "portaria\n--profile\nother\nroutes\nshow\n",
            "COMP_CWORD": "5",
        }
        run(env=environment, prog_name="portaria", complete_var="_PORTARIA_COMPLETE")
        assert called(wire) == OTHER_URL


class TestSources:
    def test_stack_name_is_looked_up_with_region_and_aws_profile(
        self, wire: Wire, config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        config.write_text('[profiles.staging]\nstack_name = "portaria-s"\nregion = "eu-west-1"\naws_profile = "s"\n')
        (tmp_path / "aws").write_text("[profile s]\naws_access_key_id = testing\naws_secret_access_key = x\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws"))
        asked: list[tuple[str, str | None, str]] = []

        def create_client(session: botocore.session.Session, service: str) -> Any:
            class CloudFormation:
                def describe_stacks(self, **call: str) -> Any:
                    asked.append((session.get_config_variable("region"), session.profile, call["StackName"]))
                    return {"Stacks": [{"Outputs": [{"OutputKey": "ApiUrl", "OutputValue": API_URL}]}]}

            return CloudFormation()

        monkeypatch.setattr(botocore.session.Session, "create_client", create_client)
        run("--profile", "staging", "routes", "list")
        assert asked == [("eu-west-1", "s", "portaria-s")]
        # Credentials in environment variables take precedence over a profile that no option names.
        monkeypatch.setenv("PORTARIA_PROFILE", "staging")
        run("routes", "list")
        assert asked[1] == ("eu-west-1", None, "portaria-s")

    def test_api_url_of_the_profile_is_not_called_if_an_option_names_a_stack(
        self, wire: Wire, config: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config.write_text(f'[profiles.default]\napi_url = "{OTHER_URL}"\nregion = "eu-west-1"\n')

        class CloudFormation:
            def describe_stacks(self, **call: str) -> Any:
                return {"Stacks": [{"Outputs": [{"OutputKey": "ApiUrl", "OutputValue": API_URL}]}]}

        monkeypatch.setattr(botocore.session.Session, "create_client", lambda *_: CloudFormation())
        run("--stack-name", "portaria-2", "routes", "list")
        assert called(wire) == API_URL

    def test_missing_aws_profile_is_reported(self, wire: Wire, config: Path) -> None:
        config.write_text(f'[profiles.x]\napi_url = "{API_URL}"\naws_profile = "missing"\n')
        assert "no profile missing" in run("--profile", "x", "routes", "list", exit_code=2).stderr

    def test_aws_region_variable_is_read(self, wire: Wire, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """botocore reads only AWS_DEFAULT_REGION."""
        monkeypatch.setenv("AWS_REGION", "sa-east-1")
        found = {row["setting"]: (row["value"], row["source"]) for row in told("profiles", "show")["settings"]}
        assert found["region"] == ("sa-east-1", "environment")
        assert found["stack_name"] == ("portaria", "default")


class TestTokens:
    @pytest.fixture
    def token(self, wire: Wire) -> str:
        _, token = private_integrations.create(
            Table(TABLE), api_tokens.new_id(), "crm", "", ("routes:list",), "arn:aws:iam::123456789012:user/maria"
        )
        return str(token.reveal())

    def test_token_file_is_beside_the_configuration(self, wire: Wire, config: Path, token: str) -> None:
        (config.parent / "crm.token").write_text(token)
        config.write_text(f'[profiles.crm]\napi_url = "{API_URL}"\ntoken_file = "crm.token"\n')
        run("--profile", "crm", "routes", "list")
        assert headers_of(wire.requests[-1])["Authorization"] == f"Bearer {token}"

    def test_token_of_a_profile_is_not_sent_to_another_place(
        self, wire: Wire, config: Path, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (config.parent / "crm.token").write_text(token)
        config.write_text(f'[profiles.default]\napi_url = "{API_URL}"\ntoken_file = "crm.token"\n')
        run("--api-url", OTHER_URL, "routes", "list")
        assert token not in headers_of(wire.requests[-1])["Authorization"]
        monkeypatch.setenv("PORTARIA_API_URL", OTHER_URL)
        run("routes", "list")
        assert token not in headers_of(wire.requests[-1])["Authorization"]

    def test_profile_with_aws_credentials_sends_no_token_of_the_environment(
        self, wire: Wire, config: Path, token: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PORTARIA_TOKEN", token)
        (tmp_path / "aws").write_text("[profile s]\naws_access_key_id = testing\naws_secret_access_key = x\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws"))
        config.write_text(f'[profiles.s]\napi_url = "{API_URL}"\naws_profile = "s"\n')
        run("--profile", "s", "routes", "list")
        assert headers_of(wire.requests[-1])["Authorization"].startswith("AWS4-HMAC-SHA256 ")
        monkeypatch.setenv("PORTARIA_PROFILE", "s")
        run("routes", "list")
        assert headers_of(wire.requests[-1])["Authorization"] == f"Bearer {token}"


class TestInvalidFiles:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("[profiles.a]\nregion = \n", "2:10: not TOML: "),
            ("[profiles.a\n", "1:12: not TOML: "),
            (
                '[profiles.a]\nregion = "x"\n\n[profiles.b]\n  regoin = "x"\n',
                "5:3: regoin is not a setting of a profile",
            ),
            ("[profiles.a]\nregion = 3\n", "2:1: region must be text: the AWS region"),
            ('[profiles.a]\ntoken = "canary"\n', "2:1: a profile holds no secret"),
            ('[profiles.a]\napi_url = "example.com"\n', "2:1: api_url must be a URL"),
            (
                '[profiles.a]\napi_url = "https://a.b"\naws_profile = "b"\ntoken_file = "c"\n',
                "4:1: a profile has either token_file or aws_profile",
            ),
            ('[profiles.a]\nstack_name = "b"\ntoken_file = "c"\n', "3:1: token_file needs api_url in the same profile"),
            ('[profile.a]\nregion = "x"\n', "1:1: profile is not known here"),
            ('region = "x"\n', "1:1: region is not known here"),
            ("profiles = 3\n", "1:1: profiles must be tables"),
            ('[profiles."a b"]\n', "1:1: a profile's name must be"),
        ],
    )
    def test_wrong_file_is_reported_with_line_and_column(self, wire: Wire, config: Path, text: str, words: str) -> None:
        config.write_text(text)
        error = run("routes", "list", exit_code=2).stderr
        assert f"{config}:{words}" in error
        assert wire.requests == []

    def test_wrong_file_is_reported_as_json(self, wire: Wire, config: Path) -> None:
        config.write_text("[profiles.a]\nregoin = 'x'\n[profiles.b]\nregion = 1\n")
        error = json.loads(run("profiles", "list", "--json", exit_code=2).stderr)
        assert [(each["line"], each["column"]) for each in error["problems"]] == [(2, 1), (4, 1)]

    def test_unknown_profile_names_those_there_are(self, wire: Wire, config: Path) -> None:
        assert "there is no profile yet" in run("--profile", "a", "routes", "list", exit_code=2).stderr
        config.write_text("[profiles.b]\n[profiles.c]\n")
        assert "has no profile a: it has b, c" in run("--profile", "a", "routes", "list", exit_code=2).stderr

    def test_unreadable_file_is_reported(self, wire: Wire, config: Path) -> None:
        config.mkdir()
        assert "cannot be read" in run("routes", "list", exit_code=2).stderr

    def test_commands_that_call_nothing_do_not_read_it(self, wire: Wire, config: Path) -> None:
        config.write_text("[")
        run("--help")
        run("completion", "bash")


class TestCommands:
    def test_list_shows_the_profiles_and_which_is_in_use(self, wire: Wire, config: Path) -> None:
        assert f"There are no profiles. They are read from {config}." in run("profiles", "list").stdout
        config.write_text('[profiles.a]\nstack_name = "portaria-a"\n[profiles.default]\nregion = "eu-west-1"\n')
        found = told("profiles", "list")
        assert found["file"] == str(config)
        assert [(each["name"], each["in_use"]) for each in found["items"]] == [("a", False), ("default", True)]
        assert found["items"][0]["stack_name"] == "portaria-a"
        assert "portaria-a" in run("profiles", "list").stdout

    def test_show_tells_where_each_setting_comes_from(
        self, wire: Wire, config: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config.write_text('[profiles.a]\nstack_name = "portaria-a"\nregion = "eu-west-1"\n')
        monkeypatch.setenv("AWS_REGION", "sa-east-1")
        monkeypatch.setenv("PORTARIA_PROFILE", "a")
        found = told("profiles", "show")
        assert found["profile"] == "a"
        told_of = {row["setting"]: (row["value"], row["source"]) for row in found["settings"]}
        assert told_of["stack_name"] == ("portaria-a", "profile a")
        assert told_of["region"] == ("sa-east-1", "environment")
        assert told_of["token_file"] == (None, "default")
        assert "profile a" in run("profiles", "show").stdout
        assert told("profiles", "show", "a")["region"] == "eu-west-1"
        assert "has no profile b" in run("profiles", "show", "b", exit_code=2).stderr

    def test_relative_xdg_config_home_is_ignored(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert told("profiles", "list")["file"] == str(tmp_path / ".config" / "portaria" / "config.toml")

"""What is installed is what was reviewed: pins with hashes, the audit of the pins, and the scan for secrets."""

from __future__ import annotations

import json
import re
import secrets
import string
import subprocess
import sys
import uuid
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from detect_secrets.settings import get_plugins, transient_settings
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical

from tests import secret_scan
from tests.dependency_audit import LOCKS, Audit
from tests.fakes.package_locks import pins
from tests.fakes.paths import ROOT

DEV = ROOT / "requirements" / "dev.txt"
LAYERS = sorted(ROOT.glob("layers/*/requirements.txt"))
ENVIRONMENTS = {"dev": ".venv", "sam": ".venv-sam", "ministack": ".venv-ministack", "runtime": ".venv-runtime"}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# Output of pip-audit 2.10.1.
VULNERABLE = """{"dependencies": [
 {"name": "jinja2", "version": "3.1.5", "vulns": [{"id": "CVE-2025-27516", "fix_versions": ["3.1.6"],
  "aliases": ["GHSA-cpwx-vrp4-4pq7"], "description": "Jinja2 vulnerable to sandbox breakout through attr filter"}]},
 {"name": "markupsafe", "version": "3.0.2", "vulns": []}], "fixes": []}"""
CLEAN = """{"dependencies": [{"name": "markupsafe", "version": "3.0.2", "vulns": []}], "fixes": []}"""
UNKNOWN = """{"dependencies": [
 {"name": "jinja2", "skip_reason": "Dependency not found on PyPI and could not be audited: jinja2 (3.1.6)"},
 {"name": "markupsafe", "skip_reason": "Dependency not found on PyPI and could not be audited: markupsafe (3.0.3)"}],
 "fixes": []}"""
NO_CONNECTION = "requests.exceptions.ConnectionError: HTTPSConnectionPool(…): Failed to establish a new connection"
NO_LOCK = "ERROR:pip_audit._cli:package boto3 has duplicate requirements: boto3==1.43.106"

each_lock = pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(ROOT)))


# ---------------------------------------------------------------------------------------------------------------- pins


@each_lock
def test_lock_file_has_only_pins_with_hashes(lock: Path) -> None:
    """No index, path or option: the machine decides where packages come from, the lock decides which ones."""
    found = pins(lock)
    assert found
    assert len({name for name, _ in found}) == len(found)
    assert [name for name, hashes in found.items() if not hashes] == []


def test_node_lock_file_has_hash_for_each_package_and_no_url() -> None:
    """The npm packages of the OAuth peers."""
    text = (ROOT / "tests" / "peers" / "oidc_provider" / "package-lock.json").read_text()
    packages = {path: each for path, each in json.loads(text)["packages"].items() if path}
    assert len(packages) > 30
    assert [path for path, each in packages.items() if not each["integrity"].startswith("sha512-")] == []
    assert "http:" not in text
    assert "https:" not in text


def test_requirements_each_input_file_has_a_lock_file() -> None:
    wishes = {path for path in ROOT.glob("requirements/*.in") if path.name != "cli.in"}  # a part of dev.in
    wishes |= set(ROOT.glob("layers/*/requirements.in"))
    assert {path.with_suffix(".txt") for path in wishes} == set(LOCKS)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.parent.name)
def test_layer_pins_equal_development_pins(layer: Path) -> None:
    developed_with = pins(DEV)
    assert pins(layer)
    for pin, hashes in pins(layer).items():
        assert developed_with[pin] == hashes


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_lock_file_covers_every_supported_python(name: str) -> None:
    """Locks are created with one Python; with hashes, pip of another version refuses additional packages."""
    folder = ROOT / ENVIRONMENTS[name]
    if not folder.exists():
        pytest.skip("not installed")
    locked = {package for package, _ in pins(ROOT / "requirements" / f"{name}.txt")}
    paths = [str(path) for path in folder.glob("lib/python*/site-packages")]
    installed: dict[str, Distribution] = {canonical(one.name): one for one in distributions(path=paths)}
    assert locked - {"setuptools", "wheel", "pip"} <= set(installed)
    missing = {
        f"{package} needs {need} with Python {version} on {system}"
        for package in locked & set(installed)
        for version in PYTHONS
        for system in ("linux", "darwin")
        for need in needs(installed[package], version, system) - locked
    }
    assert missing == set()


def needs(package: Distribution, version: str, system: str) -> set[str]:
    """What a package requires unconditionally, or for this Python and system. Extras are part of the input files."""
    environment = {
        "python_version": version,
        "python_full_version": f"{version}.0",
        "sys_platform": system,
        "platform_system": system.capitalize(),
        "extra": "",
    }
    asked = (Requirement(text) for text in package.requires or ())
    return {canonical(one.name) for one in asked if one.marker is None or one.marker.evaluate(environment)}


def test_makefile_every_pip_install_requires_hashes() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    installations = [
        line for line in makefile.splitlines() if re.search(r"(-m pip|\$\(PIP\))( --python \S+)? install", line)
    ]
    fetching = [line for line in installations if "--no-index" not in line]
    assert len(fetching) >= 2
    assert all("--require-hashes" in line and "--only-binary :all:" in line for line in fetching)
    assert "bin/sam build" not in makefile, "builds go through local.build: see test_build"
    assert "--generate-hashes" in makefile


# --------------------------------------------------------------------------------------------------------------- audit


def audit(*reports: tuple[str, str]) -> Audit:
    audited = Audit()
    for report, errors in reports:
        audited.read("dev.txt", report, errors)
    return audited


def test_dependency_audit_known_vulnerability_fails_and_is_named() -> None:
    for found in (audit((VULNERABLE, "")), audit((UNKNOWN, ""), (VULNERABLE, ""))):
        assert not found.passes(if_reachable=False)
        assert not found.passes(if_reachable=True)
        assert found.lines()[0] == "Vulnerable: jinja2 3.1.5 of dev.txt: CVE-2025-27516, fixed in 3.1.6"


def test_dependency_audit_without_vulnerability_passes() -> None:
    found = audit((CLEAN, ""))
    assert found.passes(if_reachable=False)
    assert found.lines() == ["No known flaw in what 7 locks pin."]


@pytest.mark.parametrize("report", [(UNKNOWN, ""), ("", NO_CONNECTION)], ids=["not found", "no connection"])
def test_dependency_audit_service_unreachable_passes_only_when_allowed(report: tuple[str, str]) -> None:
    found = audit(report)
    assert not found.passes(if_reachable=False)
    assert found.passes(if_reachable=True)
    (line,) = found.lines()
    assert line.startswith("NOT AUDITED, since the advisory service could not be reached: ")


def test_dependency_audit_unknown_package_fails() -> None:
    found = audit((CLEAN, ""), (UNKNOWN, ""))
    assert not found.passes(if_reachable=True)
    assert found.lines() == ["NOT AUDITED, since the advisory service does not know them: jinja2, markupsafe"]


def test_dependency_audit_invalid_lock_file_is_an_error() -> None:
    with pytest.raises(ValueError, match="duplicate requirements"):
        audit(("", NO_LOCK))


# --------------------------------------------------------------------------------------------------------- secret scan


def scan(*files: Path) -> set[str]:
    """The kinds of secret that the scan of `make check` finds in files."""
    hook = [str(Path(sys.executable).parent / "detect-secrets-hook"), "--no-verify", "--baseline", ".secrets.baseline"]
    done = subprocess.run([*hook, *map(str, files)], cwd=ROOT, capture_output=True, text=True, check=False)
    found = set(re.findall(r"^Secret Type: (.+)$", done.stdout, re.MULTILINE))
    assert done.returncode == bool(found), done.stdout + done.stderr
    return found


def test_secret_scan_planted_tokens_are_found(tmp_path: Path) -> None:
    """Generated here, or the scan would find them in this file."""
    token = "portaria_" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(48))
    key = "AKIA" + "".join(secrets.choice(string.ascii_uppercase) for _ in range(16))
    planted = {
        "Portaria token": f"# curl -H 'Authorization: Bearer {token}' …\n",
        "LeadConnector private integration token": f"    send(request, token=pit-{uuid.uuid4()})\n",
        "AWS Access Key": f"export AWS_ACCESS_KEY_ID={key}\n",
    }
    for number, (kind, text) in enumerate(planted.items()):
        file = tmp_path / f"notes-{number}.py"
        file.write_text(text)
        assert kind in scan(file)


def test_secret_scan_words_resembling_tokens_are_ignored(tmp_path: Path) -> None:
    file = tmp_path / "notes.py"
    text = "def portaria_connections_are_listed_by_name_and_never_by_anything_else(): ...\nstop = 'pit-stop'\n"
    file.write_text(text)
    assert scan(file) == set()


# Of these files many lines look like secrets: passwords, digests, signatures.
MANY_FINDINGS = (
    "peers/oidc_provider/package-lock.json",
    "faults/simulated/test_aws_limits.py",
    "unit/api/test_manage.py",
    "unit/aws/test_light_client.py",
)


def test_secret_scan_skipped_lines_have_no_match() -> None:
    """Given lines of which some look like secrets, then each in which a plugin finds something is not skipped."""
    baseline = json.loads((ROOT / ".secrets.baseline").read_text())
    files = [ROOT / "tests" / name for name in MANY_FINDINGS]
    lines = {line for file in files for line in file.read_text().splitlines()}
    lines |= {'db_password = "hunter2-hunter2"', 'DB_PASSWORD: "hunter2-hunter2"', "ſecret = 'hunter2-hunter2'"}
    lines |= {f"stripe: sk_live_{secrets.token_hex(12)}", f"bearer: portaria_{secrets.token_hex(24)}"}
    lines |= {f'"{secrets.token_hex(size)}" "{secrets.token_urlsafe(size)}"' for size in range(4, 40)}
    with transient_settings({"plugins_used": baseline["plugins_used"]}):
        found = {
            line
            for line in lines
            for plugin in get_plugins()
            for name in ("notes.py", "notes.yaml")
            if plugin.analyze_line(filename=name, line=line)
        }
        assert len(found) > 100
        assert {line for line in found if secret_scan.is_without_match(line)} == set()
        assert sum(map(secret_scan.is_without_match, lines)) > len(lines) / 2


def test_secret_scan_baseline_excludes_nothing() -> None:
    """The baseline lists no finding, and no line has an inline exception: tests/secret_scan.py explains each one."""
    baseline = json.loads((ROOT / ".secrets.baseline").read_text())
    assert baseline["results"] == {}
    filters = {one["path"].rpartition(".")[2] for one in baseline["filters_used"]}
    assert "is_line_allowlisted" not in filters
    assert {one["path"] for one in baseline["plugins_used"] if "path" in one} == {"file://tests/secret_scan.py"}

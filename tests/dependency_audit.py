"""The audit of the pinned dependencies: `make audit`.

pip-audit calls a package that the advisory service does not know "skipped", and ends well: where the service cannot be
reached, everything is skipped and nothing was audited. So its report is read here, and silence is no pass.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = sorted([*ROOT.glob("requirements/*.txt"), *ROOT.glob("layers/*/requirements.txt")])
PIP_AUDIT = [str(Path(sys.executable).parent / "pip-audit"), "--require-hashes", "--disable-pip", "--format", "json"]
# The network's fault, or the service's: https://github.com/pypa/pip-audit/tree/main/pip_audit/_service
UNREACHED = re.compile(r"Connection|Timeout|timed out|ServiceError|your network may be blocking")


@dataclass
class Audit:
    """What the reports on all locks come to; `reached` is whether the service knew one package at least."""

    vulnerable: set[str] = field(default_factory=set)
    not_audited: set[str] = field(default_factory=set)
    reached: bool = False

    def read(self, lock: str, report: str, errors: str) -> None:
        """Add what pip-audit wrote about one lock. Raises ValueError if it could not even begin."""
        if not report.strip():
            if not UNREACHED.search(errors):
                raise ValueError(f"pip-audit could not read {lock}: {errors.strip()[-500:]}")
            self.not_audited.add(f"all of {lock}")
            return
        for one in json.loads(report)["dependencies"]:
            if "skip_reason" in one:
                self.not_audited.add(one["name"])
                continue
            self.reached = True
            for flaw in one["vulns"]:
                fixed = ", ".join(flaw["fix_versions"]) or "no version yet"
                self.vulnerable.add(f"{one['name']} {one['version']} of {lock}: {flaw['id']}, fixed in {fixed}")

    def passes(self, *, if_reachable: bool) -> bool:
        """Whether no flaw is known and all was audited; `if_reachable` forgives only a service that was not there at all."""
        return not self.vulnerable and (not self.not_audited or (if_reachable and not self.reached))

    def lines(self) -> list[str]:
        said = [f"Vulnerable: {line}" for line in sorted(self.vulnerable)]
        if self.not_audited:
            why = (
                "the advisory service does not know them"
                if self.reached
                else "the advisory service could not be reached"
            )
            said.append(f"NOT AUDITED, since {why}: {', '.join(sorted(self.not_audited))}")
        return said or [f"No known flaw in what {len(LOCKS)} locks pin."]


def main(arguments: Sequence[str]) -> int:
    audit = Audit()
    for lock in LOCKS:  # one at a time: pip-audit refuses two versions of a package
        done = subprocess.run([*PIP_AUDIT, "--requirement", str(lock)], capture_output=True, text=True, check=False)
        audit.read(str(lock.relative_to(ROOT)), done.stdout, done.stderr)
    print(*audit.lines(), sep="\n")
    return 0 if audit.passes(if_reachable="--if-reachable" in arguments) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Print the document as YAML."""

from __future__ import annotations

import sys
from typing import Any

import yaml

from portaria.api.openapi import document


class Dumper(yaml.SafeDumper):
    """Without anchors: what occurs twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


yaml.dump(document.build(), sys.stdout, Dumper, sort_keys=False, allow_unicode=True, width=120)

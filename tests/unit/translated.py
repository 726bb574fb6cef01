"""template.yaml as CloudFormation receives it: translated by the SAM translator of .venv-sam, which AWS runs as well."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from typing import Any

from tests.unit.template import ROOT

PYTHON = ROOT / ".venv-sam" / "bin" / "python"
# `sam package` puts the address of the uploaded code, which holds its digest, in place of the folder.
FOLDERS = ("CodeUri: functions/", "ContentUri: layers/")
SCRIPT = """
import json, logging, sys
import boto3
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse
logging.disable(logging.CRITICAL)
asked = json.load(sys.stdin)
translator = Translator({}, Parser(), boto_session=boto3.Session(region_name="us-east-1"))
json.dump(translator.translate(yaml_parse(asked["template"]), asked["parameters"]), sys.stdout)
"""


@cache
def translated(*parameters: tuple[str, str], code: str = "first") -> dict[str, Any]:
    """The translated template with these parameters, the others at their defaults; `code` stands for all code's digest."""
    text = (ROOT / "template.yaml").read_text()
    for folder in FOLDERS:
        assert folder in text
        text = text.replace(folder, f"{folder.split()[0]} s3://artifacts/{code}/")
    done = subprocess.run(
        [PYTHON, "-c", SCRIPT],
        input=json.dumps({"template": text, "parameters": dict(parameters)}),
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result

"""Every operation of the API, one row each: its name, scope, input and output.

`openapi` generates docs/openapi.yaml from them, and a test compares template.yaml with them. `router` finds the operation of a
request by `operation_index`, without this module, which imports all tables.
"""

from __future__ import annotations

from portaria.api import operation_index
from portaria.api.operation import Operation

OPERATIONS: list[Operation] = [
    operation for table in operation_index.TABLES for operation in operation_index.load(table.name)
]

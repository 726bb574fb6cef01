"""Every operation of the API, one row each: its name, scope, input and output.

`openapi` generates docs/openapi.yaml from them, and a test compares template.yaml with them. `router` finds the operation of a
request by `operation_tables.index`, without this module, which imports all tables.
"""

from __future__ import annotations

from portaria.api.operation import Operation
from portaria.api.operation_tables import index

OPERATIONS: list[Operation] = [operation for table in index.TABLES for operation in index.load(table.name)]

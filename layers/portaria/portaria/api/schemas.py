"""What answers are made of, for docs/openapi.yaml. A test holds every kind of answer against its model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Output(BaseModel):
    """An answer's fields, all of them always there; those that may be empty or null say so by their type."""

    model_config = ConfigDict(extra="forbid")

"""Every test of the template that drives a handler also checks what the handler does against the function's role."""

from __future__ import annotations

from tests.fakes.template.roles import granted

__all__ = ["granted"]

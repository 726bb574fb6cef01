"""Code decides by the type of an error, never by its reason. A stored reason is compared with a member of its `StrEnum`."""

from __future__ import annotations

import ast
import enum
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from portaria.core import errors, stored_reasons
from portaria.delivery import destination_pause
from portaria.installs import exchange_queues

ROOT = Path(__file__).parents[3]
SOURCES = sorted([*(ROOT / "layers").rglob("*.py"), *(ROOT / "functions").rglob("*.py")])
STORED = {name for name, _ in inspect.getmembers(stored_reasons, lambda each: isinstance(each, enum.EnumType))} | {
    destination_pause.PauseReason.__name__
}


def _is_reason(node: ast.expr) -> bool:
    match node:
        case ast.Attribute(attr="reason"):
            return True
        case ast.Subscript(slice=ast.Constant(value="reason")):
            return True
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value="reason"), *_]):
            return True
        case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value="reason"), *_]):
            return True
    return False


def _is_member(node: ast.expr) -> bool:
    match node:
        case ast.Attribute(value=ast.Name(id=name)):
            return name in STORED
    return False


def _decides_by_text(node: ast.Compare) -> bool:
    """Whether a reason is compared with text. Comparing two reasons, or a reason with an empty text, is allowed."""
    sides = [node.left, *node.comparators]
    if not any(map(_is_reason, sides)):
        return False
    for side in sides:
        parts = side.elts if isinstance(side, ast.Tuple | ast.Set | ast.List) else [side]
        for part in parts:
            is_empty = isinstance(part, ast.Constant) and part.value in ("", None)
            is_given = isinstance(part, ast.Name) and part.id == "reason"
            if not (_is_reason(part) or _is_member(part) or is_empty or is_given or _is_known_set(part)):
                return True
    return False


def _is_known_set(node: ast.expr) -> bool:
    """A set of members, see `test_exchange_queues_forged_reasons_are_install_failures`."""
    return isinstance(node, ast.Name) and node.id == "FORGED"


def found_in(source: str) -> list[int]:
    return [
        node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Compare) and _decides_by_text(node)
    ]


def test_reasons_are_never_compared_with_text() -> None:
    found = {str(path.relative_to(ROOT)): lines for path in SOURCES if (lines := found_in(path.read_text()))}
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        'error.reason == "needs_reconnect"',
        '"needs_reconnect" != error.reason',
        'error.reason in ("a", "b")',
        "error.reason == module.REASON",
        "error.reason not in REASONS",
        'getattr(error, "reason", "") != "needs_reconnect"',
        'item["reason"] == "lost"',
        'item.get("reason") == LOST',
    ],
)
def test_reason_check_comparison_with_text_is_found(source: str) -> None:
    assert found_in(source) == [1]


@pytest.mark.parametrize(
    "source",
    [
        "connection.reason == ConnectionReason.DELETED",
        'filters.reason in ("", letter.reason)',
        'item.get("reason") == reason',
        "isinstance(error, TokenRefused)",
    ],
)
def test_reason_check_comparison_with_member_or_type_is_allowed(source: str) -> None:
    assert found_in(source) == []


BASES = (errors.TypedRejected, errors.TypedRetryable, errors.PlatformUnavailable, errors.AnswerUnusable)
TYPED = [
    each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, BASES) and each not in BASES
]


def test_exchange_queues_forged_reasons_are_install_failures() -> None:
    assert exchange_queues.FORGED
    assert all(isinstance(reason, stored_reasons.InstallFailure) for reason in exchange_queues.FORGED)


@pytest.mark.parametrize("error", TYPED)
def test_error_type_sets_its_reason(error: type[errors.TypedRejected]) -> None:
    assert error("a detail").reason == vars(error)["reason"]
    assert str(error("a detail")) == f"{error.reason}: a detail"


def test_error_replaced_keeps_type_and_other_attributes() -> None:
    first = errors.RateBlocked("blocked", after_s=30)
    second = first.replaced(after_s=5, detail="blocked for now")
    assert isinstance(second, errors.RateBlocked)
    assert (second.reason, second.after_s, second.answer_lost) == ("rate_blocked", 5, False)
    assert str(second) == "rate_blocked: blocked for now"
    assert (first.after_s, str(first)) == (30, "rate_blocked: blocked")


def test_cold_start_imports_the_roots_of_the_tree_only() -> None:
    modules = [
        "portaria.webhooks.install_receiver",
        "portaria.webhooks.event_receiver",
        *(
            f"portaria.platforms.{name}"
            for name in ("kommo.install", "kommo.events", "oauth2.install", "leadconnector.events")
        ),
    ]
    script = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "portaria.core.error_roots" in ran.stdout.split()
    assert "portaria.core.errors" not in ran.stdout.split()

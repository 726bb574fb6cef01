"""What a measurement shows: medians with their spread, the limits, and a JSON file under build/bench/."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "bench"

console = Console(highlight=False)


def table(title: str, unit: str) -> Table:
    made = Table(title=f"{title} ({unit})", title_justify="left")
    made.add_column("")
    for heading in ("median", "quartiles", "least", "most", "runs"):
        made.add_column(heading, justify="right")
    return made


def row(into: Table, name: str, values: list[float], digits: int = 0) -> None:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    shown = [f"{middle:.{digits}f}", f"{low:.{digits}f}–{high:.{digits}f}"]
    into.add_row(name, *shown, f"{min(values):.{digits}f}", f"{max(values):.{digits}f}", str(len(values)))


def conclude(
    name: str, figures: dict[str, float], limits: dict[str, float], least: dict[str, float] | None = None
) -> bool:
    """Write build/bench/{name}.json, say how each figure stands to its limit, and return whether all keep theirs.

    `limits` are the most that figures may be, `least` the least.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    rounded = {key: round(value, 3) for key, value in figures.items()}
    (BUILD / f"{name}.json").write_text(json.dumps(rounded, indent=2) + "\n")
    held = [(key, rounded[key] <= limit, f"at most {limit:g}") for key, limit in limits.items()]
    held += [(key, rounded[key] >= limit, f"at least {limit:g}") for key, limit in (least or {}).items()]
    for key, kept, rule in held:
        console.print(f"{'[green]✓' if kept else '[red]✗'}[/] {key} {rounded[key]:g}, {rule}")
    console.print(f"[dim]build/bench/{name}.json[/]\n")
    return all(kept for _, kept, _ in held)

"""The rules for logos that are the same for every type of file."""

from __future__ import annotations

MAX_BYTES = 50_000
MIN_SIDE, MAX_SIDE = 16, 1_024
# The pages show a logo at most 56 pixels high and 208 wide.
MAX_RATIO = 12


class UnusableLogo(ValueError):
    """Its text completes the sentence "logo …"."""


def check_size(width: float, height: float) -> None:
    """Raises `UnusableLogo`."""
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
        raise UnusableLogo(
            f"must be {MIN_SIDE} to {MAX_SIDE:,} pixels wide and high; this one has {width:.6g} × {height:.6g}"
        )
    if max(width, height) > MAX_RATIO * min(width, height):
        raise UnusableLogo(f"may be at most {MAX_RATIO} times as wide as high")

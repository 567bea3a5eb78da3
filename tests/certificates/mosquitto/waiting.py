"""Waiting for what happens elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 20.0


def until(reached: Callable[[], bool], what: str, within: float = PATIENCE) -> float:
    """Look again and again until it is so, and return how many seconds that took."""
    began = time.monotonic()
    while not reached():
        assert time.monotonic() - began < within, f"it never came to this: {what}"
        time.sleep(0.01)
    return time.monotonic() - began

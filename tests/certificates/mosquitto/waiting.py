"""Wait for a condition."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT = 20.0


def until(reached: Callable[[], bool], what: str, within: float = TIMEOUT) -> float:
    """Wait until the condition is true and return the number of seconds; fail after `within` seconds."""
    began = time.monotonic()
    while not reached():
        assert time.monotonic() - began < within, f"not within {within} s: {what}"
        time.sleep(0.01)
    return time.monotonic() - began

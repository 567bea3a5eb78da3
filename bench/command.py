"""The command line of all figures: `python -m bench.<figure> [--rounds N] [--quick]`."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report import Figure

ROUNDS = 5


class Measure(Protocol):
    """The function `measure` of each figure's module."""

    def __call__(self, rounds: int, *, quick: bool) -> Figure: ...


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the argument parser with the options that all figures share."""
    arguments = argparse.ArgumentParser(description=(description or "").split("\n\n", maxsplit=1)[0])
    arguments.add_argument("--rounds", type=int, help=f"how often each subject is measured; default: {ROUNDS}")
    arguments.add_argument("--quick", action="store_true", help="one round of small sizes, to see that it works")
    # Let SIGTERM end the program like Ctrl-C, so that started processes are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    return arguments


def rounds_of(chosen: argparse.Namespace) -> int:
    """Return the requested number of rounds."""
    return chosen.rounds or (1 if chosen.quick else ROUNDS)


def run(measure: Measure, description: str | None, given: Sequence[str] | None = None) -> None:
    """Measure one figure and print it."""
    chosen = parser(description).parse_args(given)
    print(measure(rounds_of(chosen), quick=chosen.quick).markdown())

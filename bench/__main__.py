"""Measures all or the named figures of `docs/performance.md`; without `--quick` writes them into `bench/RESULTS.md`.

python -m bench [answers whole_way ...] [--rounds 5] [--quick]
"""

from __future__ import annotations

import sys
from importlib import import_module
from time import monotonic
from typing import cast

from bench import command, report

FIGURES = (
    *("answers", "whole_way", "storm", "growth", "replicas", "beside", "attacks", "plugin", "power_cut"),
    *("million", "scale", "lists", "moving_in"),
)


def main() -> None:
    """Measure and print each figure; exit with status 1 if a limit is missed."""
    arguments = command.parser(__doc__)
    arguments.add_argument("names", nargs="*", metavar="figure", help=f"{', '.join(FIGURES)}; default: all")
    chosen = arguments.parse_args()
    if unknown := set(chosen.names) - set(FIGURES):
        arguments.error(f"no figure is called {', '.join(sorted(unknown))}")
    names = [name for name in FIGURES if not chosen.names or name in chosen.names]
    rounds = command.rounds_of(chosen)
    figures = [_take(name, rounds, quick=chosen.quick) for name in names]
    sys.exit(not all(limit.met for figure in figures for limit in figure.limits))


def _take(name: str, rounds: int, *, quick: bool) -> report.Figure:
    started = monotonic()
    figure = cast("command.Measure", import_module(f"bench.{name}").measure)(rounds, quick=quick)
    print(f"## {figure.title}\n\n{figure.markdown()}\n({name}: {monotonic() - started:.0f} s)\n", flush=True)
    if not quick:
        report.write(figure, rounds)
    return figure


if __name__ == "__main__":
    main()

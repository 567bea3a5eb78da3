"""What the benchmarks show is what they measured, and a missed limit is shown as missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench import __main__, report
from bench.report import Figure, Limit

if TYPE_CHECKING:
    from pathlib import Path

NOT_A_NUMBER = float("nan")
NEVER = float("inf")


@pytest.mark.parametrize(
    ("limit", "met"),
    [
        (Limit("slow", 1.15, at_most=1.15), True),
        (Limit("slow", 1.16, at_most=1.15), False),
        (Limit("fast", 0.9, at_least=0.9), True),
        (Limit("fast", 0.89, at_least=0.9), False),
        (Limit("between", 2, at_least=1, at_most=3), True),
        (Limit("beyond", 4, at_least=1, at_most=3), False),
        (Limit("never", NEVER, at_most=3), False),
        (Limit("not a number", NOT_A_NUMBER, at_most=3), False),
        (Limit("not a number", NOT_A_NUMBER, at_least=3), False),
    ],
)
def test_a_limit_is_met_up_to_itself(limit: Limit, met: bool) -> None:
    assert limit.met is met
    assert limit.row()[-1] == ("met" if met else "**missed**")


def test_a_limit_says_what_was_measured_beside_what_is_allowed() -> None:
    limit = Limit("longest stall", 312.4, at_most=250, unit="ms")
    assert limit.row() == ["longest stall", "312 ms", "at most 250 ms", "**missed**"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04567, "0.0457"),
        (1.1549, "1.15"),
        (99.4, "99.4"),
        (100.4, "100"),
        (12345.6, "12,346"),
        (NEVER, "none"),
        (0, "0"),
    ],
)
def test_numbers_have_as_many_digits_as_count(value: float, text: str) -> None:
    assert report.number(value) == text


def test_a_table_is_aligned_under_its_header() -> None:
    assert report.table([["what", "p50"], ["a bare callable", "72 us"]]).splitlines() == [
        "| what            | p50   |",
        "|-----------------|-------|",
        "| a bare callable | 72 us |",
    ]


def test_the_page_holds_every_figure_its_limits_and_its_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(report, "PLOTS", tmp_path / "plots")
    monkeypatch.setattr(report, "surroundings", lambda: "two cores")
    missed = Limit("the longest stall", 300, at_most=250, unit="ms")
    storm = Figure("3. Storm", "How long?", [["all in"], ["23 s"]], [missed], "As it was.", {"storm.svg": "<svg/>"})
    report.write(Figure("10. Growth", "How much?", [["users"], ["100"]]), 5)
    report.write(Figure("3. Storm", "How long?", [["all in"], ["77 s"]]), 5)
    report.write(storm, 4)
    page = (tmp_path / "RESULTS.md").read_text()
    assert "77 s" not in page
    assert page.index("## 3. Storm") < page.index("4 rounds: two cores.") < page.index("## 10. Growth")
    for words in ("two cores", "## 3. Storm", "How long?", "23 s", "**missed**", "As it was.", "How much?"):
        assert words in page
    assert "![3. Storm](plots/storm.svg)" in page
    assert (tmp_path / "plots" / "storm.svg").read_text() == "<svg/>"


def test_the_machine_and_all_that_is_measured_are_named() -> None:
    named = report.surroundings()
    for words in (" cores, ", "Linux ", "Python 3.", "gunicorn ", "uvloop ", "bcrypt ", "Mosquitto 2.", "PostgreSQL 1"):
        assert words in named


def test_a_figure_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "strom"])
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 2

"""The plots are well-formed SVG that says what it shows."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from bench.plot import Bar, bars, lines

SVG = "{http://www.w3.org/2000/svg}"


def test_bars_are_as_long_as_their_values_and_carry_them() -> None:
    drawn = ET.fromstring(bars("Ladder", "us", [Bar("bare <callable>", 72), Bar("authsvc", 36, 1)]))
    widths = [float(bar.attrib["width"]) for bar in drawn.iter(f"{SVG}rect")]
    assert widths[0] == 2 * widths[1]
    words = {text.text for text in drawn.iter(f"{SVG}text")}
    assert words >= {"Ladder", "bare <callable>", "72 us", "authsvc", "36 us"}


def test_lines_lead_from_dot_to_dot_in_the_order_of_x() -> None:
    series = {"1 permission": [(100_000, 80.0), (100, 75.0)], "1,000 permissions": [(100, 110.0), (100_000, 120.0)]}
    drawn = ET.fromstring(lines("Growth", "users", "us", series))
    paths = [line.attrib["points"].split() for line in drawn.iter(f"{SVG}polyline")]
    assert [len(path) for path in paths] == [2, 2]
    for path in paths:
        (left, _), (right, _) = (map(float, point.split(",")) for point in path)
        assert left < right
    assert len(list(drawn.iter(f"{SVG}circle"))) == 4
    words = {text.text for text in drawn.iter(f"{SVG}text")}
    assert words >= {"Growth", "users", "us", "100", "100,000", *series}


def test_higher_values_are_drawn_higher() -> None:
    drawn = ET.fromstring(lines("Growth", "users", "us", {"ours": [(1, 10.0), (10, 20.0)]}))
    lower, higher = (float(dot.attrib["cy"]) for dot in drawn.iter(f"{SVG}circle"))
    assert higher < lower


def test_a_plot_of_nothing_is_a_plot() -> None:
    assert ET.fromstring(bars("Nothing", "us", [])) is not None
    assert ET.fromstring(lines("Nothing", "users", "us", {})) is not None

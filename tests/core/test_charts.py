import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.charts import Segment, Series, Whisker, axis, interval_bar, line_chart, stacked_bar, tag, ticks


def numbers(svg: str, element: str, attribute: str) -> list[float]:
    return [float(value) for value in re.findall(rf'<{element}[^>]* {attribute}="([-0-9.]+)%?"', svg)]


def test_names_and_texts_from_data_are_escaped() -> None:
    assert tag("text", "<b>", title='"') == '<text title="&#34;">&lt;b&gt;</text>'


def test_an_attribute_of_none_is_left_out() -> None:
    assert tag("rect", x=None, y=0) == '<rect y="0"></rect>'


def test_segments_stand_side_by_side() -> None:
    svg = stacked_bar([Segment("win", 0.5, "50", "w"), Segment("tie", 0.2, "20", "t"), Segment("lose", 0.3, "30", "l")])
    assert numbers(svg, "rect", "x") == [0, 50, 70]
    assert numbers(svg, "rect", "width") == [50, 20, 30]
    assert numbers(svg, "text", "x") == [25, 60, 85]
    assert 'aria-label="w; t; l"' in svg


def test_a_segment_too_narrow_for_its_text_tells_it_on_hover_only() -> None:
    svg = stacked_bar([Segment("win", 0.04, "4 %", "win 4 %")])
    assert "<text" not in svg
    assert "<title>win 4 %</title>" in svg


def test_a_whisker_is_a_line_with_two_ends_below_the_bar() -> None:
    svg = stacked_bar([Segment("win", 1, "100", "w")], whiskers=[Whisker("win", 0.2, 0.4)])
    assert numbers(svg, "line", "x1") == [20, 20, 40]
    assert numbers(svg, "line", "x2") == [40, 20, 40]
    assert min(numbers(svg, "line", "y1")) > max(numbers(svg, "rect", "height"))


def test_an_interval_is_drawn_about_its_point() -> None:
    svg = interval_bar(0.5, low=0.25, high=0.75, colour=0, title="half")
    assert numbers(svg, "circle", "cx") == [50]
    assert numbers(svg, "line", "x1")[-1] == 25
    assert numbers(svg, "line", "x2")[-1] == 75
    assert "<title>half</title>" in svg


def test_an_unknown_interval_leaves_the_point_alone() -> None:
    svg = interval_bar(0.5, low=None, high=None, colour=0, title="half")
    assert "range" not in svg
    assert "circle" in svg


def test_a_track_about_zero_marks_it() -> None:
    svg = interval_bar(0, low=-0.5, high=0.5, colour=0, title="", span=(-1, 1))
    assert 'class="zero" x1="50%"' in svg
    assert numbers(svg, "circle", "cx") == [50]


def test_axis_labels_are_spread_from_end_to_end() -> None:
    svg = axis(["0", "half", "1"])
    assert numbers(svg, "text", "x") == [0, 50, 100]
    assert re.findall('text-anchor="([a-z]+)"', svg) == ["start", "middle", "end"]


def test_a_curve_rises_with_its_values() -> None:
    svg = line_chart([Series("a", 0, [1, 2], [0.0, 1.0])], x_label="x", y_label="y")
    first, last = numbers(svg, "circle", "cy")
    assert first > last  # SVG counts from the top
    assert numbers(svg, "circle", "cx") == sorted(numbers(svg, "circle", "cx"))
    assert "a, 2: 1.00" in svg
    assert 'aria-label="y by x: a from 0.00 to 1.00"' in svg


def test_the_marked_point_has_a_ring_and_intervals_stand_at_their_points() -> None:
    series = Series("a", 0, [1, 2], [3.0, 4.0], [2.5, None], [3.5, None], marked=1)
    svg = line_chart([series], x_label="x", y_label="y")
    assert svg.count("ring") == 1
    assert svg.count('class="range') == 1
    assert "a, 1: 3.00 [2.50, 3.50]" in svg
    assert "a, 2: 4.00<" in svg


def test_names_at_the_ends_of_close_curves_do_not_overlap() -> None:
    series = [Series(name, 0, [0, 1], [1.0, 0.1]) for name in "abc"]
    svg = line_chart(series, x_label="x", y_label="y")
    heights = [float(y) for y in re.findall(r'class="name c0"[^>]* y="([-0-9.]+)"', svg)]
    assert len(heights) == 3
    assert all(below - above >= 16.9 for above, below in pairwise(heights))


@pytest.mark.parametrize("points", [([1], [2.0]), ([1, 2], [5.0, 5.0]), ([0, 1], [0.0, 0.0])])
def test_one_point_and_a_level_curve_can_be_drawn(points: tuple[list[float], list[float]]) -> None:
    svg = line_chart([Series("a", 0, *points)], x_label="x", y_label="y")
    assert "nan" not in svg.lower()
    assert svg.count("<circle") == len(points[0])


def test_a_curve_of_many_points_has_no_dots() -> None:
    assert "<circle" not in line_chart([Series("a", 0, range(100), range(100))], x_label="x", y_label="y")


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_ticks_enclose_the_range_in_equal_steps(one: float, other: float) -> None:
    low, high = sorted((one, other))
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    step = found[1] - found[0]
    assert found[0] <= low + step * 1e-3
    assert found[-1] >= high - step * 1e-3
    assert all(b - a == pytest.approx(step, rel=1e-3) for a, b in pairwise(found))

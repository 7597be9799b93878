"""charts: draw bars, intervals and curves as inline SVG that needs no script, and the same bytes each time.

Bars and intervals are placed in percent of their width, so that text keeps its size on a narrow screen; curves have a
view box. Colours are CSS classes of the page (`c0` ... `c5` for series, `win`, `tie`, ... for outcomes), so that dark
mode and print can change them. Every mark has a `<title>` with its numbers.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup, escape

N_COLOURS = 6

# Curves: the size of the view box, and the margins for tick labels (left, below) and direct labels (right).
_WIDTH, _HEIGHT = 520.0, 270.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, 104.0, 26.0, 42.0
_LABEL_GAP = 17.0
_BAR = 22.0  # height of a stacked bar
_LEAST = 1e-6  # values closer than this are one
_MAX_DOTS = 30  # a curve with more points is drawn without dots


class Segment(NamedTuple):
    """A part of a stacked bar."""

    kind: str  # class: win, tie, ...
    share: float  # of the whole bar, in [0, 1]
    label: str  # written inside where there is room
    title: str


class Whisker(NamedTuple):
    """An interval on a bar, from position to position in [0, 1]."""

    kind: str  # class, as of the segment that it belongs to
    low: float
    high: float


class Series(NamedTuple):
    """A curve: points in the order of x, and optionally an interval about each."""

    name: str
    colour: int
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    marked: int | None = None  # index of the point that stands out


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """Write an element; children and attribute values are escaped unless they are Markup.

    >>> tag("text", "a < b", class_="c0", x=1.5, text_anchor="end")
    Markup('<text class="c0" x="1.5" text-anchor="end">a &lt; b</text>')
    """
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None)
    head = Markup("").join(Markup(' {}="{}"').format(key, _plain(value)) for key, value in pairs)
    body = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), head, body)  # noqa: S704 - names are ours


def stacked_bar(segments: Sequence[Segment], *, whiskers: Sequence[Whisker] = ()) -> Markup:
    """Draw one horizontal bar of segments, and the whiskers below it."""
    parts, start = [], 0.0
    for segment in segments:
        parts.append(_segment(segment, start))
        start += segment.share
    for kind, low, high in whiskers:
        parts.append(_rule(kind, low, high, _BAR + 4, _BAR + 4))
        parts += [_rule(kind, end, end, _BAR + 1.5, _BAR + 6.5) for end in (low, high)]
    what = "; ".join(segment.title for segment in segments)
    height = _BAR + (8 if whiskers else 2)
    return tag("svg", *parts, class_="bar", height=height, role="img", aria_label=what)


def interval_bar(
    value: float, *, low: float | None, high: float | None, colour: int, title: str, span: tuple[float, float] = (0, 1)
) -> Markup:
    """Draw a point with its interval on a track from `span[0]` to `span[1]`; an interval of None is left out."""
    grid = [tag("line", class_="grid", x1=x, x2=x, y1="0", y2="100%") for x in ("0%", "25%", "50%", "75%", "100%")]
    at = _percent(_share(value, span))
    parts = [tag("title", title), *grid]
    if span[0] < 0 < span[1]:
        zero = _percent(_share(0, span))
        parts.append(tag("line", class_="zero", x1=zero, x2=zero, y1="0", y2="100%"))
    if low is not None and high is not None:
        ends = [_percent(_share(end, span)) for end in (low, high)]
        parts.append(tag("line", class_=f"range c{colour}", x1=ends[0], x2=ends[1], y1="50%", y2="50%"))
    parts.append(tag("circle", class_=f"dot c{colour}", cx=at, cy="50%", r="5"))
    return tag("svg", *parts, class_="interval", role="img", aria_label=title)


def axis(labels: Sequence[str]) -> Markup:
    """Draw the tick labels of a track, evenly spaced from its left to its right end."""
    last = len(labels) - 1
    anchors = ["start", *["middle"] * (last - 1), "end"]
    texts = [
        tag("text", label, x=_percent(place / last), y="11", text_anchor=anchor)
        for place, (label, anchor) in enumerate(zip(labels, anchors, strict=True))
    ]
    return tag("svg", *texts, class_="axis", aria_hidden="true")


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float] | None = None,
    y_span: tuple[float, float] | None = None,
    digits: int = 2,
) -> Markup:
    """Draw curves on one pair of axes, each named at its end.

    Args:
        series: at least one, each with at least one point.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.
        x_ticks: where to label x; by default round values.
        y_span: values that the y axis must hold, e.g. to be like the axis of another chart.
        digits: decimals of y in the tooltips.
    """
    xs = [x for one in series for x in one.x]
    ys = [y for one in series for y in (*one.y, *one.low, *one.high, *(y_span or ())) if y is not None]
    ticks_x = (
        x_ticks if x_ticks is not None else [tick for tick in ticks(min(xs), max(xs)) if min(xs) <= tick <= max(xs)]
    )
    ticks_y = ticks(min(ys), max(ys))
    to_x = _scale(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT)
    to_y = _scale(ticks_y[0], ticks_y[-1], _HEIGHT - _BOTTOM, _TOP)
    curves = [part for one in series for part in _curve(one, to_x, to_y, digits)]
    names = _end_labels(series, to_x, to_y)
    frame = [*_x_axis(ticks_x, to_x, x_label), *_y_axis(ticks_y, to_y, y_label)]
    what = f"{y_label} by {x_label}: " + "; ".join(
        f"{s.name} from {s.y[0]:.{digits}f} to {s.y[-1]:.{digits}f}" for s in series
    )
    box = f"0 0 {_WIDTH:g} {_HEIGHT:g}"
    return tag("svg", *frame, *curves, *names, class_="curves", viewBox=box, role="img", aria_label=what)


def _rule(kind: str, x1: float, x2: float, y1: float, y2: float) -> Markup:
    return tag("line", class_=f"whisker w-{kind}", x1=_percent(x1), x2=_percent(x2), y1=y1, y2=y2)


def _segment(segment: Segment, start: float) -> Markup:
    rect = tag(
        "rect",
        tag("title", segment.title),
        class_=segment.kind,
        x=_percent(start),
        width=_percent(segment.share),
        height=_BAR,
    )
    if 100 * segment.share < 3 * len(segment.label) + 2:  # too narrow for its text on a small screen
        return rect
    middle = _percent(start + segment.share / 2)
    return rect + tag(
        "text", segment.label, class_=f"on-{segment.kind}", x=middle, y=_BAR / 2, dy="0.35em", text_anchor="middle"
    )


def _curve(one: Series, to_x: "_Scale", to_y: "_Scale", digits: int) -> list[Markup]:
    points = [(to_x(x), to_y(y)) for x, y in zip(one.x, one.y, strict=True)]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    parts = [tag("path", tag("title", one.name), class_=f"curve c{one.colour}", d=path)]
    parts += [
        tag("line", class_=f"range c{one.colour}", x1=x, x2=x, y1=to_y(low), y2=to_y(high))
        for (x, _), low, high in zip(points, one.low, one.high, strict=False)
        if low is not None and high is not None
    ]
    if len(points) <= _MAX_DOTS:
        parts += [_dot(one, index, x, y, digits) for index, (x, y) in enumerate(points)]
    return parts


def _dot(one: Series, index: int, x: float, y: float, digits: int) -> Markup:
    title = f"{one.name}, {one.x[index]:g}: {one.y[index]:.{digits}f}"
    if one.low and one.low[index] is not None:
        title += f" [{one.low[index]:.{digits}f}, {one.high[index]:.{digits}f}]"
    marked = index == one.marked
    dot = tag("circle", tag("title", title), class_=f"dot c{one.colour}", cx=x, cy=y, r=4)
    return (tag("circle", class_=f"ring c{one.colour}", cx=x, cy=y, r=9) if marked else Markup("")) + dot


def _end_labels(series: Sequence[Series], to_x: "_Scale", to_y: "_Scale") -> list[Markup]:
    """Name each curve at its last point, moved apart where two would overlap."""
    order = sorted(range(len(series)), key=lambda index: to_y(series[index].y[-1]))
    heights = [to_y(series[index].y[-1]) for index in order]
    for above, below in pairwise(range(len(heights))):
        heights[below] = max(heights[below], heights[above] + _LABEL_GAP)
    over = max(0.0, heights[-1] - (_HEIGHT - _BOTTOM - 8))
    right = max(to_x(one.x[-1]) for one in series) + 14
    return [
        tag("text", series[index].name, class_=f"name c{series[index].colour}", x=right, y=height - over + 4)
        for index, height in zip(order, heights, strict=True)
    ]


def _x_axis(at: Sequence[float], to_x: "_Scale", label: str) -> list[Markup]:
    base = _HEIGHT - _BOTTOM
    texts = [tag("text", f"{tick:,g}", x=to_x(tick), y=base + 17, text_anchor="middle") for tick in at]
    line = tag("line", class_="base", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=base, y2=base)
    return [
        line,
        *texts,
        tag("text", label, class_="what", x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 4, text_anchor="middle"),
    ]


def _y_axis(at: Sequence[float], to_y: "_Scale", label: str) -> list[Markup]:
    lines = [tag("line", class_="grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=to_y(tick), y2=to_y(tick)) for tick in at]
    texts = [tag("text", f"{tick:,g}", x=_LEFT - 8, y=to_y(tick) + 4, text_anchor="end") for tick in at]
    return [*lines, *texts, tag("text", label, class_="what", x=0, y=12)]


def ticks(low: float, high: float) -> list[float]:
    """Give 3 to 7 round values (steps of 1, 2 or 5 times a power of ten) that enclose low to high.

    >>> ticks(0.3, 4.1)
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    if high - low < _LEAST:
        around = 0.5 * max(abs(low), 1e3 * _LEAST)
        low, high = low - around, high + around
    power = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(power * factor for factor in (1, 2, 5, 10) if (high - low) / (power * factor) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 10) + 0.0 for place in range(first, last + 1)]


_Scale = Callable[[float], float]


def _scale(low: float, high: float, start: float, end: float) -> _Scale:
    width = (high - low) or 1.0
    return lambda value: start + (value - low) / width * (end - start)


def _share(value: float, span: tuple[float, float]) -> float:
    return min(1.0, max(0.0, (value - span[0]) / (span[1] - span[0])))


def _percent(share: float) -> str:
    return f"{100 * share:.3f}".rstrip("0").rstrip(".") + "%"


def _plain(value: object) -> object:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value

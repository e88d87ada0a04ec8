"""Curves over checkpoints: lines with their intervals, the band of chance, the kept and the stop step.

Every line keeps its colour and the shape of its points throughout the page, so that a figure can be read without
colour, and every point says its numbers when pointed at.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from whatstuck.report.marks import Frame, Mark, draw_marks
from whatstuck.report.metrics import Stat
from whatstuck.report.svg import Axis, Point, log_axis, nice_ticks, path, picture, step_axis, tag
from whatstuck.report.words import measured, number, percent

WIDTH, HEIGHT = 360.0, 236.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 38.0, 42.0
INNER = WIDTH - LEFT - RIGHT

Points = Mapping[Any, Stat]  # by step or by threshold constant: Mapping keeps int and float keys apart
Scale = Callable[[float], float]

_POINT = 3.9  # half the size of a point
SHAPES = {"removed": "down", "preserved": "square", "emerged": "up", "sign_changed": "diamond"}


@dataclass(frozen=True, slots=True)
class Line:
    """One curve.

    Attributes:
        label: What it is, for the words shown on pointing.
        style: CSS class, which is also what the point's shape goes by.
        points: Statistic by x.
        band: Whether to draw the interval as an area; else as whiskers.
        thin: A line that stands beside another one: its interval is said on pointing, not drawn.
    """

    label: str
    style: str
    points: Points
    band: bool = True
    thin: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot under construction.

    Attributes:
        name: Id, unlike any other on the page.
        title: Heading inside the picture.
        text: What the picture shows, for those who do not see it.
        nulls: Bands of chance: (style, statistic by x), the null columns are drawn.
        marks: x values that get a vertical line, with their labels.
        shaded: x values whose surroundings are shaded.
        reach: Values that the y axis must reach, such as 0.
    """

    name: str
    title: str
    text: str
    lines: Sequence[Line]
    share: bool = False
    unit: str = ""
    nulls: Sequence[tuple[str, Points]] = ()
    marks: Sequence[Mark] = ()
    shaded: Sequence[float] = ()
    reach: Sequence[float] = field(default=(0.0,))

    def over_steps(self, steps: Sequence[int]) -> Markup:
        """Draw it over checkpoints."""
        return self._draw(step_axis(steps, width=INNER, first=[int(mark.x) for mark in self.marks]))

    def over_tau(self, taus: Sequence[float]) -> Markup:
        """Draw it over the constant of the threshold."""
        return self._draw(log_axis(taus, width=INNER, title="threshold constant c"))

    def _draw(self, axis: Axis) -> Markup:
        ticks = nice_ticks(*self._range())
        bottom, top = ticks[0], ticks[-1]

        def x_of(value: float) -> float:
            return LEFT + 8 + axis.place(value) * (INNER - 16)

        def y_of(value: float) -> float:
            return TOP + (top - value) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

        inside = (
            tag("text", self.title, x=2, y=15, class_="figure-title"),
            self._shade(axis, x_of),
            _grid(ticks, y_of, share=self.share),
            _steps(axis, x_of),
            *(_null(style, points, x_of, y_of) for style, points in self.nulls),
            draw_marks(self.marks, x_of, Frame(WIDTH, TOP, HEIGHT - BOTTOM, self.title)),
            *(_line(line, x_of, y_of, unit=self.unit, share=self.share) for line in self.lines),
        )
        return picture(WIDTH, HEIGHT, *inside, name=self.name, title=self.title, text=self.text)

    def _range(self) -> tuple[float, float]:
        seen = [*self.reach]
        for line in self.lines:
            drawn = [(s.value,) if line.thin else (s.value, s.low, s.high) for s in line.points.values()]
            seen += [v for values in drawn for v in values if v is not None]
        for _, points in self.nulls:
            seen += [v for s in points.values() for v in (s.null_low, s.null_high) if v is not None]
        return (min(seen), max(seen)) if seen else (0.0, 1.0)

    def _shade(self, axis: Axis, x_of: Scale) -> Markup:
        """A strip around each x, halfway to its neighbours."""
        values = list(axis.values)
        strips = []
        for value in self.shaded:
            if value in values:
                index = values.index(value)
                left = (x_of(values[index - 1]) + x_of(value)) / 2 if index else x_of(value) - 8
                last = index == len(values) - 1
                right = x_of(value) + 8 if last else (x_of(value) + x_of(values[index + 1])) / 2
                strips.append(
                    tag("rect", x=left, y=TOP, width=right - left, height=HEIGHT - TOP - BOTTOM, class_="shade")
                )
        return Markup("").join(strips)


def _grid(ticks: Sequence[float], y_of: Scale, *, share: bool) -> Markup:
    show = percent if share else number
    lines = [
        tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y_of(tick), y2=y_of(tick), class_="zero" if tick == 0 else "rule")
        for tick in ticks
    ]
    labels = [
        tag("text", show(tick).replace(" %", "%"), x=LEFT - 6, y=y_of(tick) + 4, text_anchor="end") for tick in ticks
    ]
    return tag("g", *lines, *labels, class_="axis")


def _steps(axis: Axis, x_of: Scale) -> Markup:
    base = HEIGHT - BOTTOM
    ticks = [tag("line", x1=x_of(x), x2=x_of(x), y1=base, y2=base + 4, class_="tick") for x in axis.values]
    labels = [tag("text", label, x=x_of(x), y=base + 17, text_anchor="middle") for x, label in axis.labels]
    title = tag("text", axis.title, x=LEFT + INNER / 2, y=HEIGHT - 6, text_anchor="middle", class_="axis-title")
    return tag("g", *ticks, *labels, title, class_="axis")


def _null(style: str, points: Points, x_of: Scale, y_of: Scale) -> Markup:
    known = [
        (x_of(x), y_of(stat.null_low), y_of(stat.null_high))
        for x, stat in sorted(points.items())
        if stat.null_low is not None and stat.null_high is not None
    ]
    if not known:
        return Markup("")
    if len(known) == 1:  # an area needs two points
        ((x, low, high),) = known
        known = [(x - 8, low, high), (x + 8, low, high)]
    return tag("path", d=_area(known), class_=f"null {style}")


def _line(line: Line, x_of: Scale, y_of: Scale, *, unit: str, share: bool) -> Markup:
    points = [(x, stat) for x, stat in sorted(line.points.items()) if stat.value is not None]
    if not points:
        return Markup("")
    centres: list[Point] = [(x_of(x), y_of(stat.value or 0.0)) for x, stat in points]
    spread = [
        (x_of(x), y_of(stat.low), y_of(stat.high))
        for x, stat in points
        if stat.low is not None and stat.high is not None and not line.thin
    ]
    area, whiskers = Markup(""), Markup("")
    if line.band and len(spread) > 1:
        area = tag("path", d=_area(spread), class_="band")
    else:
        whiskers = Markup("").join(
            tag("line", x1=x, x2=x, y1=low, y2=high, class_="whisker") for x, low, high in spread
        )
    marks = [
        _point(line, centre, f"{line.label}, {x:g}: {measured(stat, unit, share=share)}")
        for centre, (x, stat) in zip(centres, points, strict=True)
    ]
    style = f"series {line.style} thin" if line.thin else f"series {line.style}"
    return tag("g", area, whiskers, tag("path", d=path(centres), class_="line"), *marks, class_=style)


def _area(known: Sequence[tuple[float, float, float]]) -> str:
    lower = [(x, low) for x, low, _ in known]
    upper = [(x, high) for x, _, high in reversed(known)]
    return path([*lower, *upper], closed=True)


def _point(line: Line, centre: Point, words: str) -> Markup:
    x, y = centre
    said = tag("title", words)
    size = 2.4 if line.thin else _POINT
    if line.style not in SHAPES:
        return tag("circle", said, cx=x, cy=y, r=0.8 * size, class_="point")
    return tag("path", said, d=outline(SHAPES[line.style], centre, size), class_="point")


def outline(shape: str, centre: Point, size: float = _POINT) -> str:
    """Path data of a point's shape: `square`, `up`, `down` or `diamond`."""
    x, y = centre
    flat = size * 0.85
    corners = {
        "square": [(-flat, -flat), (flat, -flat), (flat, flat), (-flat, flat)],
        "up": [(0, -size), (size, flat), (-size, flat)],
        "down": [(0, size), (size, -flat), (-size, -flat)],
        "diamond": [(0, -size), (size, 0), (0, size), (-size, 0)],
    }[shape]
    return path([(x + dx, y + dy) for dx, dy in corners], closed=True)

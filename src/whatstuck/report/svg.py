"""The few drawing tools that the figures share: escaped tags, axes, ticks.

Figures are drawn for a width of 360 units, which is a phone's, and put side by side on a wide screen: a figure made
for a desk and scaled down to a phone has letters that nobody can read. Colours are classes; the style sheet knows
light, dark and print.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Child = str | Markup
Point = tuple[float, float]

LETTER = 7.4  # width of a digit at the figures' font size, generously


def tag(name: str, *children: Child, **attributes: str | float | None) -> Markup:
    """One SVG element; text and attributes are escaped, numbers rounded to a tenth.

    >>> tag("text", "a < b", x=1.234, text_anchor="end", class_=None)
    Markup('<text x="1.2" text-anchor="end">a &lt; b</text>')
    """
    parts = [name]
    for key, value in attributes.items():
        if value is not None:
            shown = value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    inside = Markup("").join(children)
    return Markup("<{}>{}</{}>").format(Markup(" ".join(parts)), inside, Markup(name))  # noqa: S704 - escaped above


def picture(width: float, height: float, *children: Child, name: str, title: str, text: str) -> Markup:
    """An `<svg>` that scales, with a title and a description for those who do not see it.

    `name` is the id of the figure, unlike any other on the page.
    """
    return tag(
        "svg",
        tag("title", title, id=f"{name}-t"),
        tag("desc", text, id=f"{name}-d"),
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_labelledby=f"{name}-t {name}-d",
    )


def path(points: Sequence[Point], *, closed: bool = False) -> str:
    """Path data through points."""
    data = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return data + " Z" if closed else data


def nice_ticks(low: float, high: float, *, count: int = 4) -> list[float]:
    """Round numbers from below `low` to above `high`.

    >>> nice_ticks(0, 0.93)
    [0.0, 0.25, 0.5, 0.75, 1.0]
    >>> nice_ticks(-1.2, 3.4)
    [-2.0, 0.0, 2.0, 4.0]
    """
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    spacing = next(factor * power for factor in (1, 2, 2.5, 5, 10, 20) if span / (factor * power) <= count)
    first, last = math.floor(low / spacing + 1e-9), math.ceil(high / spacing - 1e-9)
    return [round(index * spacing, 12) for index in range(first, max(last, first + 1) + 1)]


@dataclass(frozen=True, slots=True)
class Axis:
    """Where values of x go: `place` maps to 0..1, `labels` are those that fit side by side."""

    title: str
    values: tuple[float, ...]
    place: Callable[[float], float]
    labels: tuple[tuple[float, str], ...]


def step_axis(steps: Sequence[int], *, width: float, first: Sequence[int] = ()) -> Axis:
    """Checkpoints on an axis that is dense where they are: log(1 + step / first step after 0).

    Args:
        steps: Steps, ascending.
        width: Units that the axis has.
        first: Steps to label before others.
    """
    unit = next((step for step in steps if step > 0), 1)
    start, end = (math.log1p(steps[index] / unit) for index in (0, -1))

    def place(step: float) -> float:
        return (math.log1p(step / unit) - start) / (end - start) if end > start else 0.5

    labels = _fitting([*first, steps[0], steps[-1], *steps], str, place, width)
    return Axis("optimizer step", tuple(steps), place, labels)


def log_axis(values: Sequence[float], *, width: float, title: str) -> Axis:
    """Positive values on a logarithmic axis."""
    start, end = math.log(values[0]), math.log(values[-1])

    def place(value: float) -> float:
        return (math.log(value) - start) / (end - start) if end > start else 0.5

    return Axis(title, tuple(values), place, _fitting(values, lambda value: f"{value:g}", place, width))


def _fitting(
    wanted: Sequence[float], show: Callable[[float], str], place: Callable[[float], float], width: float
) -> tuple[tuple[float, str], ...]:
    """Labels that do not collide; those named first go first."""
    taken: list[tuple[float, float, float, str]] = []
    for value in dict.fromkeys(wanted):
        label = show(value)
        centre, half = place(value) * width, (len(label) * LETTER + 5) / 2
        if all(abs(centre - other) >= half + reach for other, reach, _, _ in taken):
            taken.append((centre, half, value, label))
    return tuple((value, label) for _, _, value, label in sorted(taken))

"""Vertical marks in a figure, such as the kept and the stop step, and where their labels find room.

Two marks are often neighbours. A label that covered the other mark, the other label or the title could not be read, so
all places of all labels are tried together: beside the line above the plot, beside the title, last at the foot.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

from markupsafe import Markup

from whatstuck.report.svg import LETTER, tag

_TITLE_LETTER = 8.0  # width of a letter of the title, generously
_ABOVE, _BESIDE_TITLE, _FOOT = range(3)


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at `x` with its label; `style` is its CSS class: `keep`, `stop` or `note`."""

    x: float
    label: str
    style: str = "keep"


@dataclass(frozen=True, slots=True)
class Frame:
    """Where marks may be drawn: a picture `width` wide, the plot from `top` to `bottom`, `title` at the top left."""

    width: float
    top: float
    bottom: float
    title: str


@dataclass(frozen=True, slots=True)
class _Place:
    """One place of a label, by its row and its ends; `effort` is how far it is from the best one."""

    row: int
    anchor: str
    left: float
    right: float
    effort: int


def draw_marks(marks: Sequence[Mark], x_of: Callable[[float], float], frame: Frame) -> Markup:
    """Lines and labels of all marks (few: every way of placing their labels is looked at).

    Args:
        marks: What to mark.
        x_of: From a mark's `x` to the place in the picture.
        frame: The picture.
    """
    lines = [x_of(mark.x) for mark in marks]
    choices = [list(_places(mark, x, frame.width)) for mark, x in zip(marks, lines, strict=True)]
    ways = sorted(product(*choices), key=lambda way: sum(place.effort for place in way))
    best = next((way for way in ways if _fits(way, lines, frame)), ways[0])
    heights = {_ABOVE: frame.top - 3, _BESIDE_TITLE: 15.0, _FOOT: frame.bottom - 6}
    drawn = [
        tag(
            "g",
            tag("line", x1=x, x2=x, y1=4 if place.row == _BESIDE_TITLE else frame.top - 10, y2=frame.bottom),
            tag(
                "text",
                mark.label,
                x=place.right if place.anchor == "end" else place.left,
                y=heights[place.row],
                text_anchor=place.anchor,
            ),
            class_=f"mark {mark.style}",
        )
        for mark, x, place in zip(marks, lines, best, strict=True)
    ]
    return Markup("").join(drawn)


def _places(mark: Mark, x: float, width: float) -> Iterator[_Place]:
    """Every place of a label, the better ones first; towards the middle of the picture there is more room."""
    length = len(mark.label) * LETTER
    sides = [("end", x - 4 - length, x - 4), ("start", x + 4, x + 4 + length)]
    for row in (_ABOVE, _BESIDE_TITLE, _FOOT):
        for other, (anchor, left, right) in enumerate(sides if x > width / 2 else sides[::-1]):
            yield _Place(row, anchor, left, right, 2 * row + other)


def _fits(way: Sequence[_Place], lines: Sequence[float], frame: Frame) -> bool:
    """Whether no label leaves the picture or meets the title, another label, or (above the plot) another line."""
    rows: dict[int, list[tuple[float, float]]] = {
        _ABOVE: [(x, x) for x in lines],
        _BESIDE_TITLE: [(0.0, len(frame.title) * _TITLE_LETTER)],
        _FOOT: [],
    }
    for place in way:
        rows[place.row].append((place.left, place.right))
    inside = all(place.left >= 0 and place.right <= frame.width for place in way)
    return inside and all(end <= start for spans in rows.values() for (_, end), (start, _) in pairwise(sorted(spans)))

"""Bars: strength by order (as in Fig. 2 of arXiv 2605.17967), single interactions, certain parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from whatstuck.report.figures import SHAPES, outline
from whatstuck.report.metrics import Stat
from whatstuck.report.reading import SETS
from whatstuck.report.svg import nice_ticks, picture, tag
from whatstuck.report.words import PLAIN_NAMES, number

Signed = tuple[Stat | None, Stat | None]

_WIDTH, _PANEL, _LEFT, _TOP = 176.0, 86.0, 36.0, 24.0


def order_bars(
    step: int, strengths: Mapping[str, Mapping[int, Signed]], *, orders: int, top: float, name: str, rule: str
) -> Markup:
    """Strength of each set at one checkpoint, by order, positive up and negative down.

    Args:
        step: The checkpoint, for the heading.
        strengths: For each set, by order, the statistics `strength_positive` and `strength_negative`.
        orders: Largest order.
        top: Strength at the edge of each panel, the same for every figure that is compared.
        name: Id of the figure, unlike any other on the page.
        rule: Name of the threshold rule, for the description.
    """
    width = (_WIDTH - _LEFT - 4) / orders
    children: list[Markup] = [tag("text", f"step {step}", x=2, y=14, class_="figure-title")]
    said = []
    for index, subset in enumerate(SETS):
        middle = _TOP + _PANEL * (index + 0.5) + 4
        reach = (_PANEL - 24) / 2
        bars: list[Markup] = []
        for order in range(1, orders + 1):
            pair = strengths.get(subset, {}).get(order, (None, None))
            left = _LEFT + (order - 1) * width
            bars += [_bar(stat, left, width, middle, reach / top, order) for stat in pair]
        nets = [stat.value or 0.0 for pair in strengths.get(subset, {}).values() for stat in pair if stat]
        up, down = sum(v for v in nets if v > 0), sum(v for v in nets if v < 0)
        said.append(f"{subset} {number(up, signed=True)} and {number(down)}")
        children += [
            *(
                tag("line", x1=_LEFT, x2=_WIDTH - 4, y1=y, y2=y, class_="zero" if y == middle else "rule")
                for y in (middle - reach, middle, middle + reach)
            ),
            tag("path", d=outline(SHAPES[subset], (_LEFT + 5, middle - reach - 8)), class_=f"key {subset}"),
            tag("text", PLAIN_NAMES[subset], x=_LEFT + 13, y=middle - reach - 4, class_="panel-title"),
            tag("text", number(top, signed=True), x=_LEFT - 4, y=middle - reach + 5, text_anchor="end"),
            tag("text", number(-top), x=_LEFT - 4, y=middle + reach + 3, text_anchor="end"),
            tag("g", *bars, class_=f"series {subset}"),
        ]
    bottom = _TOP + _PANEL * len(SETS) + 12
    every = 1 if orders <= 12 else 2  # noqa: PLR2004 - more labels than this touch
    children += [
        tag("text", str(order), x=_LEFT + (order - 0.5) * width, y=bottom, text_anchor="middle")
        for order in range(1, orders + 1, every)
    ]
    return picture(
        _WIDTH,
        bottom + 6,
        tag("g", *children, class_="axis"),
        name=name,
        title=f"Strength by order at step {step}, {rule}",
        text=f"Mean strength per row in log-odds, positive and negative: {'; '.join(said)}.",
    )


def _bar(stat: Stat | None, left: float, width: float, middle: float, scale: float, order: int) -> Markup:
    if stat is None or stat.value is None or stat.value == 0:
        return Markup("")
    height = abs(stat.value) * scale
    words = f"order {order}: {number(stat.value, signed=True)} log-odds"
    whisker = Markup("")
    if stat.low is not None and stat.high is not None:
        centre = left + width / 2
        whisker = tag(
            "line", x1=centre, x2=centre, y1=middle - stat.low * scale, y2=middle - stat.high * scale, class_="whisker"
        )
        words += f" ({number(stat.low)} to {number(stat.high)})"
    box = tag(
        "rect",
        tag("title", words),
        x=left + width * 0.14,
        y=middle - height if stat.value > 0 else middle,
        width=width * 0.72,
        height=height,
        class_="bar",
    )
    return box + whisker


Span = tuple[float, float]


def before_after(
    before: float,
    after: float,
    *,
    category: str,
    top: float,
    name: str,
    ranges: tuple[Span | None, Span | None] = (None, None),
) -> Markup:
    """One interaction before (hollow) and after (filled), left and right of zero, each with its range as a line.

    Args:
        before: The interaction at the first checkpoint, in log-odds.
        after: The interaction at the checkpoint compared.
        category: CSS class of the colour.
        name: Id of the figure, unlike any other on the page.
        top: Size at the edge, the same for all interactions that stand together.
        ranges: (low, high) of both, where known.
    """
    middle, reach = 100.0, 96.0 / top

    def bar(value: float, y: float, style: str) -> Markup:
        length = abs(value) * reach
        return tag("rect", x=middle - (length if value < 0 else 0), y=y, width=length, height=9, class_=style)

    def whisker(span: Span | None, y: float) -> Markup:
        if span is None:
            return Markup("")
        left, right = (middle + max(-top, min(top, end)) * reach for end in span)
        return tag("line", x1=left, x2=right, y1=y, y2=y, class_="whisker")

    said = [
        f"{number(value, signed=True)} {when}" + (f" ({number(span[0])} to {number(span[1])})" if span else "")
        for value, when, span in zip((before, after), ("before", "after"), ranges, strict=True)
    ]
    return picture(
        200,
        26,
        tag("line", x1=middle, x2=middle, y1=0, y2=26, class_="zero"),
        tag("g", bar(before, 2.5, "hollow"), bar(after, 14.5, "bar"), class_=f"series {category}"),
        whisker(ranges[0], 7.0),
        whisker(ranges[1], 19.0),
        name=name,
        title="Before and after",
        text=f"{', '.join(said)}, in log-odds",
    )


@dataclass(frozen=True, slots=True)
class Part:
    """How much of a set is certain, is found, and is possible: `least` <= `point` <= `most`."""

    least: float
    point: float
    most: float


def part_bars(parts: Mapping[str, Part], *, title: str, name: str, words: tuple[str, str], top: float = 0.0) -> Markup:
    """A bar per set: full up to what is certain, light up to what is possible, a line at what was found.

    Args:
        parts: By set.
        title: Heading inside the picture.
        name: Id of the figure, unlike any other on the page.
        words: What to call the two ends.
        top: Value that the scale must reach, so that figures can be compared.
    """
    width, left, line = 300.0, 8.0, 44.0
    ticks = nice_ticks(0.0, max([top, *(part.most for part in parts.values())]) or 1.0)
    scale = (width - 2 * left - 10) / ticks[-1]
    children: list[Markup] = [tag("text", title, x=2, y=14, class_="figure-title")]
    said = []
    bottom = 26 + line * len(parts)
    for tick in ticks:
        x = left + tick * scale
        children += [
            tag("line", x1=x, x2=x, y1=26, y2=bottom, class_="zero" if tick == 0 else "rule"),
            tag("text", number(tick), x=x, y=bottom + 15, text_anchor="middle"),
        ]
    for index, (subset, part) in enumerate(parts.items()):
        y = 26 + line * index
        sentence = f"{number(part.least)} {words[0]}, {number(part.point)} found, {number(part.most)} {words[1]}"
        said.append(f"{PLAIN_NAMES[subset]} {sentence}")
        end, point = left + part.least * scale, left + part.point * scale
        children += [
            tag("path", d=outline(SHAPES[subset], (left + 6, y + 13)), class_=f"key {subset}"),
            tag("text", sentence, x=left + 15, y=y + 17, class_="panel-title"),
            tag(
                "g",
                tag("rect", x=end, y=y + 23, width=max(part.most - part.least, 0.0) * scale, height=13, class_="maybe"),
                tag("rect", x=left, y=y + 23, width=part.least * scale, height=13, class_="bar"),
                class_=f"series {subset}",
            ),
            tag("line", x1=point, x2=point, y1=y + 20.5, y2=y + 38.5, class_="found"),
        ]
    return picture(
        width,
        bottom + 22,
        tag("g", *children, class_="axis"),
        name=name,
        title=title,
        text=f"Per row: {'; '.join(said)}.",
    )


def top_of(strengths: Sequence[Mapping[str, Mapping[int, Signed]]]) -> float:
    """A round number above every strength and interval, so that figures share one scale; 1 where there is none."""
    found = [
        abs(value)
        for sets in strengths
        for orders in sets.values()
        for pair in orders.values()
        for stat in pair
        if stat is not None
        for value in (stat.value, stat.low, stat.high)
        if value is not None
    ]
    return nice_ticks(0.0, max(found, default=0.0) or 1.0, count=5)[-1]

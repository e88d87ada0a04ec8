"""What share of rows each arm of an intervention brings back: dots with intervals, one line per arm.

The treated arm is drawn in its cause's colour, the arms that it must beat in grey.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from whatstuck.report.metrics import Stat
from whatstuck.report.svg import picture, tag
from whatstuck.report.words import measured, percent

_WIDTH, _LEFT, _RIGHT, _TOP, _LINE = 360.0, 140.0, 20.0, 26.0, 26.0
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Arm:
    """One line: the share of rows that are right after it, on their own wording and on others; None: not asked."""

    name: str
    treated: bool
    recovery: Stat
    paraphrases: Stat | None


def recovery_dots(arms: Sequence[Arm], *, name: str, title: str, style: str) -> Markup:
    """Draw the arms of one cause.

    Args:
        arms: From top to bottom.
        name: Id of the figure, unlike any other on the page.
        title: Heading inside the picture.
        style: CSS class of the treated arm.
    """
    base = _TOP + _LINE * len(arms)
    grid = [
        Markup("").join(
            (
                tag("line", x1=_x(tick), x2=_x(tick), y1=_TOP, y2=base, class_="rule"),
                tag("text", percent(tick).replace(" %", "%"), x=_x(tick), y=base + 15, text_anchor="middle"),
            )
        )
        for tick in _TICKS
    ]
    lines = [_arm(arm, _TOP + _LINE * (index + 0.5), style) for index, arm in enumerate(arms)]
    said = "; ".join(f"{arm.name} {measured(arm.recovery, share=True)}" for arm in arms)
    return picture(
        _WIDTH,
        base + 34,
        tag("text", title, x=2, y=14, class_="figure-title"),
        tag("g", *grid, class_="axis"),
        tag(
            "text", "rows that are right afterwards", x=_x(0.5), y=base + 30, text_anchor="middle", class_="axis-title"
        ),
        *lines,
        name=name,
        title=title,
        text=f"Share of rows that are right afterwards: {said}.",
    )


def _x(value: float) -> float:
    return _LEFT + value * (_WIDTH - _LEFT - _RIGHT)


def _arm(arm: Arm, y: float, style: str) -> Markup:
    label = tag("text", arm.name, x=_LEFT - 8, y=y + 4, text_anchor="end", class_="treated" if arm.treated else None)
    drawn = [label, _dot(arm.recovery, y - 3 * (arm.paraphrases is not None), f"{arm.name}, own wording", "point")]
    if arm.paraphrases is not None:
        drawn.append(_dot(arm.paraphrases, y + 5, f"{arm.name}, other wordings", "point hollow"))
    return tag("g", *drawn, class_=f"series {style}" if arm.treated else "series control")


def _dot(stat: Stat, y: float, words: str, style: str) -> Markup:
    if stat.value is None:
        return Markup("")
    whisker = Markup("")
    if stat.low is not None and stat.high is not None:
        whisker = tag("line", x1=_x(stat.low), x2=_x(stat.high), y1=y, y2=y, class_="whisker")
    said = tag("title", f"{words}: {measured(stat, share=True)}")
    return whisker + tag("circle", said, cx=_x(stat.value), cy=y, r=4.0, class_=style)

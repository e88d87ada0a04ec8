"""Two stacked bars for a pair of runs: what became of the interactions of the base, and what emerged."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from whatstuck.report.svg import nice_ticks, picture, tag
from whatstuck.report.words import number

_KEPT = ("kept_both", "kept_a", "kept_b", "lost_both")
_EMERGED = ("emerged_both", "emerged_a", "emerged_b")
_WIDTH, _LEFT, _LINE, _TOP = 360.0, 6.0, 46.0, 4.0


def longest(pairs: Sequence[Mapping[str, Any]]) -> float:
    """The longest bar of all pairs, so that their figures share one scale; 1 where there is none."""
    return max((sum(_sizes(pair)[key] for key in keys) for pair in pairs for keys in (_KEPT, _EMERGED)), default=1.0)


def mass_bars(pair: Mapping[str, Any], *, names: tuple[str, str], styles: tuple[str, str], top: float) -> Markup:
    """Draw the bars.

    Args:
        pair: An entry of `pairs` with `since`.
        names: What to call the two runs.
        styles: CSS classes of their colours.
        top: Mass that the scale must reach, in log-odds.
    """
    said = {
        f"{what}_{side}": f"{name} only" for what in ("kept", "emerged") for side, name in zip("ab", names, strict=True)
    }
    said |= {"kept_both": "both", "emerged_both": "both", "lost_both": "lost by both"}
    look = {f"{what}_{side}": style for what in ("kept", "emerged") for side, style in zip("ab", styles, strict=True)}
    look |= {"kept_both": "shared", "emerged_both": "shared", "lost_both": "lost"}
    sizes = _sizes(pair)
    ticks = nice_ticks(0.0, top or 1.0)
    scale = (_WIDTH - 2 * _LEFT - 8) / ticks[-1]
    bottom = _TOP + 2 * _LINE
    children: list[Markup] = []
    for tick in ticks:
        x = _LEFT + tick * scale
        children += [
            tag("line", x1=x, x2=x, y1=_TOP, y2=bottom, class_="zero" if tick == 0 else "rule"),
            tag("text", number(tick), x=x, y=bottom + 14, text_anchor="middle"),
        ]
    words = []
    for index, (title, keys) in enumerate((("What became of the base", _KEPT), ("What emerged", _EMERGED))):
        y = _TOP + _LINE * index
        edges = [_LEFT]
        for key in keys:
            edges.append(edges[-1] + sizes[key] * scale)
        children.append(tag("text", title, x=_LEFT + 4, y=y + 13, class_="panel-title"))
        for key, (start, end) in zip(keys, pairwise(edges), strict=True):
            label = tag("title", f"{said[key]}: {number(sizes[key])}")
            children.append(
                tag("rect", label, x=start, y=y + 19, width=end - start, height=18, class_=f"part {look[key]}")
            )
        words.append(f"{title}: {', '.join(f'{said[key]} {number(sizes[key])}' for key in keys)}")
    return picture(
        _WIDTH,
        bottom + 20,
        tag("g", *children, class_="axis"),
        name=f"bars-{pair['a']}-{pair['b']}",
        title=f"What {names[0]} and {names[1]} kept, lost and gained",
        text=f"Mean mass per row in log-odds. {'. '.join(words)}.",
    )


def _sizes(pair: Mapping[str, Any]) -> dict[str, float]:
    since = pair.get("since") or {}
    return {key: max((since.get(key) or {}).get("value") or 0.0, 0.0) for key in (*_KEPT, *_EMERGED)}

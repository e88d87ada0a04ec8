"""What the page says about certainty: certain part, point value and possible part of each set, side by side.

A run made without ranges has none of these statistics; the page then says so instead of showing point values as if
they were certain.
"""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from whatstuck.report.bars import Part, part_bars
from whatstuck.report.metrics import Stat
from whatstuck.report.reading import SETS, Run
from whatstuck.report.words import RULES, listed, measured, number

SHRUNK = "removed_minus_emerged"
BOUNDS = {"count": ("certain", "possible"), "mass": ("at least", "at most")}

_WAYS = (("mass", "none", "Mass in log-odds"), *(("count", rule, f"Number, {RULES[rule]}") for rule in RULES))


@dataclass(frozen=True, slots=True)
class Way:
    """One way of counting at the last step: its three statistics by set."""

    metric: str
    rule: str
    name: str
    least: dict[str, Stat]
    point: dict[str, Stat]
    most: dict[str, Stat]

    @property
    def larger(self) -> str:
        """Which of removed and emerged is larger in every near-optimal explanation, beyond the intervals; or empty."""
        if SHRUNK in self.least and SHRUNK in self.most:  # tighter: what is preserved drops out of the difference
            low, high = self.least[SHRUNK].low, self.most[SHRUNK].high
            return "removed" if low is not None and low > 0 else "emerged" if high is not None and high < 0 else ""
        for one, other in (("removed", "emerged"), ("emerged", "removed")):
            low, high = self.least[one].low, self.most[other].high
            if low is not None and high is not None and low > high:
                return one
        return ""


def ways(run: Run) -> list[Way]:
    """Each way of counting whose ranges are known at the last step."""
    found = []
    for metric, rule, name in _WAYS:
        three: list[dict[str, Stat]] = []
        for part in ("least", "point", "most"):
            named = {subset: _series(run, metric, part, subset, rule).get(run.last) for subset in (*SETS, SHRUNK)}
            three.append({subset: stat for subset, stat in named.items() if stat is not None})
        if all(set(SETS) <= part.keys() for part in three):
            found.append(Way(metric, rule, name, *three))
    return found


def _series(run: Run, metric: str, part: str, subset: str, rule: str) -> dict[int, Stat]:
    if part == "point":
        return run.metrics.series(metric, subset, rule=rule)
    if metric == "mass":
        return run.metrics.series(f"mass_{part}", subset)
    return run.metrics.series("count", f"{subset}_{'certain' if part == 'least' else 'possible'}", rule=rule)


def block(run: Run) -> dict[str, Any]:
    """Figures, table and sentence for the section on changes; empty lists where no range is known."""
    found = ways(run)
    top = max((_value(way.most[subset]) for way in found if way.metric == "count" for subset in SETS), default=0.0)
    return {
        "figures": [_figure(way, top if way.metric == "count" else 0.0) for way in found],
        "sentence": _sentence(found),
        "table": [
            {
                "name": f"{way.name}: {word}",
                "cells": [(measured(stats[subset]), _chance(stats[subset])) for subset in SETS],
            }
            for way in found
            for word, stats in zip(
                (BOUNDS[way.metric][0], "found", BOUNDS[way.metric][1]), (way.least, way.point, way.most), strict=True
            )
        ],
    }


def _value(stat: Stat) -> float:
    return stat.value or 0.0


def _chance(stat: Stat) -> str:
    return number(stat.null_mean) if stat.null_mean is not None else ""


def _figure(way: Way, top: float) -> Markup:
    parts = {s: Part(_value(way.least[s]), _value(way.point[s]), _value(way.most[s])) for s in SETS}
    name = f"certain-{way.metric}" if way.rule == "none" else f"certain-{way.metric}-{way.rule}"
    return part_bars(parts, title=way.name, name=name, words=BOUNDS[way.metric], top=top)


def _sentence(found: list[Way]) -> str:
    """What may be said of removed against emerged whichever explanation is taken."""
    if not found:
        return ""
    if not any(way.larger for way in found):
        return (
            "By no way of counting is it certain whether more was removed or more emerged: of explanations that are "
            "nearly as sparse, some may say one thing and some the other."
        )
    names = {
        way.name: "the mass" if way.metric == "mass" else f"the number under the {RULES[way.rule]}" for way in found
    }
    parts = []
    for side, words in (("removed", "more is removed"), ("emerged", "more emerges")):
        where = [names[way.name] for way in found if way.larger == side]
        if where:
            parts.append(f"by {listed(where)}, {words}")
    open_ways = [names[way.name] for way in found if not way.larger]
    if open_ways:
        parts.append(f"by {listed(open_ways)}, which of removed and emerged is larger is not certain")
    return f"Whichever near-optimal explanation is taken: {'; '.join(parts)}."

"""rho and gamma beside what chance alone gives: a ratio without its null says little."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from whatstuck.report.figures import Figure, Line
from whatstuck.report.metrics import POOLED, Stat
from whatstuck.report.reading import SETS, Run
from whatstuck.report.words import GAMMA_WORDS, RHO_WORDS, RULES, against_null, measured

FOUR = ("all", *SETS)
RULE_NAMES = {"none": "no threshold", **RULES}


def build(run: Run, *, text: bool) -> dict[str, Any]:  # noqa: ARG001 - no text of rows here
    """Panels per set, and one table with every rule."""
    rho = _Ratio(run, "rho", ("sign_flip",))
    return {
        "last": run.last,
        "rho": rho.panels("rho"),
        "rho_words": rho.said(RHO_WORDS),
        "rho_table": rho.table(),
        "gammas": [_gamma(run, index, name) for index, name in enumerate(_compared(run))],
        "skipped": [
            (str(baseline.get("name")), baseline["skipped_rows"])
            for baseline in run.track.get("baselines") or []
            if baseline.get("skipped_rows")
        ],
        "alone": _alone(run),
        "guess": _ce(run.metrics.series("sufficiency_ce", "table").get(run.last)),
    }


def _compared(run: Run) -> list[str]:
    """All baselines pooled where there are several, each alone, and last what is no baseline but an upper bound."""
    alone = [name for name in run.metrics.baselines() if name not in run.upper_bounds]
    pooled = [POOLED] if len(alone) > 1 and run.metrics.series("gamma", baseline=POOLED) else []
    return [*pooled, *alone, *(name for name in run.metrics.baselines() if name in run.upper_bounds)]


def _gamma(run: Run, index: int, baseline: str) -> dict[str, Any]:
    heading = "all baselines pooled" if baseline == POOLED else baseline
    if baseline in run.upper_bounds:
        heading += ": the same model, trained with another seed; an upper bound, no baseline"
    gamma = _Ratio(run, "gamma", ("mismatched_row", "order_stratified"), baseline)
    return {
        "heading": heading,
        "panels": gamma.panels(f"gamma-{index}"),
        "words": gamma.said(GAMMA_WORDS),
        "table": gamma.table(),
    }


@dataclass(frozen=True, slots=True)
class _Ratio:
    """A share between 0 and 1, with its kinds of null."""

    run: Run
    metric: str
    kinds: tuple[str, ...]
    baseline: str = ""

    def _series(self, subset: str, rule: str = "none", null: str = "") -> dict[int, Stat]:
        return self.run.metrics.series(self.metric, subset, rule=rule, baseline=self.baseline, null=null)

    def _nulls(self, subset: str, rule: str = "none") -> list[tuple[str, dict[int, Stat]]]:
        found = ((kind, self._series(subset, rule, kind)) for kind in self.kinds)
        return [(kind, points) for kind, points in found if points]

    def panels(self, name: str) -> list[Markup]:
        """One panel per set, without a threshold, all with the same scale."""
        figures = []
        drawn = {subset: (self._series(subset), self._nulls(subset)) for subset in FOUR}
        top = _highest(drawn.values())
        for subset, (points, nulls) in drawn.items():
            if points:
                last = max(points)
                figure = Figure(
                    name=f"{name}-{subset}",
                    title=subset.capitalize(),
                    text=f"{self.metric} of {subset} at step {last}: {measured(points[last], share=True)}.",
                    lines=[Line(f"{self.metric} of {subset}", subset, points)],
                    nulls=nulls,
                    share=True,
                    reach=(0.0, top),
                )
                figures.append(figure.over_steps(self.run.steps))
        return figures

    def said(self, words: Mapping[str, str]) -> list[tuple[str, str, str]]:
        """(set, value, what it is in words) at the last step, without a threshold."""
        lines = []
        for subset in FOUR:
            stat = self._series(subset).get(self.run.last)
            if stat is not None:
                relations = {against_null(points.get(self.run.last)) for _, points in self._nulls(subset)} or {""}
                said = words[relations.pop()] if len(relations) == 1 else "the two kinds of chance disagree"
                lines.append((subset, measured(stat, share=True), said))
        return lines

    def table(self) -> list[dict[str, Any]]:
        """One line per rule and set at the last step, and per certain part, with a cell for each kind of null."""
        lines = []
        for rule, name in RULE_NAMES.items():
            for subset, part in ((subset, part) for subset in FOUR for part in ("", "certain")):
                named = f"{subset}_{part}" if part else subset
                stat = self._series(named, rule).get(self.run.last)
                if stat is not None:
                    nulls = [self._series(named, rule, kind).get(self.run.last) for kind in self.kinds]
                    shown = [measured(_chance(null), share=True) for null in nulls]
                    value = measured(stat, share=True)
                    lines.append({"rule": name, "set": subset, "part": part, "value": value, "nulls": shown})
        return lines


def _highest(drawn: Iterable[tuple[dict[int, Stat], list[tuple[str, dict[int, Stat]]]]]) -> float:
    """The upper end of everything that the panels draw, so that they share one scale."""
    found = [0.0]
    for points, nulls in drawn:
        found += [value for stat in points.values() for value in (stat.value, stat.high) if value is not None]
        found += [stat.null_high for _, band in nulls for stat in band.values() if stat.null_high is not None]
    return max(found)


def _chance(stat: Stat | None) -> Stat | None:
    """The null as a statistic of its own."""
    return Stat(stat.null_mean, stat.null_low, stat.null_high) if stat is not None else None


def _ce(stat: Stat | None) -> str:
    return measured(stat, "nats") if stat is not None else ""


def _alone(run: Run) -> list[dict[str, str]]:
    """What one interaction of each set adds, and how well each set alone predicts the answer."""
    lines = []
    for rule, name in RULES.items():
        for subset in FOUR:
            contribution, plain, bias = (
                run.metrics.series(metric, subset, rule=rule).get(run.last)
                for metric in ("contribution", "sufficiency_ce", "sufficiency_ce_bias")
            )
            if contribution or plain or bias:
                lines.append(
                    {
                        "rule": name,
                        "set": subset,
                        "contribution": measured(contribution, "log-odds") if contribution else "",
                        "chance": measured(_chance(contribution)) if contribution else "",
                        "ce": _ce(plain),
                        "bias": _ce(bias),
                    }
                )
    return lines

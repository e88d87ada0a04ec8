"""What was removed, kept and added over checkpoints: without a threshold first, then under both threshold rules."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from whatstuck.report import certainty
from whatstuck.report.bars import Signed, order_bars, top_of
from whatstuck.report.figures import Figure, Line
from whatstuck.report.marks import Mark
from whatstuck.report.metrics import MAIN_TAU, Stat
from whatstuck.report.reading import SETS, Run
from whatstuck.report.words import RULES, larger, listed, mass_changes, measured, number, rules_agree

MOST_BARS = 8

_MASSES = (
    ("mass", "Compared with step 0"),
    ("mass_gain", "Common gain taken out"),
    ("mass_previous", "Compared with the step before"),
)


def build(run: Run, *, text: bool) -> dict[str, Any]:  # noqa: ARG001 - no text of rows here
    """What the section shows; with one checkpoint there is nothing to compare."""
    if len(run.steps) < 2:  # noqa: PLR2004 - before and after
        return {"single": True}
    relations = {rule: _relation(run, rule) for rule in ("relative", "fixed", "none")}
    steps = _shown_steps(run)
    return {
        "single": False,
        "last": run.last,
        "masses": _masses(run),
        "changes": [mass_changes(run.metrics.series("mass_change", s), run.steps, s) for s in ("removed", "emerged")],
        "comparisons": 2 * (len(run.steps) - 1),
        "agreement": rules_agree(relations),
        "certain": certainty.block(run),
        "table": _table(run),
        "plain": _plain(run),
        "counts": _counts(run),
        "orders": _orders(run, steps),
        "order_steps": listed(steps) if len(steps) < len(run.steps) else "",
        "taus": _taus(run),
        "tau_words": _tau_words(run),
        "apart": _apart(run),
    }


def _relation(run: Run, rule: str) -> str:
    metric = "mass" if rule == "none" else "count"
    removed, emerged = (run.metrics.series(metric, s, rule=rule).get(run.last) for s in ("removed", "emerged"))
    return larger(removed, emerged)


def _lines(run: Run, metric: str, rule: str = "none") -> list[Line]:
    return [Line(subset, subset, run.metrics.series(metric, subset, rule=rule)) for subset in SETS]


def _ends(lines: Sequence[Line], unit: str, last: float) -> str:
    """What each line reaches, in words, for those who do not see it."""
    parts = [f"{line.label} {measured(line.points[last], unit)}" for line in lines if last in line.points]
    return f"At {last:g}: {'; '.join(parts)}." if parts else "No value is known."


def _figure(name: str, title: str, lines: list[Line], unit: str, steps: Sequence[int], top: float = 0.0) -> Markup:
    known = [line for line in lines if line.points]
    if not known:
        return Markup("")
    figure = Figure(name, title, _ends(known, unit, steps[-1]), known, unit=unit, reach=(0.0, top))
    return figure.over_steps(steps)


def _masses(run: Run) -> list[Markup]:
    """Three panels with one scale."""
    panels = [(metric, title, _lines(run, metric)) for metric, title in _MASSES]
    top = _highest(line for _, _, lines in panels for line in lines)
    drawn = [_figure(f"changes-{m}", title, lines, "log-odds", run.steps, top) for m, title, lines in panels]
    return [figure for figure in drawn if figure]


def _highest(lines: Any) -> float:
    values = (value for line in lines for stat in line.points.values() for value in (stat.value, stat.high))
    return max((value for value in values if value is not None), default=0.0)


def _counts(run: Run) -> list[Markup]:
    panels = [(rule, _lines(run, "count", rule)) for rule in RULES]
    top = _highest(line for _, lines in panels for line in lines)
    drawn = [_figure(f"counts-{r}", f"Number, {RULES[r]}", lines, "", run.steps, top) for r, lines in panels]
    return [figure for figure in drawn if figure]


def _table(run: Run) -> list[dict[str, Any]]:
    """Removed, preserved and emerged at the last step, in every way of counting them."""
    rows = []
    for name, metric, rule in (
        ("Mass in log-odds", "mass", "none"),
        ("Mass, common gain taken out", "mass_gain", "none"),
        ("Number, relative threshold", "count", "relative"),
        ("Number, fixed threshold", "count", "fixed"),
    ):
        stats = {subset: run.metrics.series(metric, subset, rule=rule).get(run.last) for subset in SETS}
        if any(stats.values()):
            relation = larger(stats["removed"], stats["emerged"])
            verdict = {"removed": "removed", "emerged": "emerged", "unclear": "intervals overlap"}.get(relation, "")
            cells = [(measured(stat), _chance(stat)) for stat in stats.values()]
            rows.append({"name": name, "cells": cells, "larger": verdict})
    return rows


def _chance(stat: Stat | None) -> str:
    return number(stat.null_mean) if stat is not None and stat.null_mean is not None else ""


def _plain(run: Run) -> list[tuple[str, str, str]]:
    """(name, value, what it means) of the statistics that need no threshold."""
    lines = []
    for name, metric, subset, share, meaning in (
        ("Range of the output", "scale", "all", False, "mean |v(all words) − v(no word)| in log-odds"),
        ("Cosine with step 0", "cosine", "all", False, "1: the same interactions up to a common factor; 0: unrelated"),
        ("Gain over step 0", "gain", "all", False, "the common factor that fits best"),
        ("High orders, all", "high_order_share", "all", True, "share of mass in interactions of 4 words and more"),
        ("High orders, emerged", "high_order_share", "emerged", True, "the same within what emerged"),
    ):
        series = run.metrics.series(metric, subset)
        if run.last in series:
            before = measured(series.get(run.before), share=share) if run.before in series else ""
            lines.append((name, before, measured(series[run.last], share=share), meaning))
    return lines  # type: ignore[return-value] # before is a column too


def _shown_steps(run: Run) -> list[int]:
    """All steps, thinned to the ends, the kept one and evenly spread others if there are many."""
    steps = list(run.steps)
    if len(steps) <= MOST_BARS:
        return steps
    spread = {round(index * (len(steps) - 1) / (MOST_BARS - 2)) for index in range(MOST_BARS - 1)}
    chosen = {steps[index] for index in spread} | ({run.kept} & set(steps))
    return sorted(step for step in chosen if step is not None)


def _orders(run: Run, steps: Sequence[int]) -> list[dict[str, Any]]:
    """Order bars per rule and step, all with one scale."""
    found = {rule: {step: _strengths(run, rule, step) for step in steps} for rule in RULES}
    top = top_of([sets for by_step in found.values() for sets in by_step.values()])
    blocks = []
    for rule, by_step in found.items():
        figures = [
            order_bars(step, sets, orders=run.players, top=top, name=f"orders-{rule}-{step}", rule=RULES[rule])
            for step, sets in by_step.items()
            if any(sets.values())
        ]
        if figures:
            blocks.append({"rule": RULES[rule], "figures": figures})
    return blocks


def _strengths(run: Run, rule: str, step: int) -> Mapping[str, Mapping[int, Signed]]:
    sets: dict[str, dict[int, Signed]] = {}
    for subset in SETS:
        orders: dict[int, Signed] = {}
        for order in range(1, run.players + 1):
            pair = tuple(
                run.metrics.series(metric, subset, rule=rule, order=order).get(step)
                for metric in ("strength_positive", "strength_negative")
            )
            if any(pair):
                orders[order] = (pair[0], pair[1])
        sets[subset] = orders
    return sets


def _curve_over_tau(run: Run, rule: str) -> list[Line]:
    lines = []
    for subset in SETS:
        by_tau = {
            tau: run.metrics.series("count", subset, rule=rule, tau=tau).get(run.last) for tau in run.metrics.taus(rule)
        }
        lines.append(Line(subset, subset, {tau: stat for tau, stat in by_tau.items() if stat is not None}))
    return lines


def _taus(run: Run) -> list[Markup]:
    """The number removed, preserved and emerged at the last step as the threshold varies."""
    panels = [(rule, _curve_over_tau(run, rule)) for rule in RULES]
    top = _highest(line for _, lines in panels for line in lines)
    figures = []
    for rule, lines in panels:
        taus = sorted({tau for line in lines for tau in line.points})
        if len(taus) > 1:
            title = f"Number at step {run.last}, {RULES[rule]}"
            marks = [Mark(MAIN_TAU, f"c = {MAIN_TAU:g}", "note")] if MAIN_TAU in taus else []
            words = _ends(lines, "", marks[0].x if marks else taus[0])
            figure = Figure(f"tau-{rule}", title, words, lines, marks=marks, reach=(0.0, top))
            figures.append(figure.over_tau(taus))
    return figures


def _tau_words(run: Run) -> str:
    """For which constants more is removed, or more emerges."""
    sentences = []
    for rule, name in RULES.items():
        where: dict[str, list[str]] = {"removed": [], "emerged": [], "unclear": []}
        for tau in run.metrics.taus(rule):
            pair = (
                run.metrics.series("count", subset, rule=rule, tau=tau).get(run.last)
                for subset in ("removed", "emerged")
            )
            where.setdefault(larger(*pair), []).append(f"{tau:g}")
        parts = [
            f"{words} at c = {listed(where[relation])}"
            for relation, words in (
                ("removed", "more is removed"),
                ("emerged", "more emerges"),
                ("unclear", "the intervals overlap"),
            )
            if where[relation]
        ]
        if parts:
            sentences.append(f"Under the {name}, {'; '.join(parts)}.")
    return " ".join(sentences)


def _apart(run: Run) -> list[str]:
    """Interactions that the three sets hide: those that came back, and those that turned round."""
    found = []
    for rule, name in RULES.items():
        stats = [
            run.metrics.series("count", subset, rule=rule).get(run.last) for subset in ("reappeared", "sign_changed")
        ]
        if all(stat is not None for stat in stats):
            came, turned = (measured(stat) for stat in stats)
            found.append(
                f"{name.capitalize()}: {came} of the emerged were salient at step 0, had gone and came back; "
                f"{turned} of the preserved have the other sign now."
            )
    return found

"""What the treatments did: for each cause the rows that came back, beside arms that should not bring them back."""

from collections.abc import Mapping
from typing import Any

from whatstuck.report.causes import ORDER, arm_name, titled
from whatstuck.report.metrics import known
from whatstuck.report.reading_rows import RowsRun, stat
from whatstuck.report.recovery import Arm, recovery_dots
from whatstuck.report.words import counted, measured, number

STATES = {"supported": "fine", "contradicted": "mind", "inconclusive": "unknown"}
CONTROLS = ("rerun", "more_compute", "sham")
LINES = (
    ("effect", "Effect", "recovery, less that of the best arm without a treatment"),
    ("specificity", "Specificity", "recovery, less the mean under the treatments of other causes"),
    ("collateral", "Collateral", "learned rows that are lost, less those that a plain re-run loses"),
)


def build(run: RowsRun, *, text: bool) -> dict[str, Any]:  # noqa: ARG001 - no text of rows here
    """What the section shows: one panel per cause that was treated."""
    shown = [cause for cause in ORDER if cause in run.interventions]
    return {
        "panels": [_panel(cause, run.interventions[cause]) for cause in shown],
        "paraphrased": any(
            stat(arm.get("paraphrases")).value is not None
            for cause in shown
            for arm in (run.interventions[cause].get("arms") or {}).values()
        ),
    }


def _panel(cause: str, result: Mapping[str, Any]) -> dict[str, Any]:
    arms = result.get("arms") or {}
    # the treatment first, then what it must beat, then the treatments of other causes
    order = [name for name in (cause, *CONTROLS) if name in arms]
    order += [name for name in arms if name not in order]
    verdict = str(result.get("verdict") or "quick probes only, nothing was trained anew")
    drawn = [_arm(name, arms[name], treated=name == cause) for name in order]
    return {
        "cause": cause,
        "title": titled(cause),
        "verdict": verdict,
        "state": STATES.get(verdict, "unknown"),
        "figure": recovery_dots(drawn, name=f"recovery-{cause}", title=titled(cause), style=cause) if drawn else None,
        "rows": _rows(arms),
        "lines": [
            (label, measured(stat(result.get(name)), share=True), meaning)
            for name, label, meaning in LINES
            if result.get(name) is not None
        ],
        "tested": _tested(result),
        "notes": [(arm_name(name), str(arms[name]["note"])) for name in order if arms[name].get("note")],
        "sentences": [str(sentence) for sentence in result.get("sentences") or []],
    }


def _arm(name: str, arm: Mapping[str, Any], *, treated: bool) -> Arm:
    others = stat(arm.get("paraphrases"))
    label = "treated" if treated else arm_name(name)
    return Arm(label, treated, stat(arm.get("recovery")), others if others.value is not None else None)


def _rows(arms: Mapping[str, Any]) -> str:
    """How many rows and trainings an arm rests on; arms may differ."""
    rows = sorted({arm["rows"] for arm in arms.values() if isinstance(arm.get("rows"), int)})
    seeds = sorted({arm["seeds"] for arm in arms.values() if isinstance(arm.get("seeds"), int)})
    if not rows or not seeds:
        return ""
    spans = [
        counted(ends[-1], noun) if ends[0] == ends[-1] else f"{ends[0]} to {counted(ends[-1], noun)}"
        for ends, noun in ((rows, "row"), (seeds, "seed"))
    ]
    return f"{spans[0]}, {spans[1]} per arm"


def _tested(result: Mapping[str, Any]) -> str:
    p, q = known(result.get("p_value")), known(result.get("q_value"))
    if p is None:
        return ""
    return f"against the best arm without a treatment p = {number(p)}" + (
        f", q = {number(q)} over all comparisons" if q is not None else ""
    )

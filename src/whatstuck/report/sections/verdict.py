"""First screen, the decision: which checkpoint to keep, where training stopped or could have, and the curve behind it.

Under it stand the signals and what other rules would have done, so that nobody has to take the choice on trust.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from whatstuck.report.figures import Figure, Line
from whatstuck.report.marks import Mark
from whatstuck.report.metrics import Stat, known
from whatstuck.report.reading import Run, whole_number
from whatstuck.report.rules import deciding_rule, kind_of, rule_table
from whatstuck.report.signals import choice_of_baseline, panels
from whatstuck.report.words import counted, listed, measured

LONGEST_NAME = 36
CONFIDENCE = {"low": "low confidence", "medium": "medium confidence", "high": "high confidence"}


def build(run: Run, *, text: bool) -> dict[str, Any]:  # noqa: ARG001 - no text of rows here
    """What the first screen shows."""
    verdict = run.verdict
    signals = verdict.get("signals") or {}
    keeps = verdict.get("decision") == "keep" and run.kept is not None
    close = [step for step in signals.get("indistinguishable_steps") or [] if step in run.steps]
    close = close if keeps and len(close) > 1 else []
    measured_here = _curves(run, close)
    logged = _trainer(run)
    # without rows of our own, what the trainer logged is the curve that the verdict rests on
    borrowed = [figure for name, figure in logged if name == "eval_loss"] if not measured_here else []
    shown = panels(run, _marks(run, run.steps))
    return {
        "keeps": keeps,
        "headline": _headline(run, keeps=keeps),
        "stop": _stop(run, keeps=keeps),
        "folder": _last_part(run.checkpoint(run.kept).get("path")) if keeps else "",
        "protected": str(run.live.get("kept") or "") if keeps else "",  # inside the run folder
        "unsaved": keeps and not run.saved(run.kept),
        "kept": run.kept,
        "reason": verdict.get("reason") or "No reason is recorded.",
        "confidence": CONFIDENCE.get(str(verdict.get("confidence")), ""),
        "rule": deciding_rule(run),
        "figures_shown": measured_here or borrowed,
        "borrowed": bool(borrowed),
        "close": listed(close),
        "select_rows": run.heldout_rows.get("select"),
        "confirm_rows": run.heldout_rows.get("confirm"),
        "signals": shown,
        "choice": choice_of_baseline(run) if shown else [],
        "decides": _decides(run),
        "rules": rule_table(run),
        "statements": [str(statement) for statement in signals.get("statements") or []],
        "trainer": [figure for _, figure in logged if figure not in borrowed],
        "facts": _facts(run),
    }


def _facts(run: Run) -> list[str]:
    saved = sum(run.saved(step) for step in run.steps)
    steps = [counted(len(run.steps), "checkpoint")]
    if saved < len(run.steps):
        steps = [f"{counted(len(run.steps), 'step')} probed in training", f"{counted(saved, 'checkpoint')} saved"]
    return [*steps, counted(len(run.rows), "probed row"), f"{counted(run.players, 'word')} per row"]


def _headline(run: Run, *, keeps: bool) -> str:
    if not keeps:
        return "Cannot tell which checkpoint to keep"
    return "Keep the model as it was (step 0)" if run.kept == 0 else f"Keep step {run.kept}"


def _stop(run: Run, *, keeps: bool) -> str:
    """Where the training stopped, could have stopped, or that the rule never said so; empty where none was asked.

    A stop before the kept step is no advice: the training went on, and got better.
    """
    reached = max([run.last, *(run.track.get("diverged") or [])])
    if run.stopped is not None:
        return f"The rule stopped the training at step {run.stopped}."
    if run.stop is None:
        asked = keeps and run.verdict.get("rule") and reached > run.before
        early = whole_number((run.verdict.get("signals") or {}).get("early_stop"))
        if asked and early is not None:
            return f"The rule would have stopped too early, at step {early}."
        return f"The rule never said stop, up to step {reached}, the last one." if asked else ""
    if run.stop >= reached:
        return f"The rule said stop at step {run.stop}, where the training ended."
    return f"Training could have stopped at step {run.stop}; it went on to step {reached}."


def _decides(run: Run) -> str:
    """Who decides here, and that the signals do not."""
    rule = deciding_rule(run) if run.kept is not None else ""
    if kind_of(run, rule) == "ours":
        return f"{rule[:1].upper()}{rule[1:]} decides, because this run was told so; no study has earned it that yet."
    name = rule.split(",", maxsplit=1)[0]
    who = f"{name[:1].upper()}{name[1:]} decides" if name else "Nothing decides here"
    return f"{who}; the signals are shown and decide nothing until a study has earned them that."


def _last_part(path: object) -> str:
    """A page is for showing around: the folder's name, not where it lies."""
    return str(path or "").replace("\\", "/").rstrip("/").rsplit("/", maxsplit=1)[-1]


def _curves(run: Run, close: Sequence[int]) -> list[Markup]:
    figures = []
    for metric, title, unit, share in (
        ("heldout_loss", "Held-out loss, nats per token", "nats", False),
        ("heldout_accuracy", "Held-out accuracy", "", True),
    ):
        points = run.metrics.series(metric, "select")
        if points:
            kept = points.get(run.kept) if run.kept is not None else None
            at_kept = f", {measured(kept, unit, share=share)} at the kept step" if kept else ""
            figure = Figure(
                name=f"verdict-{metric}",
                title=title,
                text=f"{title} over checkpoints: {_span(points, unit, share=share)}{at_kept}.",
                lines=[Line(title, "main", points)],
                share=share,
                unit=unit,
                marks=_marks(run, run.steps),
                shaded=close,
            )
            figures.append(figure.over_steps(run.steps))
    return figures


def _marks(run: Run, steps: Sequence[int]) -> list[Mark]:
    """The kept and the stop step, where a figure over these steps can show them."""
    if run.kept is not None and run.kept == run.stop:
        marks = [Mark(run.kept, f"keep, stop {run.kept}")]
    else:
        verb = "stopped" if run.stopped is not None else "stop"
        pairs = ((run.kept, "keep", "keep"), (run.stop, verb, "stop"))
        marks = [Mark(step, f"{label} {step}", style) for step, label, style in pairs if step is not None]
    return [mark for mark in marks if min(steps) <= mark.x <= max(steps)]


def _span(points: Mapping[int, Stat], unit: str, *, share: bool) -> str:
    first, last = min(points), max(points)
    begin = measured(points[first], unit, share=share)
    return f"{begin} at step {first}, {measured(points[last], unit, share=share)} at step {last}"


def _trainer(run: Run) -> list[tuple[str, Markup]]:
    """Held-out metrics that the trainer logged by itself, on its own rows."""
    logged = run.track.get("trainer_state") or {}
    figures = []
    for index, (name, pairs) in enumerate(sorted(logged.items())):
        points = {int(step): Stat(float(value)) for step, value in pairs if known(value) is not None}
        if points:
            steps = sorted(points)
            figure = Figure(
                name=f"trainer-{index}",
                title=name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…",
                text=f"{name}, as the trainer logged it: {_span(points, '', share=False)}.",
                lines=[Line(name, "main", points)],
                marks=_marks(run, steps),
                reach=(0.0,) if min(stat.value or 0.0 for stat in points.values()) >= 0 else (),
            )
            figures.append((name, figure.over_steps(steps)))
    return figures

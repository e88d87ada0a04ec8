"""First screen: which checkpoint to keep, why, and the held-out curve that shows it."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from whatstuck.report.figures import Figure, Line
from whatstuck.report.metrics import Stat, known
from whatstuck.report.reading import Run
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
    checkpoint: dict[str, Any] = next((c for c in run.track["checkpoints"] if c.get("step") == run.kept), {})
    return {
        "keeps": keeps,
        "headline": _headline(run, keeps=keeps),
        "folder": _last_part(checkpoint.get("path")) if keeps else "",
        "reason": verdict.get("reason") or "No reason is recorded.",
        "confidence": CONFIDENCE.get(str(verdict.get("confidence")), ""),
        "stop": _stop(verdict.get("stop_step"), run),
        "figures_shown": measured_here or borrowed,
        "borrowed": bool(borrowed),
        "close": listed(close),
        "confirm": _confirm(run) if keeps else [],
        "confirm_rows": run.heldout_rows.get("confirm"),
        "select_rows": run.heldout_rows.get("select"),
        "statements": [str(statement) for statement in signals.get("statements") or []],
        "others": [
            (name, rule.get("keep_step"), rule.get("reason", ""))
            for name, rule in (verdict.get("other_rules") or {}).items()
            if isinstance(rule, dict)
        ],
        "trainer": [figure for _, figure in logged if figure not in borrowed],
        "facts": [
            counted(len(run.steps), "checkpoint"),
            counted(len(run.rows), "probed row"),
            f"{counted(run.players, 'word')} per row",
        ],
    }


def _headline(run: Run, *, keeps: bool) -> str:
    if not keeps:
        return "Cannot tell which checkpoint to keep"
    return "Keep the model as it was (step 0)" if run.kept == 0 else f"Keep step {run.kept}"


def _stop(stop: object, run: Run) -> str:
    if not isinstance(stop, int):
        return ""
    if stop >= run.last:
        return "Nothing here says that training should have stopped earlier."
    return f"Training could have stopped at step {stop}; it went on to step {run.last}."


def _last_part(path: object) -> str:
    """A page is for showing around: the folder's name, not where it lies."""
    return str(path or "").replace("\\", "/").rstrip("/").rsplit("/", maxsplit=1)[-1]


def _curves(run: Run, close: list[int]) -> list[Markup]:
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
                marked=_mark(run, points),
                shaded=close,
            )
            figures.append(figure.over_steps(run.steps))
    return figures


def _mark(run: Run, points: Mapping[int, Stat]) -> tuple[float, str] | None:
    return (float(run.kept), f"keep {run.kept}") if run.kept is not None and run.kept in points else None


def _span(points: Mapping[int, Stat], unit: str, *, share: bool) -> str:
    first, last = min(points), max(points)
    begin = measured(points[first], unit, share=share)
    return f"{begin} at step {first}, {measured(points[last], unit, share=share)} at step {last}"


def _confirm(run: Run) -> list[tuple[str, str, str]]:
    """(what, at step 0, at the kept step), measured on the rows that had no say in the choice."""
    lines = []
    for metric, name, unit, share in (
        ("heldout_loss", "Loss", "nats", False),
        ("heldout_accuracy", "Accuracy", "", True),
    ):
        points = run.metrics.series(metric, "confirm")
        if run.kept in points:
            before = measured(points.get(run.before), unit, share=share)
            lines.append((name, before, measured(points[run.kept], unit, share=share)))
    return lines


def _trainer(run: Run) -> list[tuple[str, Markup]]:
    """Held-out metrics that the trainer logged by itself, on its own rows."""
    logged = run.track.get("trainer_state") or {}
    figures = []
    for index, (name, pairs) in enumerate(sorted(logged.items())):
        points = {int(step): Stat(float(value)) for step, value in pairs if known(value) is not None}
        if points:
            figure = Figure(
                name=f"trainer-{index}",
                title=name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…",
                text=f"{name}, as the trainer logged it: {_span(points, '', share=False)}.",
                lines=[Line(name, "main", points)],
                marked=_mark(run, points) if name == "eval_loss" else None,
                reach=(0.0,) if min(stat.value or 0.0 for stat in points.values()) >= 0 else (),
            )
            figures.append((name, figure.over_steps(sorted(points))))
    return figures

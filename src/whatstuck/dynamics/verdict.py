"""Which checkpoint to keep.

The rule is plain: where held-out rows were scored, keep the step of lowest loss, and name the steps that cannot be
told apart from it. Interaction signals stand beside it and decide nothing yet: on the first real run, "keep
the last step before new interactions emerge" would have kept an accuracy of 0.06 and thrown 0.47 away.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from whatstuck.dynamics.bootstrap import RowBootstrap
from whatstuck.dynamics.metrics import MAIN_TAU
from whatstuck.dynamics.records import Recorder

Floats = npt.NDArray[np.float64]

MEDIUM_CONFIDENCE_STEPS = 3
MIN_ROWS = 8


def record_heldout(tables: Mapping[int, pa.Table], recorder: Recorder, *, seed: int) -> None:
    """Record held-out loss and accuracy per step, for each half of the rows."""
    for step, table in tables.items():
        for half in ("select", "confirm"):
            rows = table.filter(pc.equal(table["half"], half))
            bootstrap = RowBootstrap(max(len(rows), 1), seed=seed)
            for metric, column in (("heldout_loss", "nll"), ("heldout_accuracy", "correct")):
                if len(rows):
                    values = rows[column].cast(pa.float64()).to_numpy()[:, None]
                    value, low, high = bootstrap.ratio(values)
                    recorder.add(step, metric, half, (value[0], low[0], high[0]))


def decide(
    heldout: Mapping[int, pa.Table],
    trainer_state: Mapping[str, Sequence[tuple[int, float]]],
    metrics: pa.Table,
    statements: Sequence[str],
    *,
    setting: str,
    diverged: Sequence[int] = (),
    assumed: bool = False,
    seed: int,
) -> dict[str, Any]:
    """The verdict of a run, as verdict.json holds it.

    Args:
        heldout: Step to its held-out table; empty where only training rows were probed.
        trainer_state: Held-out metrics that the trainer logged: name to (step, value) pairs.
        metrics: The run's metrics.
        statements: Sentences about what changed, shown beside the decision.
        setting: The main extraction setting.
        diverged: Steps that were left out because the training diverged there.
        assumed: Whether the held-out rows are only taken to be held out; that costs confidence.
        seed: Seed of the bootstrap.
    """
    probed = sorted(set(metrics["step"].to_pylist()))
    steps, losses = _select_losses(heldout)
    logged = [(step, loss) for step, loss in trainer_state.get("eval_loss", ()) if step in probed]
    if len(probed) == 1:
        verdict = _cannot_tell(f"Only step {probed[0]} was scored: there is nothing to choose from.")
    elif losses.shape[1] >= MIN_ROWS:
        verdict = _by_heldout_loss(steps, losses, metrics, seed, last=max([*probed, *diverged]))
    elif logged:
        verdict = _by_trainer_loss(logged, trainer_state["eval_loss"])
    elif heldout:
        verdict = _cannot_tell(
            f"Only {losses.shape[1]} held-out rows may choose the checkpoint; {MIN_ROWS} are needed (half of "
            "--eval-rows may choose, the other half only reports): give more rows."
        )
    else:
        verdict = _cannot_tell(
            "No held-out metric: give --data rows that the training did not see, or train with evaluation on. "
            "Interaction signals alone have not earned the right to choose a checkpoint."
        )
    if assumed and verdict["signals"]["metric"] == "heldout_loss":
        verdict["reason"] += " Nothing says that these rows were held out; they are taken to be."
        verdict["confidence"] = {"high": "medium"}.get(verdict["confidence"], verdict["confidence"])
    if diverged:
        listed = ", ".join(map(str, diverged))
        verdict["reason"] += f" The training diverged at step {listed}: left out."
    verdict["stop_step"] = None
    verdict["signals"]["statements"] = list(statements)
    verdict["other_rules"] = _other_rules(heldout, logged, metrics, probed, setting)
    return verdict


def _cannot_tell(reason: str) -> dict[str, Any]:
    return {
        "keep_step": None,
        "decision": "cannot tell",
        "reason": reason,
        "confidence": "low",
        "signals": {"metric": None, "indistinguishable_steps": []},
    }


def _by_trainer_loss(logged: Sequence[tuple[int, float]], everything: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """The best of the probed steps by the loss that the trainer logged."""
    step, loss = min(logged, key=lambda pair: pair[1])
    reason = (
        f"The trainer's own eval_loss is lowest at step {step} ({loss:.3g} nats). It was logged as a mean without "
        "rows, so it has no interval: others may be as good."
    )
    between, lower = min(everything, key=lambda pair: pair[1])
    if lower < loss:
        reason += f" It was lower at step {between} ({lower:.3g}), of which there is no checkpoint."
    return {
        "keep_step": step,
        "decision": "keep",
        "reason": reason,
        "confidence": "low",
        "signals": {"metric": "eval_loss", "indistinguishable_steps": [step]},
    }


def _select_losses(heldout: Mapping[int, pa.Table]) -> tuple[list[int], Floats]:
    """Steps, and losses `(steps, rows)` of the half that may choose; steps that diverged are left out."""
    steps, columns = [], []
    for step, table in sorted(heldout.items()):
        chosen = table.filter(pc.equal(table["half"], "select"))
        losses = dict(zip(chosen["row_id"].to_pylist(), chosen["nll"].to_pylist(), strict=True))
        if np.isfinite(list(losses.values())).all():
            steps.append(step)
            columns.append(losses)
    shared = [row for row in columns[0] if all(row in losses for losses in columns)] if columns else []
    paired = np.array([[losses[row] for row in shared] for losses in columns], dtype=np.float64)
    return steps, paired.reshape(len(steps), len(shared))


def _by_heldout_loss(
    steps: Sequence[int], losses: Floats, metrics: pa.Table, seed: int, *, last: int
) -> dict[str, Any]:
    best = int(losses.mean(1).argmin())
    bootstrap = RowBootstrap(losses.shape[1], seed=seed)
    _, low, _ = bootstrap.ratio((losses - losses[best]).T)  # paired by row
    # equal means tie exactly with the best
    alike = [step for step, bound in zip(steps, low, strict=True) if not bound > 0]
    keep = steps[best]
    rivals = len(alike) - 1
    confidence = "high" if not rivals else "medium" if rivals < MEDIUM_CONFIDENCE_STEPS else "low"
    reason = f"Held-out loss is lowest at step {keep} ({losses[best].mean():.3g} nats over {losses.shape[1]} rows)"
    if rivals:
        others = ", ".join(str(step) for step in alike if step != keep)
        reason += f"; its interval cannot tell step{'s' if rivals > 1 else ''} {others} apart from it."
    else:
        reason += ", and every other step is worse beyond its interval."
    if keep == last:
        reason += " It is the last checkpoint: training longer may still help."
    return {
        "keep_step": keep,
        "decision": "keep",
        "reason": reason,
        "confidence": confidence,
        "signals": {
            "metric": "heldout_loss",
            "indistinguishable_steps": alike,
            "confirm": _confirmation(metrics, keep),
        },
    }


def _confirmation(metrics: pa.Table, step: int) -> dict[str, Any]:
    """Loss and accuracy of the kept step on the rows that did not choose it."""
    result: dict[str, Any] = {"step": step}
    for name in ("loss", "accuracy"):
        found = metrics.filter(
            (pc.field("metric") == f"heldout_{name}") & (pc.field("set") == "confirm") & (pc.field("step") == step)
        ).to_pylist()
        if found:
            result[name] = {key: _finite(found[0][key]) for key in ("value", "low", "high")}
    return result


def _other_rules(
    heldout: Mapping[int, pa.Table],
    logged: Sequence[tuple[int, float]],
    metrics: pa.Table,
    probed: Sequence[int],
    setting: str,
) -> dict[str, dict[str, Any]]:
    """What other rules would have kept, for comparison."""
    rules: dict[str, dict[str, Any]] = {}
    accuracy = {}
    for step, table in sorted(heldout.items()):
        correct = table.filter(pc.equal(table["half"], "select"))["correct"].to_pylist()
        if correct:
            accuracy[step] = sum(correct) / len(correct)
    if accuracy:
        best = max(accuracy, key=lambda step: accuracy[step])
        rules["held-out accuracy"] = {"keep_step": best, "reason": f"highest exact match, {accuracy[best]:.2f}"}
    if logged:
        step, loss = min(logged, key=lambda pair: pair[1])
        rules["trainer's eval_loss"] = {"keep_step": step, "reason": f"lowest of the probed steps, {loss:.3g}"}
    rules["last checkpoint"] = {"keep_step": probed[-1], "reason": "training ended there"}
    for rule in ("relative", "fixed"):
        salient = {
            row["step"]: row["value"]
            for row in metrics.filter(
                (pc.field("metric") == "count")
                & (pc.field("set") == "all")
                & (pc.field("kind") == "both")
                & (pc.field("order") == 0)
                & (pc.field("threshold_rule") == rule)
                & (pc.field("setting") == f"{setting} tau={MAIN_TAU:g}")
                & (pc.field("step") > 0)
            ).to_pylist()
        }
        if salient:
            fewest = min(salient, key=lambda step: salient[step])
            rules[f"end of removal, {rule} tau"] = {
                "keep_step": fewest,
                "reason": "fewest salient interactions: the paper's advice, read literally; shown, not used",
            }
    return rules


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None

"""Which checkpoint to keep.

The rule is plain: where held-out rows were scored, keep the step of lowest loss, and name the steps that cannot be
told apart from it. Interaction signals stand beside it and decide nothing yet: on the first real run, "keep
the last step before new interactions emerge" would have kept an accuracy of 0.06 and thrown 0.47 away.

A finished run is looked at as a whole: a loss that falls again after patience has run out still counts. What each
rule would have done in the training itself is replayed and stands beside it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from whatstuck.dynamics.bootstrap import RowBootstrap
from whatstuck.dynamics.records import Recorder
from whatstuck.stopping.decisions import Rule
from whatstuck.stopping.history import DIFFERENCE, POOLED, TRAINER, History
from whatstuck.stopping.plain import LossPatience
from whatstuck.stopping.replay import LAST_EARLY, default_rules, replay

Floats = npt.NDArray[np.float64]

MEDIUM_CONFIDENCE_STEPS = 3
MIN_ROWS = 8


def record_heldout(tables: Mapping[int, pa.Table], recorder: Recorder, *, seed: int) -> None:
    """Record held-out loss and accuracy per step for each half of the rows, and differences of the losses that choose.

    A difference is paired by row: intervals of single steps are as wide as rows differ from each other, and would
    hide what a comparison of the same rows shows.
    """
    for step, table in tables.items():
        for half in ("select", "confirm"):
            rows = table.filter(pc.equal(table["half"], half))
            bootstrap = RowBootstrap(max(len(rows), 1), seed=seed)
            for metric, column in (("heldout_loss", "nll"), ("heldout_accuracy", "correct")):
                if len(rows):
                    values = rows[column].cast(pa.float64()).to_numpy()[:, None]
                    value, low, high = bootstrap.ratio(values)
                    recorder.add(step, metric, half, (value[0], low[0], high[0]))
    steps, losses = _paired_losses(tables)
    if losses.size:
        bootstrap = RowBootstrap(losses.shape[1], seed=seed)
        for index, step in enumerate(steps[1:], start=1):
            columns = bootstrap.ratio((losses[index] - losses[:index]).T)
            for other, *triple in zip(steps[:index], *columns, strict=True):
                value, low, high = triple
                recorder.add(step, DIFFERENCE, "select", (value, low, high), baseline=f"step {other}")


@dataclass(frozen=True, slots=True)
class Training:
    """What is known of a training beside the metrics of its probes.

    Attributes:
        heldout: Step to its held-out table; empty where only training rows were probed.
        logged: Held-out metrics that the trainer logged: name to (step, value) pairs.
        epochs: Step to epoch, where known.
        saved: Steps of which there is a checkpoint; None: all. The untouched model is always there.
        diverged: Steps that were left out because the training diverged there.
        assumed: Whether the held-out rows are only taken to be held out; that costs confidence.
        chosen: `rule`, `keep_step`, `stop_step` and `reason` of a rule that the user chose for the training; of another
            patience on the same loss `stop_step` alone.
    """

    heldout: Mapping[int, pa.Table]
    logged: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    epochs: Mapping[int, float] = field(default_factory=dict)
    saved: Collection[int] | None = None
    diverged: Sequence[int] = ()
    assumed: bool = False
    chosen: Mapping[str, Any] | None = None

    def can_keep(self, step: int) -> bool:
        """Whether a step may be kept; any may, where nothing was saved at all."""
        return self.saved is None or step == 0 or step in self.saved or not any(self.saved)


def decide(
    training: Training, metrics: pa.Table, statements: Sequence[str], *, setting: str, seed: int
) -> dict[str, Any]:
    """The verdict of a run, as verdict.json holds it.

    Args:
        training: What is known beside the metrics.
        metrics: The run's metrics.
        statements: Sentences about what changed, shown beside the decision.
        setting: The main extraction setting.
        seed: Seed of the bootstrap.
    """
    history = History.from_metrics(metrics, setting, epochs=training.epochs, trainer=training.logged)
    probed = sorted(set(metrics["step"].to_pylist()))
    steps, losses = _paired_losses(training.heldout)
    everything = training.logged.get("eval_loss", ())
    logged = [(step, loss) for step, loss in everything if step in probed and training.can_keep(step)]
    rule: Rule | None = None
    if len(probed) == 1:
        verdict = _cannot_tell(f"Only step {probed[0]} was scored: there is nothing to choose from.")
    elif losses.shape[1] >= MIN_ROWS:
        rule = LossPatience(after=LAST_EARLY)
        verdict = _by_heldout_loss(training, steps, losses, metrics, seed, last=max([*probed, *training.diverged]))
    elif logged:
        rule = LossPatience("eval_loss", TRAINER, after=LAST_EARLY)
        verdict = _by_trainer_loss(logged, everything)
    elif training.heldout:
        verdict = _cannot_tell(
            f"Only {losses.shape[1]} held-out rows may choose the checkpoint; {MIN_ROWS} are needed (half of "
            "--eval-rows may choose, the other half only reports): give more rows."
        )
    else:
        verdict = _cannot_tell(
            "No held-out metric: give --data rows that the training did not see, or train with evaluation on. "
            "Interaction signals alone have not earned the right to choose a checkpoint."
        )
    if training.assumed and verdict["signals"]["metric"] == "heldout_loss":
        verdict["reason"] += " Nothing says that these rows were held out; they are taken to be."
        verdict["confidence"] = {"high": "medium"}.get(verdict["confidence"], verdict["confidence"])
    verdict["stop_step"] = None
    if rule is not None:
        verdict["stop_step"], sentence = _stop(rule, history)
        verdict["reason"] += sentence
    if training.chosen is not None:
        verdict |= training.chosen
        if "keep_step" in training.chosen:
            verdict["decision"] = "cannot tell" if verdict["keep_step"] is None else "keep"
            verdict["confidence"] = "low"  # no study says how good a rule of the user's own is
    if training.diverged:
        listed = ", ".join(map(str, training.diverged))
        verdict["reason"] += f" The training diverged at step {listed}: left out."
    verdict["signals"]["statements"] = list(statements)
    verdict["other_rules"] = _other_rules(history, training)
    return verdict


def _stop(rule: Rule, history: History) -> tuple[int | None, str]:
    """The step at which a rule stops for good, and a sentence if it would have stopped too early before."""
    best = rule(history).keep_step
    early = replay(rule, history)
    if best is None or early.stop_step is None:
        return None, ""
    if early.stop_step > best:
        return early.stop_step, ""
    later = (step for step in history.steps if step > best and rule(history.until(step)).action == "stop")
    return next(later, None), (
        f' In the training itself "{rule.name}" would have stopped at step {early.stop_step} and kept step '
        f"{early.keep_step}; the loss fell again after that."
    )


def _cannot_tell(reason: str) -> dict[str, Any]:
    return {
        "keep_step": None,
        "rule": None,
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
        "rule": "trainer's eval_loss",
        "decision": "keep",
        "reason": reason,
        "confidence": "low",
        "signals": {"metric": "eval_loss", "indistinguishable_steps": [step]},
    }


def _paired_losses(heldout: Mapping[int, pa.Table]) -> tuple[list[int], Floats]:
    """Steps, and losses `(steps, rows)` of the half that may choose, on rows known at all; no steps that diverged."""
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
    training: Training, steps: Sequence[int], losses: Floats, metrics: pa.Table, seed: int, *, last: int
) -> dict[str, Any]:
    means = losses.mean(1)
    kept = [index for index, step in enumerate(steps) if training.can_keep(step)]
    best, lowest = min(kept, key=lambda index: means[index]), int(means.argmin())
    bootstrap = RowBootstrap(losses.shape[1], seed=seed)
    _, low, high = bootstrap.ratio((losses - losses[best]).T)  # paired by row
    # equal means tie exactly with the best
    alike = [steps[index] for index in kept if not low[index] > 0]
    keep = steps[best]
    rivals = len(alike) - 1
    confidence = "high" if not rivals else "medium" if rivals < MEDIUM_CONFIDENCE_STEPS else "low"
    which = "Held-out loss" if lowest == best else "Of the steps that were saved, held-out loss"
    reason = f"{which} is lowest at step {keep} ({means[best]:.3g} nats over {losses.shape[1]} rows)"
    if rivals:
        others = ", ".join(str(step) for step in alike if step != keep)
        reason += f"; its interval cannot tell step{'s' if rivals > 1 else ''} {others} apart from it."
    else:
        reason += (
            f", and every other {'step' if len(kept) == len(steps) else 'checkpoint'} is worse beyond its interval."
        )
    if lowest != best:
        sure = "beyond its interval" if high[lowest] < 0 else "within its interval"
        reason += f" Step {steps[lowest]} was better ({means[lowest]:.3g}, {sure}), but no checkpoint of it was saved."
    if keep == last:
        reason += " It is the last checkpoint: training longer may still help."
    return {
        "keep_step": keep,
        "rule": "held-out loss",
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


def _other_rules(history: History, training: Training) -> dict[str, dict[str, Any]]:
    """What each rule would have done in the training itself; rules without anything to go by are left out."""
    rules: dict[str, dict[str, Any]] = {}
    for rule in default_rules(baselines=bool(history.series("gamma", "emerged", POOLED))):
        would = replay(rule, history)
        if would.keep_step is not None:
            unsaved = "" if training.can_keep(would.keep_step) else " No checkpoint of it was saved."
            rules[rule.name] = {
                "keep_step": would.keep_step,
                "stop_step": would.stop_step,
                "reason": would.reason + unsaved,
                "kind": rule.kind,
            }
    return rules


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None

"""Which checkpoint to keep.

The rule is plain: where held-out rows were scored, keep the step of lowest loss, and name the steps that cannot be
told apart from it. Interaction signals stand beside it and decide nothing yet: on the first real run, "keep
the last step before new interactions emerge" would have kept an accuracy of 0.06 and thrown 0.47 away.

A finished run is looked at as a whole: a loss that falls again after patience has run out still counts. What each
rule would have done in the training itself is replayed and stands beside it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from whatstuck.dynamics.bootstrap import RowBootstrap
from whatstuck.dynamics.circumstances import TRAINERS_RULE, Training, qualify
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
    record_differences(tables, recorder, seed=seed)


def record_differences(tables: Mapping[int, pa.Table], recorder: Recorder, *, seed: int, of: int | None = None) -> None:
    """Record the loss of a step less that of each earlier one, paired by row, on the rows that choose.

    Args:
        tables: Step to its held-out table.
        recorder: Where the differences go.
        seed: Seed of the bootstrap.
        of: The step; None: every one.
    """
    steps, losses = _paired_losses(tables, "select")
    if not losses.size:
        return
    bootstrap = RowBootstrap(losses.shape[1], seed=seed)
    for index, step in enumerate(steps):
        if index and of in (None, step):
            columns = bootstrap.ratio((losses[index] - losses[:index]).T)
            for other, value, low, high in zip(steps[:index], *columns, strict=True):
                recorder.add(step, DIFFERENCE, "select", (value, low, high), baseline=f"step {other}")


def record_cost(tables: Mapping[int, pa.Table], keep: int, recorder: Recorder, *, seed: int) -> None:
    """Record how much more loss each step has than the kept one, paired by row, on the rows that chose nothing.

    Only differences to the kept step: it was chosen by other rows, so these do not flatter it.
    """
    steps, losses = _paired_losses(tables, "confirm")
    if keep in steps and losses.size:
        columns = RowBootstrap(losses.shape[1], seed=seed).ratio((losses - losses[steps.index(keep)]).T)
        for step, value, low, high in zip(steps, *columns, strict=True):
            if step != keep:
                recorder.add(step, DIFFERENCE, "confirm", (value, low, high), baseline=f"step {keep}")


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
    steps, losses = _paired_losses(training.heldout, "select")
    logged = [
        (step, loss)
        for step, loss in training.logged.get("eval_loss", ())
        if step in probed and training.can_keep(step)
    ]
    chosen = training.chosen
    rule: Rule | None = None
    if len(probed) == 1:
        verdict = _cannot_tell(f"Only step {probed[0]} was scored: there is nothing to choose from.")
    elif chosen is not None and not chosen["same_loss"]:
        verdict = _by_chosen_rule(chosen, metrics)
    elif losses.shape[1] >= MIN_ROWS:
        rule = LossPatience(after=LAST_EARLY)
        verdict = _by_heldout_loss(training, steps, losses, metrics, seed, last=max([*probed, *training.diverged]))
    elif logged:
        rule = LossPatience("eval_loss", TRAINER, after=LAST_EARLY)
        verdict = _by_trainer_loss(training, logged)
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
    stop, early, sentence = _stop(verdict["keep_step"], rule, chosen, history)
    verdict["stop_step"], verdict["signals"]["early_stop"] = stop, early
    verdict["reason"] += sentence
    qualify(verdict, training)
    verdict["signals"]["statements"] = list(statements)
    verdict["other_rules"] = _other_rules(history, training)
    return verdict


def _stop(
    keep: int | None, rule: Rule | None, chosen: Mapping[str, Any] | None, history: History
) -> tuple[int | None, int | None, str]:
    """Where the deciding rule stops, where it would have stopped too early, and a sentence about the latter.

    A training that went on may have got better: a stop before the step that is kept (or the better one of which there
    is no checkpoint) is none that anyone should have made.
    """
    if keep is None:
        return None, None, ""
    best = rule(history).keep_step if rule is not None else None
    needed = keep if best is None else max(best, keep)
    name, first, later = "", None, None
    if chosen is not None:
        name, first = chosen["rule"], chosen["stop_step"]
    elif rule is not None:
        name, first = rule.name, replay(rule, history).stop_step
        stops = (step for step in history.steps if step >= needed and rule(history.until(step)).action == "stop")
        later = next(stops, None)
    if first is None or first >= needed:
        return first, None, ""
    sentence = f' In the training itself "{name}" would have stopped at step {first}, before step {needed} was reached.'
    return later, first, sentence


def _cannot_tell(reason: str) -> dict[str, Any]:
    return {
        "keep_step": None,
        "rule": None,
        "decision": "cannot tell",
        "reason": reason,
        "confidence": "low",
        "signals": {"metric": None, "indistinguishable_steps": []},
    }


def _by_chosen_rule(chosen: Mapping[str, Any], metrics: pa.Table) -> dict[str, Any]:
    """What a rule of the user's own says. No study says how good it is, and the numbers behind the loss are not its."""
    verdict = _cannot_tell(chosen["reason"]) | {"rule": chosen["rule"]}
    keep = chosen["keep_step"]
    if keep is not None:
        verdict |= {"keep_step": keep, "decision": "keep"}
        verdict["signals"]["confirm"] = _confirmation(metrics, keep)
    return verdict


def _by_trainer_loss(training: Training, logged: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """The best of the probed steps by the loss that the trainer logged."""
    step, loss = min(logged, key=lambda pair: pair[1])
    reason = (
        f"The trainer's own eval_loss is lowest at step {step} ({loss:.3g} nats). It was logged as a mean without "
        "rows, so it has no interval: others may be as good."
    )
    between, lower = min(training.logged["eval_loss"], key=lambda pair: pair[1])
    if lower < loss:
        reason += f" It was lower at step {between} ({lower:.3g}), but {training.missing(between)}."
    return {
        "keep_step": step,
        "rule": TRAINERS_RULE,
        "decision": "keep",
        "reason": reason,
        "confidence": "low",
        "signals": {"metric": "eval_loss", "indistinguishable_steps": [step]},
    }


def _paired_losses(heldout: Mapping[int, pa.Table], half: str) -> tuple[list[int], Floats]:
    """Steps, and losses `(steps, rows)` of a half, on rows known at all; no steps that diverged."""
    steps, columns = [], []
    for step, table in sorted(heldout.items()):
        rows = table.filter(pc.equal(table["half"], half))
        losses = dict(zip(rows["row_id"].to_pylist(), rows["nll"].to_pylist(), strict=True))
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
    left = "checkpoints that are left" if training.gone else "steps that were saved"
    which = "Held-out loss" if lowest == best else f"Of the {left}, held-out loss"
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
        reason += (
            f" Step {steps[lowest]} was better ({means[lowest]:.3g}, {sure}), but {training.missing(steps[lowest])}."
        )
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
            missing = training.missing(would.keep_step)
            unsaved = "" if training.can_keep(would.keep_step) else f" {missing[0].upper()}{missing[1:]}."
            rules[rule.name] = {
                "keep_step": would.keep_step,
                "stop_step": would.stop_step,
                "reason": would.reason + unsaved,
                "kind": rule.kind,
            }
    return rules


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None

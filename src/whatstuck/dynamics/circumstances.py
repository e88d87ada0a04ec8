"""What is known of a training beside the metrics of its probes, and what of it weakens the verdict.

The decision is taken in `verdict`; here stands what a reader must be told about it. Nothing here reads a file.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

TRAINERS_RULE = "trainer's eval_loss"


@dataclass(frozen=True, slots=True)
class Training:
    """What is known of a training beside the metrics of its probes.

    Attributes:
        heldout: Step to its held-out table; empty where only training rows were probed.
        logged: Held-out metrics that the trainer logged: name to (step, value) pairs.
        epochs: Step to epoch, where known.
        saved: Steps of which there is a checkpoint; None: all. The untouched model is always there.
        gone: Steps that were saved once and whose checkpoint is no longer there.
        diverged: Steps that were left out because the training diverged there.
        assumed: Whether the held-out rows are only taken to be held out; that costs confidence.
        trained_on: Number of scored rows that were found among the training rows.
        chosen: `rule`, `keep_step`, `stop_step` (where it stopped first, or would have) and `reason` of a rule that the
            user chose for the training; with `same_loss` it is another patience on the loss that decides anyway, so
            only its stop counts.
        unasked: Name of a rule that was chosen, and never asked in the end since the training was killed.
    """

    heldout: Mapping[int, pa.Table]
    logged: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    epochs: Mapping[int, float] = field(default_factory=dict)
    saved: Collection[int] | None = None
    gone: Collection[int] = ()
    diverged: Sequence[int] = ()
    assumed: bool = False
    trained_on: int = 0
    chosen: Mapping[str, Any] | None = None
    unasked: str | None = None

    def can_keep(self, step: int) -> bool:
        """Whether a step may be kept; any may, where there is no checkpoint at all."""
        return self.saved is None or step == 0 or step in self.saved or not any(self.saved)

    def missing(self, step: int) -> str:
        """Why a step cannot be kept."""
        return "its checkpoint is gone" if step in self.gone else "no checkpoint of it was saved"


def qualify(verdict: dict[str, Any], training: Training) -> None:
    """Say what weakens a verdict, and lower its confidence where it does."""
    if training.assumed and training.heldout and verdict["rule"] not in (None, TRAINERS_RULE):
        verdict["reason"] += " Nothing says that the scored rows were held out; they are taken to be."
        verdict["confidence"] = {"high": "medium"}.get(verdict["confidence"], verdict["confidence"])
    if training.trained_on and training.heldout:
        were = "was" if training.trained_on == 1 else "were"
        verdict["reason"] += (
            f" {training.trained_on} of the held-out rows {were} trained on, which flatters late steps."
        )
        verdict["confidence"] = "low"
    if verdict["keep_step"] in training.gone:
        verdict["reason"] += f" The checkpoint of step {verdict['keep_step']} is gone."
    if training.unasked is not None:
        instead = f": {verdict['rule']} decides instead" if verdict["rule"] else ""
        verdict["reason"] += (
            f' The training was killed before the decision of its rule, "{training.unasked}", was computed{instead}.'
        )
    if training.diverged:
        listed = ", ".join(map(str, training.diverged))
        verdict["reason"] += f" The training diverged at step {listed}: left out."

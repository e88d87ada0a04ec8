"""The rules that everyone knows: patience on a held-out metric, fixed epochs, the last checkpoint, and an oracle.

Ours have to beat them. Each counts in probes, since a training is probed on a schedule of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from whatstuck.stopping.decisions import Decision, Kind
from whatstuck.stopping.history import TRAINER, History, Signal


@dataclass(frozen=True, slots=True)
class LossPatience:
    """Stop after `patience` successive probes whose loss is not lower than the best so far by more than `min_delta`.

    As transformers' EarlyStoppingCallback does; but the best step is the one of lowest loss, however small the gain.
    Where no held-out rows were scored it looks at the trainer's own `eval_loss`, at the steps that were probed.

    Args:
        metric: `heldout_loss`, or a metric that the trainer logged, with the set `trainer`.
        subset: `select`, the rows that may choose.
        patience: Probes.
        min_delta: Nats.
        after: Only probes after this step count. A training is probed densely at first, and during warmup no loss
            falls: three probes without a gain may be the steps 1, 2 and 4.
    """

    metric: str = "heldout_loss"
    subset: str = "select"
    patience: int = 3
    min_delta: float = 0.0
    after: int = 0

    @property
    def name(self) -> str:
        """Short, for tables."""
        measured = "trainer's eval_loss" if self.subset == TRAINER else "held-out loss"
        return f"{measured}, patience {self.patience}"

    @property
    def kind(self) -> Kind:
        """Rests on held-out rows."""
        return "evaluation loss"

    def __call__(self, history: History) -> Decision:
        """Decide at the last step of the history."""
        values, words = self.losses(history)
        return _patience(history, values, words, patience=self.patience, min_delta=self.min_delta, after=self.after)

    def losses(self, history: History) -> tuple[dict[int, Signal], str]:
        """The losses that are looked at, by step, and what to call them."""
        values = history.series(self.metric, self.subset)
        if values and self.subset != TRAINER:
            return values, "Held-out loss"
        return history.series("eval_loss", TRAINER), "The trainer's eval_loss"


@dataclass(frozen=True, slots=True)
class AccuracyPatience:
    """Stop after `patience` successive probes whose exact match is not above the best so far.

    Args:
        subset: `select`, the rows that may choose.
        patience: Probes.
        after: Only probes after this step count.
    """

    subset: str = "select"
    patience: int = 3
    after: int = 0

    @property
    def name(self) -> str:
        """Short, for tables."""
        return f"held-out accuracy, patience {self.patience}"

    @property
    def kind(self) -> Kind:
        """Rests on held-out rows."""
        return "evaluation loss"

    def __call__(self, history: History) -> Decision:
        """Decide at the last step of the history."""
        values = history.series("heldout_accuracy", self.subset)
        return _patience(history, values, "Held-out accuracy", patience=self.patience, after=self.after, sign=1)


@dataclass(frozen=True, slots=True)
class EndOfRemoval:
    """The advice of arXiv 2605.17967, read literally: keep the fewest salient interactions, before others emerge.

    Args:
        threshold: Threshold rule of salience; the two disagree by much, see docs/run-folder.md.
        patience: Probes.
    """

    threshold: Literal["relative", "fixed"]
    patience: int = 3

    @property
    def name(self) -> str:
        """Short, for tables."""
        return f"end of removal, {self.threshold} tau"

    @property
    def kind(self) -> Kind:
        """A plain count, without interval and null."""
        return "plain"

    def __call__(self, history: History) -> Decision:
        """Decide at the last step of the history."""
        counts = history.series("count", "all", threshold=self.threshold)
        counts.pop(0, None)  # nothing is removed yet
        return _patience(history, counts, "The number of salient interactions", patience=self.patience)


@dataclass(frozen=True, slots=True)
class FixedEpochs:
    """Stop at the first probe at or after so many epochs.

    Args:
        epochs: Passes over the training rows.
    """

    epochs: float

    @property
    def name(self) -> str:
        """Short, for tables."""
        return f"{self.epochs:g} epoch{'' if self.epochs == 1 else 's'}"

    @property
    def kind(self) -> Kind:
        """Looks at nothing."""
        return "plain"

    def __call__(self, history: History) -> Decision:
        """Decide at the last step of the history."""
        steps = [step for step in history.steps if step in history.epochs]
        if not steps:
            return Decision("continue", None, "The epoch of no step is known.")
        reached = [step for step in steps if history.epochs[step] >= self.epochs]
        if reached:
            step = reached[0]
            return Decision("stop", step, f"Step {step} is the first probe after {self.name} of training.")
        last = steps[-1]
        return Decision("keep", last, f"Step {last} is at epoch {history.epochs[last]:.2f}, before {self.name}.")


@dataclass(frozen=True, slots=True)
class LastCheckpoint:
    """Train to the end and keep what comes out."""

    @property
    def name(self) -> str:
        """Short, for tables."""
        return "last checkpoint"

    @property
    def kind(self) -> Kind:
        """Looks at nothing."""
        return "plain"

    def __call__(self, history: History) -> Decision:
        """Decide at the last step of the history."""
        if not history.steps:
            return Decision("continue", None, "Nothing was probed.")
        return Decision("keep", history.steps[-1], "It is the latest checkpoint.")


@dataclass(frozen=True, slots=True)
class Oracle:
    """The best step by rows that never choose. No rule for a training: it shows how much there was to win.

    Args:
        metric: `heldout_accuracy` or `heldout_loss`.
        subset: `confirm`, the rows that only report.
    """

    metric: Literal["heldout_accuracy", "heldout_loss"] = "heldout_accuracy"
    subset: str = "confirm"

    @property
    def name(self) -> str:
        """Short, for tables."""
        return f"oracle, {'accuracy' if self.metric == 'heldout_accuracy' else 'loss'}"

    @property
    def kind(self) -> Kind:
        """Not usable while training."""
        return "hindsight"

    def __call__(self, history: History) -> Decision:
        """Decide at the last step of the history."""
        accuracy = self.metric == "heldout_accuracy"
        words = f"On the rows that never choose, {'accuracy' if accuracy else 'loss'}"
        values = history.series(self.metric, self.subset)
        return _patience(history, values, words, patience=None, sign=1 if accuracy else -1)


def _patience(
    history: History,
    values: Mapping[int, Signal],
    words: str,
    *,
    patience: int | None,
    min_delta: float = 0.0,
    after: int = 0,
    sign: int = -1,
) -> Decision:
    """Patience on plain values; of equal ones the earliest is the best."""
    if not values:
        return Decision("continue", None, f"{words} was not measured.")
    best, waited = next(iter(values)), 0
    for step, signal in values.items():
        gain = sign * (signal.value - values[best].value)
        waited = 0 if gain > min_delta or step == best or step <= after else waited + 1
        if gain > 0:
            best = step
    extreme = "lowest" if sign < 0 else "highest"
    reason = f"{words} is {extreme} at step {best} ({values[best].value:.3g})"
    present = history.steps[-1]
    if present not in values:
        return Decision("continue", best, f"{reason}; at step {present} it was not measured.")
    if patience is not None and waited >= patience:
        probes = f"{waited} probe{'' if waited == 1 else 's'}"
        return Decision("stop", best, f"{reason} and has not improved for {probes} since.")
    return Decision("keep" if best == present else "continue", best, f"{reason} so far.")

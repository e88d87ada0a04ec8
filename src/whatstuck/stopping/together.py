"""Held-out loss first, an interaction signal where loss cannot tell.

Loss is flat around its best, so its lowest value is partly luck. Among the steps that it cannot tell apart the signal
chooses; and where loss stands still the signal may stop the training before patience on the loss does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from whatstuck.stopping.decisions import Decision, Kind
from whatstuck.stopping.history import DIFFERENCE, History, Signal
from whatstuck.stopping.plain import LossPatience
from whatstuck.stopping.signals import SignalRule


@dataclass(frozen=True, slots=True)
class Together:
    """Keep the best signal among the steps whose loss cannot be told apart from the lowest.

    Stops when the loss rule stops; or when the loss stands still (the present one cannot be told apart from that of
    the step to keep) and the signal rule stops. Differences of loss are paired by row where the run has them; else a
    step is apart if its whole interval lies above the lowest loss. Losses without intervals are always apart.

    Args:
        loss: The rule on the loss.
        signal: The rule on the signal. Where that is not known, the loss rule decides alone.
    """

    loss: LossPatience
    signal: SignalRule

    @property
    def name(self) -> str:
        """Short, for tables."""
        return f"held-out loss, ties by {self.signal.name}"

    @property
    def kind(self) -> Kind:
        """Rests on interactions, too."""
        return "ours"

    def __call__(self, history: History) -> Decision:
        """Decide at the last step of the history."""
        by_loss = self.loss(history)
        if by_loss.keep_step is None:
            return by_loss
        losses, measured = self.loss.losses(history)
        alike = _alike(history, losses, by_loss.keep_step, self.loss.subset)
        signals = {step: signal for step, signal in self.signal.signal(history).items() if step in alike}
        words = _lower(self.signal.words)
        if not signals:
            return replace(by_loss, reason=f"{by_loss.reason[:-1]}; {words} is not known there.")
        keep = self.signal.best_of(signals)
        present = history.steps[-1]
        reason = by_loss.reason
        if len(alike) > 1:
            listed = ", ".join(map(str, alike))
            waited = f" and has not improved for {self.loss.patience} probes" if by_loss.action == "stop" else ""
            reason = f"{measured} cannot tell steps {listed} apart{waited}; of these, {words} is best at step {keep}."
        if by_loss.action == "stop":
            return Decision("stop", keep, reason)
        still = present in alike and present != keep
        if still and self.signal(history).action == "stop":
            return Decision("stop", keep, f"{reason[:-1]}, and it has stopped getting better.")
        return Decision("keep" if keep == present else "continue", keep, reason)


def _alike(history: History, losses: Mapping[int, Signal], best: int, subset: str) -> list[int]:
    """Steps whose loss cannot be told apart from the best one."""
    after = history.series(DIFFERENCE, subset, f"step {best}")
    alike = []
    for step, loss in losses.items():
        if step in after:
            least = after[step].low
        elif best in (before := history.series(DIFFERENCE, subset, f"step {step}")):
            least = -before[best].high
        else:
            least = loss.low - losses[best].value
        if step == best or least <= 0:
            alike.append(step)
    return alike


def _lower(words: str) -> str:
    return words[0].lower() + words[1:]

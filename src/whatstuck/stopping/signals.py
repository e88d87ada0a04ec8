"""Stop rules on interaction signals, without a threshold: each an excess over what chance gives.

A signal wobbles, so two things keep a rule calm. Hysteresis: a signal becomes worse only when its whole interval lies
beyond the best value so far, and stays worse until its value is back within the interval of that best. Patience: only
so many successive worse probes stop the training.

The intervals are those of single steps, not of differences, so a rule is slower than paired ones would be. And the
best of many probes looks better than it is. Both are the same for every rule here.

Step 0 is never judged: nothing has emerged yet.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from whatstuck.dynamics.gamma import POOLED
from whatstuck.stopping.decisions import Decision, Kind
from whatstuck.stopping.history import History, Signal


@dataclass(frozen=True, slots=True)
class SignalRule:
    """Patience with hysteresis on one signal.

    Args:
        name: Short, for tables.
        words: The signal in words; they begin a sentence.
        metric: Name of the metric.
        subset: Name of the set.
        null: The null whose mean is taken off.
        baseline: The other model, where the metric has one.
        direction: +1 if a higher signal is better, -1 if a lower one is.
        until: `worse`: stop when the signal has got worse. `settled`: stop when it no longer gets better, where
            better means beyond the interval of the best; keep the step where it came to rest.
        patience: Probes.
        after: Only probes after this step count as worse or settled.
    """

    name: str
    words: str
    metric: str
    subset: str = "emerged"
    null: str | None = None
    baseline: str = ""
    direction: Literal[1, -1] = 1
    until: Literal["worse", "settled"] = "worse"
    patience: int = 3
    after: int = 0

    @property
    def kind(self) -> Kind:
        """Rests on interactions."""
        return "ours"

    def signal(self, history: History) -> dict[int, Signal]:
        """The excess over the null by step, without step 0."""
        found = history.series(self.metric, self.subset, self.baseline, null=self.null)
        excess = {step: signal.excess() for step, signal in found.items() if step > 0}
        return {step: signal for step, signal in excess.items() if math.isfinite(signal.value)}

    def best_of(self, signals: Mapping[int, Signal]) -> int:
        """The step with the best signal, the earliest of equal ones."""
        return max(signals, key=lambda step: self.direction * signals[step].value)

    def __call__(self, history: History) -> Decision:
        """Decide at the last step of the history."""
        signals = self.signal(history)
        if not signals:
            return Decision("continue", None, self._why_nothing(history))
        best, waited = self._walk({step: _turned(signal, self.direction) for step, signal in signals.items()})
        reason = f"{self.words} is best at step {best} ({signals[best].value:.3g})"
        present = history.steps[-1]
        if present not in signals:
            return Decision("continue", best, f"{reason}; at step {present} it is not known.")
        if waited < self.patience:
            return Decision("keep" if best == present else "continue", best, f"{reason} so far.")
        now = signals[present]
        shown = f"{now.value:.3g}, interval {now.low:.3g} to {now.high:.3g}, at step {present}"
        probes = f"{waited} probe{'' if waited == 1 else 's'}"
        if self.until == "worse":
            return Decision("stop", best, f"{reason} and has been worse beyond its interval for {probes} ({shown}).")
        reason = f"{self.words} came to rest at step {best} ({signals[best].value:.3g})"
        return Decision("stop", best, f"{reason}: not better beyond its interval for {probes} ({shown}).")

    def _walk(self, signals: Mapping[int, Signal]) -> tuple[int, int]:
        """The best step, and for how many successive probes the signal has been worse (or no better) than there.

        Comparisons with an unknown interval end (NaN) are false; they are put so that nothing stops for it.
        """
        best, waited = next(iter(signals)), 0
        for step, now in signals.items():
            then = signals[best]
            if step == best:
                continue
            if self.until == "settled":
                rests = now.value <= then.high
                best, waited = (best, waited + (step > self.after)) if rests else (step, 0)
            elif now.value > then.value:
                best, waited = step, 0
            elif step <= self.after:
                continue
            elif waited:
                waited = waited + 1 if now.value < then.low else 0
            elif now.high < then.value:
                waited = 1
        return best, waited

    def _why_nothing(self, history: History) -> str:
        if not any(history.steps):
            return f"{self.words} is first known at the first probe after step 0."
        if self.baseline:
            return f"{self.words} needs a baseline model, and there is none."
        return f"{self.words} is not known at any step."


def rho_of_emerged(patience: int = 3) -> SignalRule:
    """Rho of the emerged mass above random signs; higher is better.

    What is learned pulls one way; noise cancels (arXiv 2605.17967, Eq. 10). Random signs alone give a rho that falls
    with the number of interactions, so the null is taken off.
    """
    words = "Rho of the emerged mass above random signs"
    return SignalRule("rho of the emerged", words, "rho", null="sign_flip", patience=patience)


def gamma_of_emerged(patience: int = 3, baseline: str = POOLED) -> SignalRule:
    """Gamma of the emerged mass against other models, above shuffled ones; higher is better.

    What other models infer as well is likely to generalize (arXiv 2605.17967, Eq. 9). Low orders agree by chance more
    often than high ones, so the null shuffles within each order.
    """
    words = "Gamma of the emerged mass above shuffled models"
    return SignalRule(
        "gamma of the emerged", words, "gamma", null="order_stratified", baseline=baseline, patience=patience
    )


def emerged_mass(patience: int = 3, direction: Literal[1, -1] = -1) -> SignalRule:
    """Emerged mass less what would have emerged from another row's base; by default lower is better.

    Both hold all of the present mass, so their difference is the mass that was preserved for any row, less the mass
    that was preserved for this very row: it is below zero while the model still infers on a row as it did before, and
    goes to zero as it forgets that. It says nothing of how good the new interactions are. Lower means: learned the
    same and forgot less. Alone that would always keep the first probe, so it serves to break ties.
    """
    return SignalRule(
        "emerged mass", _MASS, "mass_excess", null="mismatched_row", direction=direction, patience=patience
    )


def emerged_mass_settled(patience: int = 3) -> SignalRule:
    """The same signal read as the paper's denoising: go on while the old way fades, stop when it no longer does.

    It rises towards zero as the model lets go of how it inferred; the step where it comes to rest is kept.
    """
    return SignalRule(
        "emerged mass, settled", _MASS, "mass_excess", null="mismatched_row", until="settled", patience=patience
    )


_MASS = "Emerged mass less that against another row's base"


def _turned(signal: Signal, direction: int) -> Signal:
    """The same with higher as better."""
    return signal if direction > 0 else Signal(-signal.value, -signal.high, -signal.low)

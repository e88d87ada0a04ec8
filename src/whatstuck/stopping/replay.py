"""What a rule would have done: a finished history fed to it step by step."""

from collections.abc import Sequence
from dataclasses import replace

from whatstuck.stopping.decisions import Decision, Replayed, Rule
from whatstuck.stopping.history import TRAINER, History
from whatstuck.stopping.plain import AccuracyPatience, EndOfRemoval, FixedEpochs, LastCheckpoint, LossPatience, Oracle
from whatstuck.stopping.signals import emerged_mass, emerged_mass_settled, gamma_of_emerged, rho_of_emerged
from whatstuck.stopping.together import Together

LAST_EARLY = 16
"""Up to here a training is probed at 0, 1, 2, 4, 8, ...: enough to see what happens, too dense to count in probes."""


def replay(rule: Rule, history: History) -> Replayed:
    """Feed the probed steps one after the other, until the rule stops or they end.

    Args:
        rule: The rule.
        history: What is known; the rule never sees more than the steps up to the one it decides at.
    """
    decision = Decision("continue", None, "Nothing was probed.")
    for step in history.steps:
        decision = rule(history.until(step))
        if decision.action == "stop":
            return Replayed(decision.keep_step, step, decision.reason)
    return Replayed(decision.keep_step, None, decision.reason)


def default_rules(
    *, patience: int = 3, after: int = LAST_EARLY, baselines: bool = True, epochs: Sequence[float] = (1, 3)
) -> list[Rule]:
    """The rules that are shown; the first one decides.

    Held-out loss decides: interaction signals have not earned that yet.

    Args:
        patience: Probes that a rule waits.
        after: Probes up to this step do not count: these are so dense that patience would run out during warmup.
        baselines: Whether there are other models; without them the rules on gamma have nothing to say.
        epochs: Of the rules that stop after so many epochs.
    """
    loss = LossPatience(patience=patience, after=after)
    rho = replace(rho_of_emerged(patience), after=after)
    gamma = [replace(gamma_of_emerged(patience), after=after)] if baselines else []
    return [
        loss,
        LossPatience("eval_loss", TRAINER, patience, after=after),
        AccuracyPatience(patience=patience, after=after),
        rho,
        *gamma,
        replace(emerged_mass_settled(patience), after=after),
        Together(loss, rho),
        *(Together(loss, signal) for signal in gamma),
        Together(loss, replace(emerged_mass(patience), after=after)),
        *(FixedEpochs(number) for number in epochs),
        LastCheckpoint(),
        EndOfRemoval("relative", patience),
        EndOfRemoval("fixed", patience),
        Oracle("heldout_loss"),
        Oracle("heldout_accuracy"),
    ]

"""When to stop, and which checkpoint to keep: rules that read the metrics of a run, live or afterwards."""

from whatstuck.stopping.decisions import Decision, Kind, Replayed, Rule
from whatstuck.stopping.history import History, Signal
from whatstuck.stopping.plain import (
    AccuracyPatience,
    EndOfRemoval,
    FixedEpochs,
    LastCheckpoint,
    LossPatience,
    Oracle,
)
from whatstuck.stopping.replay import default_rules, replay
from whatstuck.stopping.signals import SignalRule, emerged_mass, emerged_mass_settled, gamma_of_emerged, rho_of_emerged
from whatstuck.stopping.together import Together

__all__ = [
    "AccuracyPatience",
    "Decision",
    "EndOfRemoval",
    "FixedEpochs",
    "History",
    "Kind",
    "LastCheckpoint",
    "LossPatience",
    "Oracle",
    "Replayed",
    "Rule",
    "Signal",
    "SignalRule",
    "Together",
    "default_rules",
    "emerged_mass",
    "emerged_mass_settled",
    "gamma_of_emerged",
    "replay",
    "rho_of_emerged",
]

"""From the parts of a live run to what rules read: the threshold-free signals of each step, and names for a tracker.

The full statistics are made once, at the end. A probe needs only these, so that it stays cheap; they are the same
numbers.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from whatstuck.dynamics.explaining import ValueTables
from whatstuck.dynamics.metrics import Metrics, Probe
from whatstuck.dynamics.probing import read_probe
from whatstuck.dynamics.records import Recorder
from whatstuck.dynamics.verdict import MIN_ROWS, record_differences, record_heldout
from whatstuck.errors import WhatStuckError
from whatstuck.models.checkpoints import OURS
from whatstuck.runs import read_table
from whatstuck.stopping.history import POOLED, History

_LOGGED = (
    ("heldout_loss", "heldout_loss", "select", ""),
    ("heldout_accuracy", "heldout_accuracy", "select", ""),
    ("rho_emerged", "rho", "emerged", ""),
    ("rho_all", "rho", "all", ""),
    ("mass_emerged", "mass", "emerged", ""),
    ("mass_removed", "mass", "removed", ""),
    ("mass_preserved", "mass", "preserved", ""),
    ("gamma_emerged", "gamma", "emerged", POOLED),
    ("gamma_preserved", "gamma", "preserved", POOLED),
)


class Signals:
    """The signals of a training, step by step.

    Args:
        model: Its short name.
        setting: The extraction setting.
        row_ids: Ids of the probed rows.
        players: Words per row.
        seed: Seed of bootstrap and nulls.
        one_token: Whether v are the log-odds of one token.
    """

    def __init__(
        self, model: str, setting: str, row_ids: Sequence[str], players: int, *, seed: int, one_token: bool
    ) -> None:
        self._model = model
        self._setting = setting
        self._row_ids = row_ids
        self._players = players
        self._seed = seed
        self._one_token = one_token
        self._first: Probe | None = None
        self._baselines: dict[str, Probe] = {}
        self._heldout: dict[int, pa.Table] = {}
        self._tables: dict[int, pa.Table] = {}

    def add_baseline(self, name: str, values: Path, interactions: Path) -> None:
        """Another model, to share interactions with."""
        self._baselines[name] = self._read(values, interactions)

    def add(self, step: int, values: Path, interactions: Path, heldout: Path) -> None:
        """The signals of one step, from its parts. Step 0 must come first."""
        probe = self._read(values, interactions)
        recorder = Recorder(self._model, self._setting)
        if self._first is None:
            self._first = probe
        pair = [self._first] if probe is self._first else [self._first, probe]
        metrics = Metrics(pair, self._players, recorder, seed=self._seed, one_token=self._one_token)
        metrics.signals(len(pair) - 1, self._baselines)
        if heldout.exists():
            self._add_losses(step, read_table(heldout), recorder)
        self._tables[step] = recorder.table()

    def _add_losses(self, step: int, losses: pa.Table, recorder: Recorder) -> None:
        """Held-out loss and accuracy, and the differences to earlier steps; too few rows may not choose."""
        if pc.sum(pc.equal(losses["half"], "select")).as_py() < MIN_ROWS:
            return
        self._heldout[step] = losses
        record_heldout({step: losses}, recorder, seed=self._seed)
        record_differences(self._heldout, recorder, seed=self._seed, of=step)

    def history(
        self,
        *,
        epochs: Mapping[int, float],
        trainer: Mapping[str, Sequence[tuple[int, float]]],
        only: set[int] | None = None,
    ) -> History:
        """All steps so far, as rules read them.

        Args:
            epochs: Step to epoch.
            trainer: Metrics that the trainer logged.
            only: Steps to look at, where not all.
        """
        steps = [step for step in self._tables if only is None or step in only]
        recorder = Recorder(self._model, self._setting)
        record_heldout(
            {step: self._heldout[step] for step in steps if step in self._heldout}, recorder, seed=self._seed
        )
        tables = [recorder.table(), *(self._tables[step] for step in steps)]
        return History.from_metrics(pa.concat_tables(tables), self._setting, epochs=epochs, trainer=trainer)

    def _read(self, values: Path, interactions: Path) -> Probe:
        return read_probe(
            ValueTables.read(values), read_table(interactions), self._setting, self._row_ids, self._players
        )


def check_metric(name: str | None, *, baselines: bool) -> None:
    """Refuse a `metric_for_best_model` that looks like one of ours and never comes.

    Raises:
        WhatStuckError: If it never comes.
    """
    ours = OURS.removeprefix("eval_")
    if name is None or not name.removeprefix("eval_").startswith(ours):
        return
    asked = name.removeprefix("eval_").removeprefix(ours)
    known = [short for short, *_, baseline in _LOGGED if baselines or not baseline]
    if asked not in [f"{short}{end}" for short in known for end in ("", "_low", "_high", "_null", "_excess")]:
        raise WhatStuckError(
            f"metric_for_best_model={name!r} is nothing that a probe finds here: give one of "
            f"{', '.join(f'{OURS}{short}' for short in known)}"
        )


def logged_signals(history: History, step: int) -> dict[str, float]:
    """The signals of a step under the names that a tracker shows: value, interval and null, where they are known."""
    found: dict[str, float] = {}
    for name, metric, subset, baseline in _LOGGED:
        signal = history.series(metric, subset, baseline).get(step)
        if signal is not None:
            parts = {"": signal.value, "_low": signal.low, "_high": signal.high, "_null": signal.null_mean}
            if math.isfinite(signal.null_mean):
                parts["_excess"] = signal.value - signal.null_mean
            found |= {f"{OURS}{name}{end}": value for end, value in parts.items() if math.isfinite(value)}
    return found

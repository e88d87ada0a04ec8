"""Value tables to benchmark on: planted games, whose making is known, and those of a language model in a run folder.

The planted ones are sums of 30 AND and OR effects of order 1 to 4 with 1 % of noise, in which every third effect
drifts from checkpoint to checkpoint. They are easy; only the tables of a real model say how a method does in use.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ratios import Skipped
from whatstuck.dynamics.explaining import ValueTables
from whatstuck.errors import WhatStuckError
from whatstuck.interactions.transforms import player_count
from whatstuck.runs import RunFolder, step_of

_EFFECTS = 30
_NOISE = 0.01  # of the standard deviation of a table
_KAPPA = 0.05  # of the mean of |v(all) - v(none)| over the rows of a checkpoint, as `track` does


@dataclass(frozen=True, slots=True)
class Tables:
    """Tables of one kind and size.

    Attributes:
        name: Where they come from.
        n: Number of players.
        values: (rows, steps, 2^n) float64.
        noise_bound: (rows, steps) float64 kappa.
    """

    name: str
    n: int
    values: Tensor
    noise_bound: Tensor

    @classmethod
    def of(cls, name: str, values: Tensor) -> Self:
        """Add kappa to (rows, steps, 2^n) tables."""
        scale = (values[..., -1] - values[..., 0]).abs().mean(0)
        return cls(name, player_count(values), values, (_KAPPA * scale).expand(len(values), -1))

    def flat(self, limit: int) -> tuple[Tensor, Tensor]:
        """At most `limit` single tables, spread over rows and steps: (B, 2^n) values and (B,) kappa."""
        count = self.noise_bound.numel()
        chosen = torch.linspace(0, count - 1, min(limit, count)).round().long()
        return self.values.flatten(0, 1)[chosen], self.noise_bound.flatten()[chosen]


def planted(n: int, *, rows: int, steps: int = 3, seed: int = 0) -> Tables:
    """Tables of games with known AND and OR effects."""
    rng = np.random.default_rng((seed, n))
    present = ((np.arange(1 << n)[:, None] >> np.arange(n)) & 1).astype(bool)
    tables = np.zeros((rows, steps, 1 << n))
    for row in tables:  # (steps, 2^n), filled in place
        for effect in range(_EFFECTS):
            players = rng.choice(n, rng.integers(1, 5), replace=False)
            triggered = present[:, players].all(1) if rng.random() < 0.5 else present[:, players].any(1)
            sizes = rng.normal() + (effect % 3 == 0) * rng.normal(size=steps).cumsum()
            np.add(row, sizes[:, None] * triggered, out=row)
        np.add(row, _NOISE * row.std(1, keepdims=True) * rng.normal(size=row.shape), out=row)
    return Tables.of("planted", torch.from_numpy(tables))


def parts_of_run(path: str | Path) -> tuple[str, list[ValueTables]]:
    """Name of the model under study in a run folder, and its tables at all checkpoints that are whole.

    Raises:
        WhatStuckError: If the run has no value tables yet.
    """
    run = RunFolder(path)
    name = run.manifest().get("track", {}).get("model", {}).get("name")
    files = sorted(run.part("values", name).glob("step-*.safetensors"), key=step_of) if name else []
    if not files:
        raise WhatStuckError(f"{path} has no value tables: run `whatstuck track` with this --out first")
    return name, [ValueTables.read(file) for file in files]


def from_run(path: str | Path) -> Tables:
    """Tables of the model under study in a run folder, at all its checkpoints that are whole.

    Raises:
        WhatStuckError: If the run has no value tables yet.
    """
    name, parts = parts_of_run(path)
    return Tables.of(name, torch.stack([part.values for part in parts], dim=1))


def from_runs(paths: Sequence[str]) -> tuple[list[Tables], list[Skipped]]:
    """Tables of several runs, and why there are none of the others."""
    if not paths:
        reason = "give --run RUN, a folder made by whatstuck track"
        return [], [Skipped("tables of a language model", reason)]
    found, skipped = [], []
    for path in paths:
        try:
            found.append(from_run(path))
        except WhatStuckError as error:
            skipped.append(Skipped(f"tables of {Path(path).name}", str(error)))
    return found, skipped

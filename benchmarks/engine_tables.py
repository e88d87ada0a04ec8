"""What the parts of engine.py share: the value tables of a run, their extraction, and numbers as Markdown.

A statistic is a mean over single tables, or a ratio of sums; its interval resamples rows, because the checkpoints of
a row are no independent tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from value_tables import parts_of_run
from whatstuck.dynamics.bootstrap import RowBootstrap
from whatstuck.dynamics.certainty import Ranges
from whatstuck.interactions.extraction import Interactions, extract_interactions
from whatstuck.interactions.transforms import player_count

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

TAU = 0.03
SHARE = 0.05
SEED = 0


@dataclass(frozen=True, slots=True)
class Run:
    """Value tables of a model over its checkpoints.

    Attributes:
        name: Of the folder.
        steps: Steps whose tables are whole.
        values: (rows, steps, 2^n) float64.
        noise_floor: (steps,) the measured noise of v.
    """

    name: str
    steps: list[int]
    values: Tensor
    noise_floor: Tensor

    @classmethod
    def read(cls, path: Path, rows: int | None) -> "Run":
        """The tables of the model under study, of at most so many rows."""
        _, parts = parts_of_run(path)
        values = torch.stack([part.values for part in parts], dim=1)[:rows]
        floors = torch.tensor([part.noise_floor for part in parts], dtype=torch.float64)
        return cls(path.name, [part.step for part in parts], values, floors)

    @property
    def n(self) -> int:
        """Number of players."""
        return player_count(self.values)

    @property
    def effect(self) -> Tensor:
        """(rows, steps) |v(N) - v(∅)|."""
        return (self.values[..., -1] - self.values[..., 0]).abs()

    @property
    def scale(self) -> Tensor:
        """(steps,) mean |v(N) - v(∅)|."""
        return self.effect.mean(0)

    @property
    def tau(self) -> Floats:
        """(steps,) the threshold of salience."""
        return (TAU * self.scale).numpy()

    def solve(self, mode: str, *, share: float = SHARE, values: Tensor | None = None, **options: Any) -> Interactions:
        """Extract all tables, or other tables of the same shape, with kappa or misfit as a share of the scale."""
        tables = self.values if values is None else values
        size = (share * self.scale).expand(tables.shape[:2])
        options["noise_bound" if mode == "paper" else "misfit"] = size if mode == "joint" else size.flatten()
        return extract_interactions(tables if mode == "joint" else tables.flatten(0, 1), mode=mode, **options)

    def effects(self, found: Interactions) -> Floats:
        """(rows, steps, 2, 2^n) interactions found."""
        return self._stacked(found, "and_", "or_")

    def ranges(self, found: Interactions) -> Ranges:
        """Their ranges, of the same shape."""
        return Ranges(self._stacked(found, "and_low", "or_low"), self._stacked(found, "and_high", "or_high"))

    def _stacked(self, found: Interactions, *names: str) -> Floats:
        kinds = [getattr(found, name).reshape(self.values.shape) for name in names]
        return torch.stack(kinds, dim=2).numpy()

    def salient(self, effects: Floats) -> Bools:
        """Which of (rows, steps, 2, 2^n) are above the threshold of their step."""
        return np.abs(effects) > self.tau[:, None, None]


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *lines]) + "\n"


def mean(numbers: Floats, per: Floats | None = None, *, digits: int = 2) -> str:
    """A statistic of (rows,) or (rows, steps) numbers with its interval.

    Args:
        numbers: One per table; without `per`, NaN is left out.
        per: Of the same shape: the ratio of the sums is taken, instead of the mean.
        digits: After the point.
    """
    columns = numbers.reshape(len(numbers), -1)
    there = ~np.isnan(columns)
    top = np.where(there, columns, 0.0).sum(1, keepdims=True)
    below = there.astype(float) if per is None else per.reshape(columns.shape)
    value, low, high = RowBootstrap(len(columns), seed=SEED).ratio(top, below.sum(1, keepdims=True))
    return f"{value[0]:.{digits}f} ({low[0]:.{digits}f} to {high[0]:.{digits}f})"


def count(members: Bools) -> Floats:
    """Members of (..., 2, 2^n) sets."""
    return members.sum((-2, -1)).astype(float)


def jaccard(first: Bools, second: Bools) -> Floats:
    """Shared members over all members of each pair of sets; NaN where both are empty."""
    either = count(first | second)
    return np.divide(count(first & second), either, out=np.full(either.shape, np.nan), where=either > 0)


def relative_change(before: Floats, after: Floats) -> Floats:
    """L1 change over L1 of each (..., 2, 2^n) explanation; NaN where there is none."""
    size = np.abs(before).sum((-2, -1))
    change = np.abs(after - before).sum((-2, -1))
    return np.divide(change, size, out=np.full(size.shape, np.nan), where=size > 0)

"""Outcomes of one group of rows in all arms, resampled together.

Rows of one conflict group stand or fall together, and so do all rows of one training. So the bootstrap draws groups and
seeds, not rows, and draws them alike for all arms: every difference is paired.

Rows that an arm takes out of the training are compared in no arm: a row that is not trained tells nothing, and leaving
it out of one arm alone would compare different rows. The same holds for what could not be asked in one of the arms.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from whatstuck.dynamics.bootstrap import divide, interval
from whatstuck.rows.interventions.phases import REMOVED
from whatstuck.rows.verdicts.intervals import wilson

Floats = npt.NDArray[np.float64]
Triple = tuple[float, float, float]
"""Value, low and high: a 95 % interval."""

_ALIKE = 1e-9  # draws that differ by less, differ by rounding


class Panel:
    """Outcomes of the rows of one role, as an array over arms, rows and seeds.

    Args:
        records: Records of one cause.
        role: `unlearned`, `learned`, or what an arm took out of these: `removed`, `removed_learned`.
        seed: Seed of the bootstrap.
        resamples: Number of draws.
    """

    def __init__(self, records: Sequence[dict[str, object]], role: str, seed: int, resamples: int) -> None:
        gone = set(REMOVED.values())
        removed = {record["row_id"] for record in records if record["role"] in gone}
        there = [r for r in records if r["role"] == role and (role in gone or r["row_id"] not in removed)]
        unknown = {_question(record) for record in there if record["right"] is None}
        wanted = [record for record in there if _question(record) not in unknown]
        self.arms: list[str] = list(dict.fromkeys(str(record["arm"]) for record in wanted))
        rows = {name: i for i, name in enumerate(dict.fromkeys(record["row_id"] for record in wanted))}
        seeds = {name: i for i, name in enumerate(sorted({int(str(record["seed"])) for record in wanted}))}
        sums = np.zeros((len(self.arms), len(rows), len(seeds)))
        counts = np.zeros_like(sums)
        groups: dict[int, object] = {}
        for record in wanted:
            at = self.arms.index(str(record["arm"])), rows[record["row_id"]], seeds[int(str(record["seed"]))]
            sums[at] += bool(record["right"])
            counts[at] += 1
            groups[at[1]] = record["group"] or record["row_id"]
        self.outcome: Floats = np.full_like(sums, np.nan)
        np.divide(sums, counts, out=self.outcome, where=counts > 0)
        self.rows, self.seeds = len(rows), len(seeds)
        names = {name: i for i, name in enumerate(dict.fromkeys(groups[i] for i in range(self.rows)))}
        self._clusters = len(names)
        self._cluster = np.array([names[groups[i]] for i in range(self.rows)], dtype=np.int64)
        random = np.random.default_rng(seed)
        self._row_weights = _drawn(self._clusters, random, resamples)[:, self._cluster]
        self._seed_weights = _drawn(self.seeds, random, resamples)

    def mean(self, arm: str) -> Floats:
        """Mean of an arm: its value first, then that of every draw, `(1 + draws)`; NaN for an arm that is not there."""
        if arm not in self.arms or not self.rows:
            return np.full(len(self._row_weights), np.nan)
        outcome = self.outcome[self.arms.index(arm)]
        known = ~np.isnan(outcome)
        total = ((self._row_weights @ known) * self._seed_weights).sum(1)
        right = ((self._row_weights @ np.where(known, outcome, 0.0)) * self._seed_weights).sum(1)
        return divide(right, total)

    def estimate(self, values: Floats, *, least: float = -1.0) -> Triple:
        """Value and interval; no interval where there is one group of rows only.

        Where all groups are alike, every resample is, too, and the bootstrap would claim to be certain. Then some of
        the groups that were not seen may be otherwise: at most Wilson's upper bound of none of them, and these as far
        away as can be. For a share of none or all of them this is Wilson's interval; for a difference of 0, 1 or -1 it
        is the score interval of paired shares (Tango 1998, Statistics in Medicine 17).

        Args:
            values: The value, and that of every draw.
            least: The least value that there can be: -1 of a difference, 0 of a share. The greatest is 1.
        """
        value = float(values[0])
        if self._clusters < 2:  # noqa: PLR2004 - one group says nothing about groups
            return value, math.nan, math.nan
        drawn = values[1:][~np.isnan(values[1:])]
        if drawn.size and np.ptp(drawn) < _ALIKE:
            otherwise = wilson(0, self._clusters).high
            return value, value - otherwise * (value - least), value + otherwise * (1 - value)
        low, high = interval(values[1:, None])
        return value, float(low[0]), float(high[0])

    def share(self, arm: str, *, lost: bool = False) -> Triple:
        """Share of an arm that is right (or lost), with its interval."""
        mean = self.mean(arm)
        return self.estimate(1 - mean if lost else mean, least=0.0)

    def mostly(self, arm: str) -> npt.NDArray[np.bool_]:
        """Rows that are right in more than half of the seeds."""
        outcome = self.outcome[self.arms.index(arm)]
        return np.array([np.nanmean(row) > 1 / 2 if not np.isnan(row).all() else False for row in outcome], dtype=bool)


def _question(record: dict[str, object]) -> tuple[object, object, object]:
    """What is asked of every arm alike."""
    return record["row_id"], record["wording"], record["seed"]


def _drawn(count: int, random: np.random.Generator, resamples: int) -> Floats:
    """How often each of `count` things is drawn, `(1 + resamples, count)`; in the first line each once."""
    ones = np.ones((1, count))
    if not count:
        return np.zeros((1 + resamples, 0))
    drawn = random.multinomial(count, np.full(count, 1 / count), size=resamples)
    return np.concatenate([ones, drawn]).astype(np.float64)

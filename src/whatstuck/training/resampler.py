"""Which row is drawn next, where forgotten rows are drawn more often: pure drawing, no model.

The paper on incomplete learning (arXiv 2604.10079, Alg. 4) upweights a source whose accuracy drops, without saying by
how much. Here single rows are, twice or four times.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

_AT_MOST = 4  # times as often as others
_NOTHING: Mapping[str, int] = {}


class Resampler:
    """Draws rows in a given order, with more draws in between of rows that were forgotten.

    A row that was right at a check and is wrong at a later one is drawn twice as often until the next check, four
    times if it is wrong at that one too, and never more. The number of draws stays what it is, so the others are drawn
    a little less often.

    Args:
        order: The order without resampling.
        seed: Seed of the additional draws.
        sham: As many other rows, chosen by chance, are drawn more often instead of the forgotten ones.
        spared: Rows that a sham never chooses.
    """

    def __init__(self, order: Sequence[str], *, seed: int, sham: bool = False, spared: Collection[str] = ()) -> None:
        self._order = order
        self._rows = list(dict.fromkeys(order))
        self._seed = seed
        self._sham = sham
        self._spared = frozenset(spared)
        self._right_once: set[str] = set()
        self._weights: dict[str, int] = {}
        self._checks: list[tuple[int, dict[str, int]]] = []

    @property
    def rows(self) -> list[str]:
        """Every row once."""
        return self._rows

    def __len__(self) -> int:
        return len(self._order)

    def check(self, right: Collection[str], *, at: int) -> dict[str, int]:
        """Look at what is right now.

        Args:
            right: Rows that the model has right.
            at: First draw that this is to count for.

        Returns:
            How often (2 or 4 times as often as others) which rows are drawn from there on.
        """
        right = set(right)
        lost = [row for row in self._rows if row in self._right_once and row not in right]
        self._right_once |= right
        self._weights = {row: min(_AT_MOST, 2 * self._weights.get(row, 1)) for row in lost}
        weights = self._weights
        if self._sham:
            pool = [row for row in self._rows if row not in weights and row not in self._spared]
            random = np.random.default_rng([self._seed, at])
            picked = random.permutation(len(pool))[: len(weights)]
            weights = dict(zip((pool[index] for index in picked), weights.values(), strict=False))
        self._checks.append((at, weights))
        return weights

    def __iter__(self) -> Iterator[str]:
        """The draws; those before a check are what they were, however often they are asked for."""
        random = np.random.default_rng(self._seed)
        regular = iter(self._order)
        current: Mapping[str, int] | None = None
        rows: list[str] = []
        ends = np.zeros(0)
        for index in range(len(self._order)):
            weights = self._in_force(index)
            if weights is not current:
                current, rows = weights, list(weights)
                ends = np.cumsum([float(weights[row] - 1) for row in rows])
            often, which = random.random(2)
            more = ends[-1] if len(ends) else 0.0
            if often * (len(self._rows) + more) < more:
                yield rows[int(np.searchsorted(ends, which * more, side="right"))]
            else:
                yield next(regular)

    def state(self) -> dict[str, Any]:
        """What it takes to go on, as JSON values."""
        return {
            "checks": [[at, weights] for at, weights in self._checks],
            "right_once": sorted(self._right_once),
            "weights": self._weights,
        }

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self._checks = [(int(at), dict(weights)) for at, weights in state["checks"]]
        self._right_once = set(state["right_once"])
        self._weights = dict(state["weights"])

    def _in_force(self, index: int) -> Mapping[str, int]:
        for at, weights in reversed(self._checks):
            if at <= index:
                return weights
        return _NOTHING

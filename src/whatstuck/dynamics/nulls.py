"""What the statistics would be if only chance were at work.

gamma and rho depend on how many interactions a set holds and on their orders, so a number alone says little
(a set of two random signs has rho 0.5 to 0.75, one of 200 has 0.06). Three nulls:

- `sign_flip`: the same strengths with random signs;
- `mismatched_row`: compare with the interactions of another row instead of its own;
- `order_stratified`: the other model's interactions, shuffled among coalitions of the same order and kind.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from whatstuck.dynamics.bootstrap import divide, interval
from whatstuck.dynamics.categories import masses

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

DRAWS = 200
MAX_SHIFTS = 20


def summary(draws: Floats) -> tuple[float, float, float]:
    """Mean and 95 % interval of null draws of shape `(draws,)`; NaN where there are none."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return float("nan"), float("nan"), float("nan")
    low, high = interval(known[:, None])
    return float(known.mean()), float(low[0]), float(high[0])


def sign_flipped_sums(strengths: Floats, *, seed: int) -> Floats:
    """Net effect per row when every interaction has a random sign.

    Args:
        strengths: Absolute interactions, `(rows, ...)`; zero outside the set.
        seed: Seed of the signs.

    Returns:
        Float64 `(DRAWS, rows)`.
    """
    generator = np.random.default_rng(seed)
    sums = np.zeros((DRAWS, len(strengths)))
    for row, strength in enumerate(strengths):
        present = strength[strength > 0]
        signs = generator.integers(0, 2, size=(DRAWS, len(present))) * 2 - 1
        sums[:, row] = signs @ present
    return sums


def flipped_rho(strengths: Floats, *, seed: int) -> tuple[float, float, float]:
    """Null of the uncancelled ratio rho, pooled over rows (arXiv 2605.17967, Eq. 10)."""
    sums = np.abs(sign_flipped_sums(strengths, seed=seed)).sum(1)
    return summary(divide(sums, np.array(strengths.sum())))


def flipped_contribution(strengths: Floats, count: float, *, seed: int) -> tuple[float, float, float]:
    """Null of the average contribution of one interaction: net effect over number."""
    return summary(divide(sign_flipped_sums(strengths, seed=seed).sum(1), np.array(count)))


def mismatched(rows: int) -> Iterator[npt.NDArray[np.int64]]:
    """Row orders in which every row stands in for another: cyclic shifts, at most `MAX_SHIFTS` of them."""
    if rows < 2:  # noqa: PLR2004 - one row has no other
        return
    for shift in np.unique(np.linspace(1, rows - 1, min(rows - 1, MAX_SHIFTS)).round().astype(int)):
        yield np.roll(np.arange(rows), shift)


def mismatched_null(rows: int, statistic: Callable[[npt.NDArray[np.int64]], float]) -> tuple[float, float, float]:
    """Null of a statistic that compares each row with the row it is paired with."""
    return summary(np.array([statistic(pairing) for pairing in mismatched(rows)]))


def mismatched_masses(before: Floats, after: Floats) -> dict[str, Floats]:
    """Masses per row when the interactions at step 0 are those of another row.

    Args:
        before: Interactions at step 0, `(rows, 2, 2^n)`.
        after: Interactions now, the same shape.

    Returns:
        Of removed, preserved and emerged: float64 `(pairings, rows)`.
    """
    draws: dict[str, list[Floats]] = {"removed": [], "preserved": [], "emerged": []}
    for pairing in mismatched(len(before)):
        swapped = masses(before[pairing], after)
        for subset, sums in draws.items():
            sums.append(np.abs(getattr(swapped, subset)).sum((1, 2)))
    return {subset: np.array(sums).reshape(len(sums), len(before)) for subset, sums in draws.items()}


def count_null(subset: str, base: Bools, now: Bools, survivors: Bools) -> tuple[str, float, float, float]:
    """Null of the number of removed, preserved or emerged ones: salience at step 0 is that of another row.

    Args:
        subset: `removed`, `preserved` or `emerged`.
        base: Salient at step 0, `(rows, 2, 2^n)`, as the others.
        now: Salient now.
        survivors: Salient at every checkpoint between the two, and now.
    """

    def statistic(pairing: npt.NDArray[np.int64]) -> float:
        swapped = base[pairing]
        preserved = swapped & survivors
        members = {"removed": swapped & ~now, "preserved": preserved, "emerged": now & ~preserved}[subset]
        return float(members.sum() / len(base))

    return ("mismatched_row", *mismatched_null(len(base), statistic))


def stratified_shuffles(
    orders: npt.NDArray[np.int64], *, seed: int, draws: int = 50
) -> Iterator[npt.NDArray[np.int64]]:
    """Permutations of the 2^n coalitions that keep every order in its place."""
    generator = np.random.default_rng(seed)
    for _ in range(draws):
        shuffle = np.arange(len(orders))
        for order in np.unique(orders):
            members = np.flatnonzero(orders == order)
            shuffle[members] = generator.permutation(members)
        yield shuffle

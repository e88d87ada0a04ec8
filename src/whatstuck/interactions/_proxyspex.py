"""ProxySPEX as a second engine, through shapiq: boosted trees on random masks, read as interactions.

Trees are sums of products of players, so a fitted ensemble has an exact Fourier transform; ProxySPEX keeps its largest
terms and refits them (Butler et al. 2025, arXiv 2505.17495). Here that function is taken as it is and written
with ANDs and ORs of least strength, which is a linear program: nothing is fitted a second time.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from whatstuck.errors import WhatStuckError, require
from whatstuck.interactions._sparse_fit import SparseFit, cost

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Players = tuple[int, ...]

DEPTHS = (3, 5)
GRID = {"n_estimators": [300], "learning_rate": [0.05]}
"""With the depths, the 2 points that cross-validation chooses from. On real tables of 12 players the 8 points of
ProxySPEX itself took 5 to 7 times as long, for a median R² that is higher by 0.01 to 0.02."""

_NEGLIGIBLE = 1e-9  # of the largest coefficient


def fit_proxyspex(game: Callable[[Bools], Floats], players: int, masks: int, *, max_order: int, seed: int) -> SparseFit:
    """Let ProxySPEX draw its own masks and fit them; return the same function as ANDs and ORs.

    Args:
        game: The game; called once, with the masks that ProxySPEX draws (uniformly, each with its complement).
        players: Number of players.
        masks: How many masks to draw.
        max_order: Depth of the trees at most, so players in an interaction.
        seed: For the masks and the trees.

    Raises:
        WhatStuckError: If shapiq or LightGBM is missing, or this shapiq keeps the search grid elsewhere.
    """
    require("lightgbm", "large")
    approximator_type = require("shapiq.approximator", "large").ProxySPEX
    depths = sorted({min(depth, max_order) for depth in DEPTHS})
    # FBII up to the depth of the trees is their Moebius transform: there is no higher order to spread
    approximator = approximator_type(n=players, index="FBII", max_order=depths[-1], random_state=seed)
    if not isinstance(getattr(approximator, "decoder_args", None), dict):
        raise WhatStuckError(
            "this version of shapiq is not known to whatstuck: install shapiq 1.4, or use engine 'atoms'"
        )
    approximator.decoder_args = {**GRID, "max_depth": depths}
    found = approximator.approximate(masks, lambda coalitions: game(np.asarray(coalitions, dtype=bool)))
    coefficients: dict[Players, float] = {
        tuple(sorted(int(player) for player in key)): float(value) for key, value in found.interactions.items()
    }
    constant = coefficients.pop((), 0.0)
    atoms, is_or, values = least_strength(coefficients)
    return SparseFit(atoms, is_or, values, constant, penalty=0.0, gap=0.0, candidates=2 * len(coefficients))


def least_strength(moebius: Mapping[Players, float]) -> tuple[tuple[Players, ...], Bools, Floats]:
    """Write a sum of ANDs with ANDs and ORs of least strength: exactly the same function.

    An OR of S is the sum over the non-empty T ⊆ S of (-1)^(|T|+1) AND_T. Every subset of a given AND may be used, by
    either kind, at the prices of the sampled fit.

    Args:
        moebius: Coefficient of each AND by its players, without the empty one.

    Returns:
        The players of each interaction; bool, True for an OR; float64 coefficients.
    """
    optimize, sparse = require("scipy.optimize", "large"), require("scipy.sparse", "large")
    largest = max((abs(value) for value in moebius.values()), default=0.0)
    needed = [key for key, value in moebius.items() if abs(value) > _NEGLIGIBLE * largest]
    sets = sorted({part for key in needed for part in _subsets(key)}, key=lambda part: (len(part), part))
    if not sets:
        return (), np.empty(0, dtype=bool), np.empty(0)
    place = {part: row for row, part in enumerate(sets)}
    ors = [part for part in sets if len(part) > 1]
    entries = [
        (place[inner], column, -1.0 if len(inner) % 2 == 0 else 1.0)
        for column, outer in enumerate(ors, start=len(sets))
        for inner in _subsets(outer)
    ]
    entries += [(row, row, 1.0) for row in range(len(sets))]
    rows, columns, signs = zip(*entries, strict=True)
    matrix: Any = sparse.csr_array((signs, (rows, columns)), shape=(len(sets), len(sets) + len(ors)))
    is_or = np.arange(len(sets) + len(ors)) >= len(sets)
    order = np.array([len(part) for part in [*sets, *ors]])
    price = cost(order, is_or)
    wanted = np.array([moebius.get(part, 0.0) for part in sets]) / largest
    solved = optimize.linprog(
        np.concatenate([price, price]), A_eq=sparse.hstack([matrix, -matrix]), b_eq=wanted, method="highs"
    )
    if solved.x is None:
        raise RuntimeError(f"the linear program has a solution, but HiGHS says: {solved.message}")
    values = (solved.x[: len(price)] - solved.x[len(price) :]) * largest
    kept = np.flatnonzero(np.abs(values) > _NEGLIGIBLE * largest)
    every = [*sets, *ors]
    return tuple(every[index] for index in kept), is_or[kept], values[kept]


def _subsets(players: Players) -> list[Players]:
    """Every non-empty subset."""
    return [part for size in range(1, len(players) + 1) for part in itertools.combinations(players, size)]

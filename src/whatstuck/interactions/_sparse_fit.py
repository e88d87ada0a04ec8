"""A sparse AND-OR model of sampled values: the robust objective of `extract_interactions`, on part of the table.

Squared misfit plus the order-tilted strength of all atoms; how much strength is worth is decided by
cross-validation. All folds and the whole sample walk down the path of penalties together, because reading every
column is the dear part and is then done once for all of them.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from whatstuck.interactions._atoms import Atoms
from whatstuck.interactions._lasso import LassoPath
from whatstuck.interactions.extraction import DEFAULT_TILT

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_FOLDS = 5
_PENALTIES = 30
_SMALLEST = 1e-3  # penalty, relative to the one at which nothing is left
_PATIENCE = 3  # penalties in a row that are worse by _WORSE than the best: the rest only fits noise
_WORSE = 1.02
_MOST_CANDIDATES = 4096
_ROUNDS = 10  # of looking for atoms that the guess has missed
_SLACK = 1e-4  # of the penalty; correlations are ranked in float32


@dataclass(frozen=True, slots=True, eq=False)
class SparseFit:
    """An AND-OR model.

    Attributes:
        players: The players of each atom.
        is_or: (k,) bool.
        values: (k,) float64, in the units of the game.
        constant: What is left without any atom.
        penalty: The lambda that cross-validation chose, in the units of the values, per mask.
        gap: (objective - proven lower bound) / objective over all candidate atoms.
        candidates: How many atoms were candidates.
    """

    players: tuple[tuple[int, ...], ...]
    is_or: Bools
    values: Floats
    constant: float
    penalty: float
    gap: float
    candidates: int


def fit_atoms(coalitions: Bools, values: Floats, *, max_order: int, rng: np.random.Generator) -> SparseFit:
    """Fit a sparse AND-OR model.

    Args:
        coalitions: Bool (m, n), m of at least 10.
        values: (m,) float64.
        max_order: Players in an atom at most.
        rng: Makes the folds.
    """
    mean = float(values.mean())
    scale = float(np.abs(values - mean).max())
    if scale == 0:
        return SparseFit((), np.empty(0, dtype=bool), np.empty(0), float(values[0]), 0.0, 0.0, 0)
    fit = _Search(coalitions, (values - mean) / scale, max_order, rng).run()
    return replace(
        fit,
        values=fit.values * scale,
        constant=fit.constant * scale + mean,
        penalty=fit.penalty * scale,
    )


def cost(order: Indices, is_or: Bools) -> Floats:
    """What a unit of strength costs, by order and kind: as in mode `robust`."""
    per_player, for_or = DEFAULT_TILT
    price: Floats = (1 + per_player * (order.astype(np.float64) - 1)) * np.where(is_or, 1 + for_or, 1.0)
    return price


class _Search:
    """The paths of all folds and of the whole sample, on one growing set of candidate atoms."""

    def __init__(self, coalitions: Bools, values: Floats, max_order: int, rng: np.random.Generator) -> None:
        self.values = values
        self.atoms = Atoms(coalitions, max_order)
        fold = rng.permutation(len(values)) % _FOLDS
        left_out = [np.flatnonzero(fold == part) for part in range(_FOLDS)]
        kept = [np.flatnonzero(fold != part) for part in range(_FOLDS)]
        self.left_out = left_out
        self.rows = [np.arange(len(values)), *kept]
        self.paths = [LassoPath(values[rows], partial(self._columns, rows)) for rows in self.rows]

    def _columns(self, rows: Indices, indices: Indices) -> Floats:
        """Columns divided by their cost, so that one penalty holds for all."""
        found: Floats = self.atoms.columns(indices)[rows] / self._cost(indices)
        return found

    def _cost(self, indices: Indices | slice) -> Floats:
        return cost(self.atoms.order[indices], self.atoms.is_or[indices])

    def _products(self) -> Floats:
        """(columns, paths): how strongly each atom pulls at what each path has not explained."""
        residuals = np.zeros((len(self.values), len(self.paths)))
        for path, (rows, solution) in enumerate(zip(self.rows, self.paths, strict=True)):
            residuals[rows, path] = solution.residual()
        pulls: Floats = np.abs(self.atoms.correlations(residuals)) / self._cost(slice(None))[:, None]
        return pulls

    def run(self) -> SparseFit:
        """Walk down the penalties until the left-out masks say that the rest is noise."""
        products = self._products()
        largest = float(products[:, 0].max())
        best: SparseFit | None = None
        least, patience = np.inf, 0
        before = largest
        for penalty in np.geomspace(largest, largest * _SMALLEST, _PENALTIES).tolist():
            products = self._solve(penalty, before, products)
            before = penalty
            error = self._error()
            if error < least:
                least, patience = error, 0
                best = self._result(penalty, float(products[:, 0].max()))
            elif error > _WORSE * least:
                patience += 1
                if patience == _PATIENCE:
                    break
        if best is None:  # the first error is finite, so there is a best one
            raise RuntimeError("cross-validation compared nothing")
        return best

    def _solve(self, penalty: float, before: float, products: Floats) -> Floats:
        """Bring every path to the optimum at a penalty; returns the products there."""
        shares = [len(rows) / len(self.values) for rows in self.rows]
        pending = list(range(len(self.paths)))
        # the strong rule (Tibshirani et al. 2012) guesses which atoms may enter; what it misses is found below
        threshold = max(2 * penalty - before, penalty / 2)
        for _ in range(_ROUNDS):
            for path in pending:
                candidates = np.flatnonzero(products[:, path] >= threshold * shares[path])
                if len(candidates) > _MOST_CANDIDATES:
                    candidates = candidates[np.argsort(-products[candidates, path], kind="stable")[:_MOST_CANDIDATES]]
                self.paths[path].solve(penalty * shares[path], candidates)
            active = np.unique(np.concatenate([path.active[0] for path in self.paths]))
            self.atoms.extend(active)
            products = self._products()
            limits = penalty * (1 + _SLACK)
            pending = [path for path, share in enumerate(shares) if products[:, path].max() > limits * share]
            if not pending:
                break
            threshold = penalty
        return products

    def _error(self) -> float:
        """Squared error on the masks that each fold has left out."""
        total = 0.0
        for rows, path in zip(self.left_out, self.paths[1:], strict=True):
            indices, values, constant = path.active
            misfit = self.values[rows] - constant - self._columns(rows, indices) @ values
            total += float(misfit @ misfit)
        return total

    def _result(self, penalty: float, largest: float) -> SparseFit:
        indices, values, constant = self.paths[0].active
        members = [
            row[:order]
            for row, order in zip(self.atoms.members[indices].tolist(), self.atoms.order[indices].tolist(), strict=True)
        ]
        return SparseFit(
            players=tuple(map(tuple, members)),
            is_or=self.atoms.is_or[indices],
            values=values / self._cost(indices),
            constant=constant,
            penalty=penalty / len(self.values),
            gap=self.paths[0].gap(penalty, largest),
            candidates=len(self.atoms),
        )

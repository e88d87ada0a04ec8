"""An exact LASSO path for few rows and very many columns that are never all in memory.

Minimises `0.5 |y - constant - F c|² + penalty |c|_1` for falling penalties, the constant free. Why not a library:
scikit-learn is no dependency of the core, and its coordinate descent wants all columns at once. An active-set
method needs only the columns that enter. At a fixed pattern of signs the solution is a small linear system, and
moving towards it until a coefficient meets zero lowers the objective every time. So it ends at the optimum itself,
not near it (feature-sign search: Lee, Battle, Raina and Ng, 2006). Dependent columns, of which AND and OR atoms have
many, cost a step and nothing else.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_RIDGE = 1e-10  # of the diagonal: along dependent columns there is then a way to slide, not a singular matrix
_TOLERANCE = 1e-7  # of the penalty: by how much a column may be left out of line
_ENTER_AT_ONCE = 8


class LassoPath:
    """The solution for one set of rows, carried from one penalty to the next.

    Args:
        target: (m,) float64.
        columns: Gives the columns of some indices, `(k,) -> (m, k)` float64; the same index is the same column.
    """

    def __init__(self, target: Floats, columns: Callable[[Indices], Floats]) -> None:
        self.mean = float(target.mean())
        self.target = target - self.mean
        self._columns = columns
        # a column that was ever active has a slot; the slots in use, in the order of entry, are the active ones
        self._slot_of: dict[int, int] = {}
        self._index = np.empty(0, dtype=np.int64)
        self._centred = np.empty((len(target), 0))
        self._means = np.empty(0)
        self._gram = np.empty((0, 0))
        self._pull = np.empty(0)
        self._slots = np.empty(0, dtype=np.int64)
        self._values: Floats = np.empty(0)

    @property
    def active(self) -> tuple[Indices, Floats, float]:
        """Indices of the columns that have a coefficient, the coefficients, and the constant."""
        constant = self.mean - float(self._means[self._slots] @ self._values)
        return self._index[self._slots], self._values, constant

    def residual(self) -> Floats:
        """(m,) what is not explained. Its mean is zero, so columns can be held against it as they are."""
        rest: Floats = self.target - self._centred[:, self._slots] @ self._values
        return rest

    def objective(self, penalty: float) -> float:
        """The value of what is minimised."""
        residual = self.residual()
        return float(residual @ residual) / 2 + penalty * float(np.abs(self._values).sum())

    def gap(self, penalty: float, largest: float) -> float:
        """(objective - proven lower bound) / objective.

        Args:
            penalty: The penalty.
            largest: Largest absolute product of any column with the residual.
        """
        objective = self.objective(penalty)
        if objective == 0:
            return 0.0
        # the residual, shrunk until no column exceeds the penalty, is a point of the dual problem
        dual = self.residual() * min(1.0, penalty / largest if largest else 1.0)
        return max(0.0, (objective - float(self.target @ dual) + float(dual @ dual) / 2) / objective)

    def solve(self, penalty: float, candidates: Indices) -> None:
        """Move to the optimum over the columns that are active or among the candidates."""
        pool = self._columns(candidates)
        self._settle(penalty, np.sign(self._values))
        before = self.objective(penalty)
        while True:
            product = pool.T @ self.residual()
            excess = np.where(np.isin(candidates, self._index[self._slots]), -np.inf, np.abs(product) - penalty)
            best = np.argsort(-excess, kind="stable")[:_ENTER_AT_ONCE]
            best = best[excess[best] > _TOLERANCE * penalty]
            if not len(best):
                return
            self._enter(candidates[best])
            signs = np.append(np.sign(self._values), np.sign(product[best]))
            self._values = np.append(self._values, np.zeros(len(best)))
            self._settle(penalty, signs)
            now = self.objective(penalty)
            if now >= before * (1 - 1e-12):  # what is left is rounding
                return
            before = now

    def _enter(self, columns: Indices) -> None:
        new = np.array([column for column in columns.tolist() if column not in self._slot_of], dtype=np.int64)
        if len(new):
            raw = self._columns(new)
            means = raw.mean(0)
            centred = raw - means
            cross = self._centred.T @ centred
            self._gram = np.block([[self._gram, cross], [cross.T, centred.T @ centred]])
            self._centred = np.hstack([self._centred, centred])
            self._means = np.append(self._means, means)
            self._pull = np.append(self._pull, centred.T @ self.target)
            self._slot_of.update((column, len(self._slot_of)) for column in new.tolist())
            self._index = np.append(self._index, new)
        slots = [self._slot_of[column] for column in columns.tolist()]
        self._slots = np.append(self._slots, np.array(slots, dtype=np.int64))

    def _settle(self, penalty: float, signs: Floats) -> None:
        """Move to the optimum of the active columns at these signs; those that meet zero on the way leave."""
        while len(self._slots):
            gram = self._gram[np.ix_(self._slots, self._slots)]
            diagonal = np.diag_indices_from(gram)
            gram[diagonal] += _RIDGE * (1 + gram[diagonal])
            solved = np.linalg.solve(gram, self._pull[self._slots] - penalty * signs)
            goal = np.asarray(solved, dtype=np.float64)
            crossing = goal * signs <= 0
            if not crossing.any():
                self._values = goal
                return
            share = np.full(len(goal), np.inf)
            share[crossing] = self._values[crossing] / (self._values[crossing] - goal[crossing])
            first = float(share.min())
            moved = self._values + first * (goal - self._values)
            stay = share > first + 1e-12
            self._slots, self._values, signs = self._slots[stay], moved[stay], signs[stay]

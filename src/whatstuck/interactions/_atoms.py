"""AND and OR atoms of many players as bits: which of the sampled masks trigger each atom.

With 100 players there are 161,700 triples; their columns as numbers would fill gigabytes. Here each player is one
row of bits over the sampled masks, a column is a bitwise AND (or OR) of such rows, and numbers exist only for one
block of columns at a time. All atoms are listed up to the highest order at which they fit `MAX_COLUMNS`; beyond
that, only atoms that add one player to an atom already found useful (a high order rarely matters where none of its
parts does).
"""

import itertools
import math

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

MAX_COLUMNS = 1 << 17
"""Columns kept at a time: at 1,024 masks 16 MiB of bits, and 16 MiB of numbers for a block of them."""

_BLOCK = 1 << 12


class Atoms:
    """The candidate atoms of a sample of masks; they only ever grow, so an index stays valid.

    Args:
        coalitions: Bool (m, n): the sampled masks.
        max_order: Players in an atom at most.
        max_columns: Bound on the number of atoms.

    Attributes:
        members: (columns, max_order) int64; players of an atom, the first repeated to fill up.
        is_or: (columns,) bool. Order 1 is AND only: an OR of one player is the same function.
        order: (columns,) int64.
        listed: Every atom up to this order is there.
    """

    def __init__(self, coalitions: Bools, max_order: int, *, max_columns: int = MAX_COLUMNS) -> None:
        self._masks, self._players = coalitions.shape
        self._width = min(max_order, self._players)
        self._max_columns = max_columns
        self._rows = np.packbits(coalitions.T, axis=1)
        self._grown: set[tuple[int, bool]] = set()
        self.members = np.empty((0, self._width), dtype=np.int64)
        self.is_or = np.empty(0, dtype=bool)
        self.order = np.empty(0, dtype=np.int64)
        self._bits = np.empty((0, self._rows.shape[1]), dtype=np.uint8)
        self.listed = 0
        for order in range(1, self._width + 1):
            kinds = (False,) if order == 1 else (False, True)
            if order > 1 and len(self) + 2 * math.comb(self._players, order) > max_columns:
                break
            for kind in kinds:
                self._append(_combinations(self._players, order), is_or=kind)
            self.listed = order

    def __len__(self) -> int:
        return len(self.order)

    def _append(self, members: Indices, *, is_or: bool) -> None:
        padded = np.concatenate([members, np.repeat(members[:, :1], self._width - members.shape[1], axis=1)], axis=1)
        bits = self._rows[members[:, 0]]
        for position in range(1, members.shape[1]):
            operation = np.bitwise_or if is_or else np.bitwise_and
            operation(bits, self._rows[members[:, position]], out=bits)
        self.members = np.concatenate([self.members, padded])
        self.is_or = np.append(self.is_or, np.full(len(members), is_or))
        self.order = np.append(self.order, np.full(len(members), members.shape[1]))
        self._bits = np.concatenate([self._bits, bits])

    def columns(self, indices: Indices) -> Floats:
        """(m, k) float64: 1 where the mask triggers the atom."""
        return np.unpackbits(self._bits[indices], axis=1, count=self._masks).T.astype(np.float64)

    def correlations(self, residuals: Floats) -> Floats:
        """Products of every column with residuals: (m, f) -> (columns, f).

        In float32, because this reads every column and only ranks them: errors are 1e-6 of the largest.
        """
        single = residuals.astype(np.float32)
        found = np.empty((len(self), residuals.shape[1]), dtype=np.float32)
        for first in range(0, len(self), _BLOCK):
            block = np.unpackbits(self._bits[first : first + _BLOCK], axis=1, count=self._masks)
            found[first : first + _BLOCK] = block.astype(np.float32) @ single
        return found.astype(np.float64)

    def extend(self, active: Indices) -> int:
        """Add the atoms that add one player to an active one, beyond the orders that are listed whole.

        Returns:
            How many atoms are new; fewer than possible where `MAX_COLUMNS` is reached.
        """
        before = len(self)
        for kind in (False, True):
            parents = active[(self.is_or[active] == kind) | (self.order[active] == 1)]
            new: dict[int, list[tuple[int, ...]]] = {}
            for parent in parents.tolist():
                order = int(self.order[parent])
                if order < self.listed or order >= self._width or (parent, kind) in self._grown:
                    continue
                self._grown.add((parent, kind))
                members = set(self.members[parent].tolist())
                new.setdefault(order + 1, []).extend(
                    tuple(sorted(members | {player})) for player in range(self._players) if player not in members
                )
            for order, found in new.items():
                known = set(map(tuple, self.members[(self.order == order) & (self.is_or == kind), :order].tolist()))
                unseen = sorted(set(found) - known)[: max(0, self._max_columns - len(self))]
                if unseen:
                    self._append(np.array(unseen, dtype=np.int64), is_or=kind)
        return len(self) - before


def _combinations(players: int, order: int) -> Indices:
    """(C(players, order), order) int64, each sorted."""
    flat = itertools.chain.from_iterable(itertools.combinations(range(players), order))
    return np.fromiter(flat, dtype=np.int64, count=order * math.comb(players, order)).reshape(-1, order)

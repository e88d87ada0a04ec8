"""Solve with a huge matrix that treats all players alike, exactly and in little more than two transforms.

The solvers need the inverse of A A' + shift (`_penalized`) or of P P' + I + H H' (`_boxed`), dense 2^n x 2^n matrices:
sums of Kronecker powers that no common basis makes diagonal. But an entry (S, T) depends only on |S|, |T| and
|S ∩ T|: permuting the players changes nothing. By Schur's lemma such a matrix becomes block diagonal in the basis that
quantum mechanics knows as coupled spins: k players are k spins 1/2, they couple to total spins j = k/2, k/2 - 1, ...,
and the matrix acts on the 2j + 1 states of a spin j, in the same way for every one of its copies.

We couple the low and the high half of the players separately. Then the change of basis is again two small matrix
products (as in `transforms`), and the blocks, one per pair of spins, have at most (n/2 + 1)^2 rows: 25 at n = 8, 36 at
n = 10.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from whatstuck.interactions.transforms import sandwich


def spin_basis(players: int) -> list[Tensor]:
    """An orthonormal basis of functions on the 2^k coalitions, sorted into coupled spins.

    Spins are added one by one with the Clebsch-Gordan coefficients of spin 1/2 (any textbook on quantum
    mechanics), in closed form, so that the basis is the same on every machine.

    Args:
        players: Number k of players.

    Returns:
        For each total spin j, ascending: (2^k, copies, 2j + 1) float64. Within a copy, the last index counts
        players present, up to a shift.
    """
    spins = {0: torch.ones(1, 1, 1, dtype=torch.float64)}  # keyed by 2j
    for _ in range(players):
        parts: dict[int, list[Tensor]] = {}
        for twice, states in spins.items():
            size, copies, dim = states.shape  # dim = 2j + 1
            up = torch.zeros(2, size, copies, dim + 1, dtype=torch.float64)  # leading index: new player present
            for q in range(dim + 1):
                if q < dim:
                    up[0, ..., q] = math.sqrt((dim - q) / dim) * states[..., q]
                if q > 0:
                    up[1, ..., q] = math.sqrt(q / dim) * states[..., q - 1]
            parts.setdefault(twice + 1, []).append(up.reshape(2 * size, copies, dim + 1))
            if twice > 0:
                down = torch.zeros(2, size, copies, dim - 1, dtype=torch.float64)
                for q in range(dim - 1):
                    down[0, ..., q] = math.sqrt((q + 1) / dim) * states[..., q + 1]
                    down[1, ..., q] = -math.sqrt((dim - 1 - q) / dim) * states[..., q]
                parts.setdefault(twice - 1, []).append(down.reshape(2 * size, copies, dim - 1))
        spins = {twice: torch.cat(found, dim=1) for twice, found in parts.items()}
    return [spins[twice] for twice in sorted(spins)]


def _padded(matrix: Tensor) -> Tensor:
    """Zeros on the right, up to a multiple of 8 columns.

    Each matrix of a batch then starts at a multiple of 64 bytes. Products of matrices that start elsewhere are
    rounded differently on some CPUs, so a row's result would depend on its place in the batch.
    """
    return torch.nn.functional.pad(matrix, (0, -matrix.shape[-1] % 8))


class SymmetricSpectrum:
    """Solve with an operator on tables that commutes with permuting the players, plus any multiple of the identity.

    Args:
        operator: Maps (k, 2^n) float64 tables to their images; symmetric, positive semidefinite, and blind to the
            names of the players. None of this is checked.
        n: Number of players.
        device: Where the tables will be.
    """

    def __init__(self, operator: Callable[[Tensor], Tensor], n: int, device: torch.device) -> None:
        low_spins = [spin.to(device) for spin in spin_basis(n // 2)]
        high_spins = [spin.to(device) for spin in spin_basis(n - n // 2)]
        self._low = torch.cat([spin.flatten(1) for spin in low_spins], dim=1)
        self._high = torch.cat([spin.flatten(1) for spin in high_spins], dim=1)
        # per pair of spins: where it starts, its copies and states, in the high and in the low half
        self._blocks: list[tuple[tuple[int, int, int], tuple[int, int, int], Tensor, Tensor]] = []
        high_start = 0
        for high in high_spins:
            low_start = 0
            for low in low_spins:
                # one copy stands for all of them
                states = torch.einsum("ia,jb->abij", high[:, 0], low[:, 0]).reshape(-1, high.shape[0] * low.shape[0])
                block = states @ operator(states).T
                values, vectors = torch.linalg.eigh((block + block.T) / 2)
                # rounding may leave the eigenvalue 0 a little below it
                values = torch.nn.functional.pad(values.clamp(min=0), (0, -len(values) % 8), value=1.0)
                vectors = _padded(_padded(vectors).T.contiguous()).T.contiguous()
                self._blocks.append(((high_start, *high.shape[1:]), (low_start, *low.shape[1:]), values, vectors))
                low_start += low.shape[1] * low.shape[2]
            high_start += high.shape[1] * high.shape[2]

    def solve(self, table: Tensor, shift: Tensor) -> Tensor:
        """Apply (operator + shift)^-1 to each table of a batch.

        Args:
            table: (..., 2^n) float64.
            shift: (...) float64, not negative; positive where the operator is singular.

        Returns:
            (..., 2^n) float64.
        """
        sheets = table.reshape(-1, self._high.shape[0], self._low.shape[0])
        rows, shifts = len(sheets), shift.reshape(-1, 1, 1)
        coupled = sandwich(self._high.T, sheets, self._low)
        solved = torch.empty_like(coupled)
        for (i, high_copies, high_dim), (j, low_copies, low_dim), values, vectors in self._blocks:
            window = (
                slice(None),
                slice(i, i + high_copies * high_dim),
                slice(j, j + low_copies * low_dim),
            )
            states = coupled[window].reshape(rows, high_copies, high_dim, low_copies, low_dim)
            states = _padded(states.transpose(2, 3).reshape(rows, -1, high_dim * low_dim))
            # padded columns have eigenvalue 1 and are thrown away
            turned = torch.bmm(states, vectors.expand(rows, *vectors.shape)) / (values + shifts)
            states = torch.bmm(turned, vectors.T.expand(rows, *vectors.shape))[..., : high_dim * low_dim]
            states = states.reshape(rows, high_copies, low_copies, high_dim, low_dim).transpose(2, 3)
            solved[window] = states.reshape(rows, high_copies * high_dim, low_copies * low_dim)
        return sandwich(self._high, solved, self._low.T).reshape(table.shape)

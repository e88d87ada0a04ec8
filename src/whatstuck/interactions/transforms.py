"""Change between a game's values and its AND and OR interactions: exact, batched, O(2^n) memory.

A table holds one number per coalition of n players on its last dimension: entry S, bit i of S = player i
present. Every map here acts on each player in the same way, so it is the n-th Kronecker power of a 2 x 2 matrix.
We apply such a power as two small matrix products on the table seen as a 2^(n - n/2) x 2^(n/2) sheet; the
2^n x 2^n matrix itself (8 MB at n = 10, 134 MB at n = 12) never exists.

The pairs are `mobius` and `zeta` (AND), `or_interactions` and `or_values` (OR), `superset_mobius` and
`superset_zeta`. All take any real tensor, compute in float64 and differentiate nothing.

Sources: Harsanyi dividends and their OR counterpart as in arXiv 2605.17967, Eqs 2 and 3, and Li & Zhang,
arXiv 2304.13312.
"""

from functools import cache

import torch
from torch import Tensor

from whatstuck.errors import WhatStuckError

Matrix = tuple[tuple[float, float], tuple[float, float]]
"""What a Kronecker power does to one player: row = player absent, present in the result; column = in the input."""

_ZETA: Matrix = ((1, 0), (1, 1))
_MOBIUS: Matrix = ((1, 0), (-1, 1))
_SUPERSET_ZETA: Matrix = ((1, 1), (0, 1))
_SUPERSET_MOBIUS: Matrix = ((1, -1), (0, 1))


def player_count(table: Tensor) -> int:
    """The number n of players of a table whose last dimension has 2^n entries.

    Raises:
        WhatStuckError: If the length is not a power of two.
    """
    size = table.shape[-1] if table.dim() else 0
    if size < 1 or size & (size - 1):
        raise WhatStuckError(f"a value table needs 2^n entries for n players, not {size}: give one value per coalition")
    return size.bit_length() - 1


@cache
def _dense_power(matrix: Matrix, exponent: int, device: torch.device) -> Tensor:
    """The 2^k x 2^k Kronecker power of a 2 x 2 matrix, for a half of the players only."""
    factor = torch.tensor(matrix, dtype=torch.float64, device=device)
    power = torch.ones(1, 1, dtype=torch.float64, device=device)
    for _ in range(exponent):
        power = torch.kron(factor, power)
    return power


def sandwich(left: Tensor, sheet: Tensor, right: Tensor) -> Tensor:
    """`left @ sheet @ right` for each sheet of a batch, as one product per sheet.

    Folding the batch into one large product would be as fast, but then the rounding of a row may depend on
    which other rows are in its batch.

    Args:
        left: (h, H).
        sheet: (B, H, L).
        right: (L, l).

    Returns:
        (B, h, l).
    """
    rows = sheet.shape[0]
    return torch.bmm(left.expand(rows, *left.shape), torch.bmm(sheet, right.expand(rows, *right.shape)))


@torch.no_grad()
def kronecker_power(matrix: Matrix, table: Tensor) -> Tensor:
    """Apply the n-th Kronecker power of a 2 x 2 matrix to each table of a batch.

    Args:
        matrix: What happens to one player.
        table: (..., 2^n), any real dtype.

    Returns:
        (..., 2^n) float64, on the same device.

    Raises:
        WhatStuckError: If the last dimension is not a power of two.
    """
    n = player_count(table)
    low = n // 2  # the low players are the columns of the sheet
    left = _dense_power(matrix, n - low, table.device)
    right = _dense_power(matrix, low, table.device)
    sheets = table.to(torch.float64).reshape(-1, 1 << (n - low), 1 << low)
    return sandwich(left, sheets, right.T).reshape(table.shape)


def zeta(coefficients: Tensor) -> Tensor:
    """Sum over subsets: `out[T] = sum over S ⊆ T of coefficients[S]`; values of a game given by its ANDs."""
    return kronecker_power(_ZETA, coefficients)


def mobius(values: Tensor) -> Tensor:
    """AND interactions (Harsanyi dividends): `out[S] = sum over T ⊆ S of (-1)^(|S|-|T|) values[T]`.

    Inverse of `zeta`. Entry 0 is the value of the empty coalition.
    """
    return kronecker_power(_MOBIUS, values)


def superset_zeta(coefficients: Tensor) -> Tensor:
    """Sum over supersets: `out[T] = sum over S ⊇ T of coefficients[S]`."""
    return kronecker_power(_SUPERSET_ZETA, coefficients)


def superset_mobius(sums: Tensor) -> Tensor:
    """Inverse of `superset_zeta`: `out[T] = sum over S ⊇ T of (-1)^(|S|-|T|) sums[S]`."""
    return kronecker_power(_SUPERSET_MOBIUS, sums)


@torch.no_grad()
def or_interactions(values: Tensor) -> Tensor:
    """OR interactions: `out[S] = -sum over T ⊆ S of (-1)^(|S|-|T|) values[N minus T]` for S ≠ ∅.

    An OR is an AND with the roles of present and absent swapped. Entry 0 is the value of the empty coalition,
    which no OR can express. Inverse of `or_values`.
    """
    result = -mobius(values.flip(-1))
    result[..., 0] = values[..., 0]
    return result


@torch.no_grad()
def or_values(coefficients: Tensor) -> Tensor:
    """Values of a game given by its ORs: `out[T] = c[∅] + sum over S with S ∩ T ≠ ∅ of c[S]`."""
    avoided = coefficients.to(torch.float64, copy=True)
    constant = avoided[..., :1].clone()
    avoided[..., 0] = 0.0
    # S misses T exactly if S lies in the complement of T, and flipping the table complements its index
    sums = zeta(avoided)
    return constant + sums[..., -1:] - sums.flip(-1)


def reconstruct(and_: Tensor, or_: Tensor) -> Tensor:
    """Values of the logical model: all ANDs and ORs that a coalition triggers (arXiv 2605.17967, Eqs 2-3).

    `out[T] = sum over S ⊆ T of and_[S] + sum over S with S ∩ T ≠ ∅ of or_[S]`; `or_[..., 0]` is a constant,
    as `and_[..., 0]` is.

    Args:
        and_: (..., 2^n).
        or_: The same shape.

    Returns:
        (..., 2^n) float64.
    """
    return zeta(and_) + or_values(or_)


def orders(n: int, device: torch.device | str = "cpu") -> Tensor:
    """The number of players in each of the 2^n coalitions.

    Returns:
        (2^n,) int64: entry S is the number of bits set in S.

    Example:
        >>> orders(2).tolist()
        [0, 1, 1, 2]
    """
    counts = torch.zeros(1, dtype=torch.int64, device=device)
    for _ in range(n):
        counts = torch.cat([counts, counts + 1])
    return counts

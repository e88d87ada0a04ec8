"""The optimizer that published work on AND-OR interactions uses, written anew from its formulas, to compare with.

The table v, with v(∅) taken out, is split by two vectors p and q of 2^n numbers:

    v_and = (v + q) / 2 + p        v_or = (v + q) / 2 - p        |q| <= kappa

and momentum SGD from p = q = 0 lowers the total strength |I_and|_1 + |I_or|_1 of all interactions. Its learning rate
falls by a factor of 10 over 20,000 steps, q is clipped at the start of each step, nothing watches for convergence,
and the last iterate is returned. (Li & Zhang, arXiv 2304.13312; Chen et al., arXiv 2401.16318; the settings are
theirs.)

Three forms take the same steps, to rounding. `dense` multiplies with the 2^n x 2^n float32 matrices of the two
transforms, as published. `butterflies` replaces these by n in-place additions on halves of the table. `sheets`
replaces them by two small matrix products, as our own transforms do: what is left of a ratio against it is the
method, not the code. All have hand-written gradients, which is kinder to them than automatic differentiation would
be, and building the matrices is not timed.

Here alone p and q may be non-zero at the empty coalition, as published. That does not give the method an objective
that ours cannot reach: a constant of size c there can be moved into the OR of all players at the same cost.
"""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

STEPS = 20_000
PUBLISHED_RATES = (1e-7, 1e-6, 1e-5)
FORMS = ("dense", "butterflies", "sheets")

_MOMENTUM = 0.9
_DECAY = 10.0


@dataclass(frozen=True, slots=True)
class Reference:
    """Where the reference ends.

    Attributes:
        objective: (B,) float64, total strength after AND and OR of order 1, which are the same function, are merged.
        split: (2, B, 2^n) p and q of the last iterate.
        seconds: CPU time of the steps taken, all rows together.
        steps: Steps taken.
        history: (B, steps // watch_every) float64, the objective along the way; empty where nobody watched.
    """

    objective: Tensor
    split: Tensor
    seconds: float
    steps: int
    history: Tensor

    @property
    def seconds_per_step(self) -> float:
        """CPU time of one step, all rows together."""
        return self.seconds / self.steps


def _power(factor: list[list[float]], exponent: int, dtype: torch.dtype) -> Tensor:
    """The 2^k x 2^k Kronecker power of what happens to one player."""
    power = torch.ones(1, 1, dtype=dtype)
    for _ in range(exponent):
        power = torch.kron(torch.tensor(factor, dtype=dtype), power)
    return power


class _Dense:
    """The two transforms as matrices, and their transposes, on (B, 2^n) tables."""

    def __init__(self, n: int, dtype: torch.dtype) -> None:
        and_ = _power([[1.0, 0.0], [-1.0, 1.0]], n, dtype)
        or_ = -and_.flip(1)  # the complement of coalition T has index 2^n - 1 - T
        or_[0] = 0.0
        or_[0, 0] = 1.0  # no OR reaches the empty coalition
        self._matrices = (and_, or_)

    def forward(self, which: int, values: Tensor) -> Tensor:
        return values @ self._matrices[which].T

    def backward(self, which: int, slope: Tensor) -> Tensor:
        return slope @ self._matrices[which]


class _Butterflies:
    """The same maps as n additions of one half of each table to the other."""

    def __init__(self, n: int, dtype: torch.dtype) -> None:
        del dtype  # that of the tables
        self._n = n

    def forward(self, which: int, values: Tensor) -> Tensor:
        if which == 0:
            return self._add_up(values.clone(), source=0)
        result = self._add_up(values.flip(1), source=0).neg_()
        result[:, 0] = values[:, 0]
        return result

    def backward(self, which: int, slope: Tensor) -> Tensor:
        if which == 0:
            return self._add_up(slope.clone(), source=1)
        reached = slope.clone()
        reached[:, 0] = 0.0
        result = self._add_up(reached, source=1).flip(1).neg_()
        result[:, 0] += slope[:, 0]
        return result

    def _add_up(self, table: Tensor, *, source: int) -> Tensor:
        """Subtract, for each player, the half without (source 0) or with (source 1) it from the other half."""
        for player in range(self._n):
            halves = table.view(len(table), -1, 2, 1 << player)
            halves[:, :, 1 - source].sub_(halves[:, :, source])
        return table


class _Sheets:
    """The same maps on the table as a 2^(n - n/2) x 2^(n/2) sheet: one small product for each half of the players."""

    def __init__(self, n: int, dtype: torch.dtype) -> None:
        low = n // 2
        self._shape = (1 << (n - low), 1 << low)
        # AND; and OR up to its sign: present and absent swap roles before the differences are taken
        factors = ([[1.0, 0.0], [-1.0, 1.0]], [[0.0, 1.0], [1.0, -1.0]])
        self._halves = [
            (_power(factor, n - low, dtype), _power(factor, low, dtype).T.contiguous()) for factor in factors
        ]

    def forward(self, which: int, values: Tensor) -> Tensor:
        left, right = self._halves[which]
        result = (left @ values.view(-1, *self._shape) @ right).view_as(values)
        if which == 1:
            result.neg_()[:, 0] = values[:, 0]
        return result

    def backward(self, which: int, slope: Tensor) -> Tensor:
        left, right = self._halves[which]
        reached = slope
        if which == 1:
            reached = -slope
            reached[:, 0] = 0.0
        result = (left.T @ reached.view(-1, *self._shape) @ right.T).view_as(slope)
        if which == 1:
            result[:, 0] += slope[:, 0]
        return result


_TRANSFORMS: dict[str, type[_Dense | _Butterflies | _Sheets]] = {
    "dense": _Dense,
    "butterflies": _Butterflies,
    "sheets": _Sheets,
}


@torch.no_grad()
def optimize(
    values: Tensor,
    noise_bound: Tensor,
    learning_rate: Tensor | float,
    *,
    form: str = "dense",
    stop_after: int = STEPS,
    watch_every: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Reference:
    """Take the steps of the reference on a batch of tables; the rows do not see each other.

    Args:
        values: (B, 2^n) tables, bit i of the index = player i present.
        noise_bound: (B,) kappa.
        learning_rate: The first rate, one number or (B,).
        form: One of `FORMS`.
        stop_after: End after this many steps of the schedule of `STEPS`, to clock one step or for a test.
        watch_every: Note the objective every so many steps, outside the clock; 0 for never.
        dtype: float32 as published.

    Returns:
        The last iterate, its objective in float64, and the CPU time.
    """
    n = values.shape[1].bit_length() - 1
    transforms = _TRANSFORMS[form](n, dtype)
    half = ((values - values[:, :1]) / 2).to(dtype)
    box = noise_bound.to(dtype)[:, None]
    split = torch.zeros(2, *half.shape, dtype=dtype)
    p, q = split
    speed = torch.zeros_like(split)
    slope = torch.empty_like(split)
    rates = torch.as_tensor(learning_rate, dtype=dtype).expand(len(values))[:, None]
    decay = torch.logspace(0.0, -1.0, STEPS, base=_DECAY, dtype=torch.float64).tolist()

    seconds = 0.0
    history: list[Tensor] = []
    started = time.process_time()
    for step in range(stop_after):
        q.copy_(q.clamp(-box, box))
        if watch_every and step % watch_every == 0:
            seconds += time.process_time() - started
            history.append(merged_objective(values, split))
            started = time.process_time()
        if step == STEPS - 1:  # the published loop ends without a last step
            break
        middle = torch.add(half, q, alpha=0.5)
        and_slope = transforms.backward(0, transforms.forward(0, middle + p).sign_())
        or_slope = transforms.backward(1, transforms.forward(1, middle - p).sign_())
        torch.sub(and_slope, or_slope, out=slope[0])
        torch.add(and_slope, or_slope, out=slope[1]).mul_(0.5)
        speed.mul_(_MOMENTUM).add_(slope)
        split.sub_(speed * (rates * decay[step]))
    seconds += time.process_time() - started

    q.copy_(q.clamp(-box, box))
    return Reference(
        objective=merged_objective(values, split),
        split=split,
        seconds=seconds,
        steps=stop_after,
        history=torch.stack(history, 1) if history else torch.empty(len(values), 0, dtype=torch.float64),
    )


def merged_objective(values: Tensor, split: Tensor) -> Tensor:
    """Total strength of the interactions of a split, in float64, orders 0 and 1 of AND and OR merged.

    Args:
        values: (B, 2^n).
        split: (2, B, 2^n) p and q.

    Returns:
        (B,) float64.
    """
    n = values.shape[1].bit_length() - 1
    transforms = _Butterflies(n, torch.float64)
    p, q = split.double()
    middle = (values.double() - values[:, :1].double() + q) / 2
    and_, or_ = transforms.forward(0, middle + p), transforms.forward(1, middle - p)
    low = torch.tensor([0, *(1 << player for player in range(n))])
    merged = (and_[:, low] + or_[:, low]).abs() - and_[:, low].abs() - or_[:, low].abs()
    return and_.abs().sum(1) + or_.abs().sum(1) + merged.sum(1)

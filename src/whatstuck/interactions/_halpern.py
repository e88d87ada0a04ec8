"""The iteration that all solvers here share: Peaceman-Rachford splitting with Halpern's anchor and restarts.

A problem is split into two parts whose proximal points are easy. `near` is that of the first at the state, `point`
that of the second at the reflection 2 near - state; where both agree, they solve the problem. Plain splitting needs
tens of thousands of steps. Halpern's pull towards an anchor makes the distance between the two fall like 1/steps,
and a new anchor whenever it has fallen enough makes it fall geometrically.

Every table of a batch has its own step size, anchor and age, and leaves the batch when it is done.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

CHECK_EVERY = 25  # iterations between two looks at the gap
_FIRST_STEP = 0.03  # for tables scaled to 1; the restarts correct it within a few hundred iterations
_SUFFICIENT = 0.2  # restart when the residual fell to this share of what it was at the last restart
_NECESSARY = 0.8  # or to this share, and rises again
_LONGEST = 0.25  # or when the time since the last restart is this share of all
_WARM_UP = 20  # the last rule waits this many iterations


@dataclass(slots=True)
class Halpern:
    """Where each table of a batch stands; the first dimension of each field is the table."""

    state: Tensor  # (B, ...) z, the argument of the first proximal point
    anchor: Tensor  # (B, ...) z at the last restart
    near: Tensor  # (B, ...) proximal point at the last restart
    slope: Tensor  # (B, ...) subgradient at the last restart
    step: Tensor  # (B,)
    age: Tensor  # (B,) iterations since the last restart
    residual: Tensor  # (B,) of the last iteration
    first_residual: Tensor  # (B,) of the first iteration since the last restart

    @classmethod
    def start(cls, state: Tensor, prox: Callable[[Tensor, Tensor], Tensor]) -> Self:
        """Anchor every table at `state`; `prox` takes state and step."""
        step = torch.full(state.shape[:1], _FIRST_STEP, dtype=state.dtype, device=state.device)
        near = prox(state, step)
        return cls(
            state=state,
            anchor=state.clone(),
            near=near,
            slope=(state - near) / _FIRST_STEP,
            step=step,
            age=torch.zeros_like(step),
            residual=torch.full_like(step, math.inf),
            first_residual=torch.full_like(step, math.inf),
        )

    def advance(self, near: Tensor, point: Tensor, iteration: int) -> Tensor:
        """Move every state on, and say which tables are due for a restart: (B,) bool."""
        move = point - near
        residual = move.flatten(1).norm(dim=1)
        self.age = self.age + 1
        self.first_residual = torch.where(self.age == 1, residual, self.first_residual)
        share = _per_table(self.age / (self.age + 1), self.state)
        self.state = share * (self.state + 2 * move) + (1 - share) * self.anchor
        due: Tensor = (
            (residual <= _SUFFICIENT * self.first_residual)
            | ((residual <= _NECESSARY * self.first_residual) & (residual > self.residual))
            | ((self.age >= _LONGEST * iteration) & (iteration > _WARM_UP))
        )
        self.residual = residual
        return due

    def restart(self, which: Tensor, prox: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Anchor some tables at where they are, with a step that balances primal and dual distance.

        Args:
            which: (k,) positions of the tables.
            prox: The proximal point of the first part, for these tables only.
        """
        step, state = self.step[which], self.state[which]
        near = prox(state, step)
        slope = (state - near) / _per_table(step, state)
        moved = (near - self.near[which]).flatten(1).norm(dim=1)
        turned = (slope - self.slope[which]).flatten(1).norm(dim=1)
        balanced = (step * moved / turned).sqrt().clamp(1e-6, 1e3)
        step = torch.where((moved > 0) & (turned > 0), balanced, step)
        state = near + _per_table(step, state) * slope
        self.state[which], self.anchor[which], self.near[which], self.slope[which] = state, state, near, slope
        self.step[which] = step
        self.age[which] = 0.0
        self.residual[which] = math.inf

    def keep(self, mask: Tensor) -> None:
        """Drop the tables that are done."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[mask])


def _per_table(number: Tensor, like: Tensor) -> Tensor:
    """(B,) so shaped that it multiplies (B, ...)."""
    return number.reshape(-1, *[1] * (like.dim() - 1))

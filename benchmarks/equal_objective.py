"""Time two iterative methods to the same objective, one of which never looks at it.

The reference takes 20,000 steps whatever happens, so its time is the clock of one step times 20,000. Ours is to stop
as soon as its best objective is not above the last one of the reference. We find the number of iterations for that
first, on a ladder that starts at 25 and rounds up; then we time an extraction with just so many, from the table to
the coefficients, with all certificates that it computes on the way.

Times are CPU times of one thread, so that a busy machine hurts less, and medians; the clocks of all methods take
turns.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from reference_optimizer import FORMS, optimize
from whatstuck.interactions.extraction import Interactions, extract_interactions

_NEVER = 1e-15  # a gap tolerance that is not reached: only the iterations end the solver
_REPEATS = 5
_MANY_STEPS, _FEW_STEPS, _LARGE = 300, 24, 1 << 12  # steps per clock; few for the dense form of tables so large


def clock(work: Callable[[], Any]) -> float:
    """CPU seconds."""
    started = time.process_time()
    work()
    return time.process_time() - started


def ladder(limit: int) -> Iterator[int]:
    """25, 50, 75, 100, 150, 200, 300, 400, 600, ... up to `limit`; the solver looks at its objective every 25."""
    yield from (25, 50, 75)
    count = 100
    while count <= limit:
        yield count
        if 3 * count // 2 <= limit:
            yield 3 * count // 2
        count *= 2


def iterations_to(values: Tensor, noise_bound: Tensor, targets: Tensor, *, limit: int) -> Tensor:
    """The iterations after which our objective is at most each of the targets.

    Args:
        values: (B, 2^n).
        noise_bound: (B,).
        targets: (k, B) objectives.
        limit: Give up here.

    Returns:
        (k, B) int64, rounded up to the ladder; 0 where the limit came first.
    """
    needed = torch.zeros(targets.shape, dtype=torch.int64)
    for count in ladder(limit):
        reached = in_iterations(values, noise_bound, count).objective[None] <= targets
        needed[reached & (needed == 0)] = count
        if needed.all():
            break
    return needed


def in_iterations(values: Tensor, noise_bound: Tensor, count: int) -> Interactions:
    """Our extraction after a given number of iterations."""
    return extract_interactions(
        values, mode="paper", noise_bound=noise_bound, gap_tolerance=_NEVER, max_iterations=count
    )


@dataclass(frozen=True, slots=True)
class Clocks:
    """CPU seconds to the objectives of the reference.

    Attributes:
        alone: (rates, B) ours, one table at a time; infinite where we did not get there.
        batched: Ours per table, all in one batch, each as long as the slowest table needs at its kindest rate.
        step: Of the reference, one table, one step, by form.
    """

    alone: Tensor
    batched: float
    step: dict[str, float]


def clocks(values: Tensor, noise_bound: Tensor, needed: Tensor, kindest: Tensor) -> Clocks:
    """Time us and the reference by turns; medians.

    Args:
        values: (B, 2^n).
        noise_bound: (B,).
        needed: (rates, B) iterations, from `iterations_to`.
        kindest: (B,) the rate at which the reference ends lowest.
    """
    rows = range(len(values))
    dense_steps = _FEW_STEPS if values.shape[1] >= _LARGE else _MANY_STEPS
    steps: dict[str, list[float]] = {form: [] for form in FORMS}
    alone: dict[tuple[int, int], list[float]] = {
        (row, count): [] for row in rows for count in needed[:, row].tolist() if count
    }
    longest = needed.gather(0, kindest[None])
    batched: list[float] = []
    for _ in range(_REPEATS):
        for form, found in steps.items():
            stop = dense_steps if form == "dense" else _MANY_STEPS
            found.append(optimize(values[:1], noise_bound[:1], 1e-6, form=form, stop_after=stop).seconds_per_step)
        for (row, count), found in alone.items():
            found.append(clock(partial(in_iterations, values[row, None], noise_bound[row, None], count)))
        if longest.all():
            batched.append(clock(partial(in_iterations, values, noise_bound, int(longest.max()))) / len(values))
    medians = {key: statistics.median(found) for key, found in alone.items()} | {(row, 0): math.inf for row in rows}
    return Clocks(
        alone=torch.tensor([[medians[row, count] for row, count in enumerate(counts)] for counts in needed.tolist()]),
        batched=statistics.median(batched) if batched else math.nan,
        step={form: statistics.median(found) for form, found in steps.items()},
    )

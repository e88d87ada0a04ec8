"""In which order rows are trained: one list of ids for a whole phase, so that every trainer can follow it.

Resampling cannot be written down in advance, since it looks at the model: `whatstuck.training.resampler` does that, on
top of the order made here.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np

from whatstuck.errors import WhatStuckError
from whatstuck.rows.interventions.phases import Order, Phase

_STRETCHES = 10


def sequence(phase: Phase, *, batch: int, seed: int, steps: int | None = None) -> list[str]:
    """Ids in the order in which they are trained.

    Args:
        phase: The phase.
        batch: Rows per step.
        seed: Seed of the order; a phase has another order with every seed, unless it is `given`.
        steps: Steps, where they are not those of the phase.

    Returns:
        `steps * batch` ids: a step takes the next `batch` of them.

    Raises:
        WhatStuckError: If rows cannot be kept apart.
    """
    steps = phase.steps if steps is None else steps
    draws = steps * batch
    random = np.random.default_rng([seed, sum(map(ord, phase.name))])
    if phase.beside:
        wanted = round(phase.share * draws)
        first = list(islice(_epochs(phase.rows, phase.order, random), wanted))
        rest = list(islice(_epochs(phase.beside, "shuffled", random), draws - wanted))
        together = first + rest
        return [together[index] for index in random.permutation(draws)]
    epochs = _epochs(phase.rows, phase.order, random)
    if phase.apart:
        return list(islice(_separated(epochs, phase, batch), draws))
    return list(islice(epochs, draws))


def _epochs(rows: Sequence[str], order: Order, random: np.random.Generator) -> Iterator[str]:
    """Epoch after epoch, without an end."""
    while True:
        stretches = 1 if order == "shuffled" else _STRETCHES
        for part in np.array_split(np.arange(len(rows)), stretches):
            chosen = part if order == "given" else random.permutation(part)
            yield from (rows[index] for index in chosen)


def _separated(epochs: Iterator[str], phase: Phase, batch: int) -> Iterator[str]:
    """Batches with at most one row of each group: a second one waits for the next batch."""
    group_of = {row: index for index, group in enumerate(phase.apart) for row in group}
    waiting: list[str] = []
    while True:
        taken: set[int] = set()
        filled = passed = 0
        late, waiting = waiting, []
        for row in chain(late, epochs):
            group = group_of.get(row)
            if group is not None and group in taken:
                waiting.append(row)
                passed += 1
                if passed > len(phase.rows) + len(late):
                    raise WhatStuckError(
                        "conflicting rows cannot be kept apart, there are too few others for a step: remove them "
                        "instead, or use a smaller batch"
                    )
                continue
            if group is not None:
                taken.add(group)
            yield row
            filled += 1
            if filled == batch:
                break
        waiting += late[filled + passed :]  # in line still, not looked at any more

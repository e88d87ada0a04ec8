"""Steps that are dense from the first one, and steps where the trainer saves checkpoints that could be kept."""

import math
from collections.abc import Sequence
from typing import Any

_EVEN = 8


def dense_steps(max_steps: int, every: int, *, dense: bool = True) -> list[int]:
    """Steps at which a checkpoint is saved.

    Args:
        max_steps: Number of optimizer steps of the training.
        every: Save every so many steps.
        dense: Also save step 0 (the untouched model) and the powers of two.

    Returns:
        The steps, ascending; the last one is `max_steps`.

    Raises:
        ValueError: If `max_steps` or `every` is below 1.

    >>> dense_steps(100, 50)
    [0, 1, 2, 4, 8, 16, 32, 50, 64, 100]
    >>> dense_steps(100, 50, dense=False)
    [50, 100]
    """
    if max_steps < 1 or every < 1:
        raise ValueError(f"max_steps and every must be at least 1, got {max_steps} and {every}")
    steps = {*range(every, max_steps + 1, every), max_steps}
    if dense:
        steps |= {0, *(1 << power for power in range(max_steps.bit_length()))}
    return sorted(steps)


def default_steps(max_steps: int) -> list[int]:
    """Steps to probe where there is no budget: 0, the powers of two, and every eighth of the training.

    >>> default_steps(80)
    [0, 1, 2, 4, 8, 10, 16, 20, 30, 32, 40, 50, 60, 64, 70, 80]
    >>> default_steps(0)
    [0]
    """
    return dense_steps(max_steps, max(1, max_steps // _EVEN)) if max_steps else [0]


def saving_steps(arguments: Any, max_steps: int) -> Sequence[int]:
    """Steps at which the trainer saves by itself; all of them where that is not known beforehand.

    Args:
        arguments: The trainer's arguments.
        max_steps: Steps of the training.
    """
    every = float(arguments.save_steps or 0)
    strategy = str(getattr(arguments.save_strategy, "value", arguments.save_strategy))
    if strategy == "steps" and every > 0:
        interval = math.ceil(every * max_steps) if every < 1 else int(every)
        return range(interval, max_steps + 1, interval) or [max_steps]
    epochs = float(arguments.num_train_epochs or 0)
    if strategy == "epoch" and arguments.max_steps <= 0 and epochs >= 1:
        return [round(max_steps * epoch / epochs) for epoch in range(1, int(epochs) + 1)]
    return range(1, max_steps + 1)

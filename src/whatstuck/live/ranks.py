"""Processes that train together: rows are dealt out among them, results come back to all.

An error in one process must not leave the others waiting, so it travels with the results and is raised everywhere.
"""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from whatstuck.errors import WhatStuckError

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Ranks:
    """The processes of this training; one, where nothing was launched in parallel."""

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.size: int = dist.get_world_size() if together else 1
        self.rank: int = dist.get_rank() if together else 0

    @property
    def first(self) -> bool:
        """Whether this process writes and decides."""
        return self.rank == 0

    def mine(self, count: int) -> range:
        """Which of `count` things are this process's."""
        return range(self.rank, count, self.size)

    def everywhere(self, work: Callable[[], T]) -> list[T]:
        """Do something in every process, and give all results to all, by rank.

        Raises:
            WhatStuckError: In every process, if it failed in one.
        """
        if self.size == 1:
            return [work()]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, _caught(work))
        return _raised(found)

    def first_decides(self, work: Callable[[], T]) -> T:
        """Do something in the first process only, and give its result to all.

        Raises:
            WhatStuckError: In every process, if it failed.
        """
        if self.size == 1:
            return work()
        found: list[Any] = [_caught(work) if self.first else None]
        dist.broadcast_object_list(found, src=0)
        result: T = _raised(found)[0]
        return result


def _caught(work: Callable[[], Any]) -> tuple[Any, str | None]:
    try:
        return work(), None
    except WhatStuckError as error:
        return None, str(error)
    except Exception as error:  # the others wait for an answer, whatever went wrong here
        logger.exception("a process of the training failed")
        return None, f"{type(error).__name__}: {error}"


def _raised(found: list[tuple[Any, str | None]]) -> list[Any]:
    errors = [error for _, error in found if error is not None]
    if errors:
        raise WhatStuckError(errors[0])
    return [result for result, _ in found]

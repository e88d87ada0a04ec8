"""Who says whether a reply to a training row is right: a checker of ours, a function of the user's, or a task.

A function of the user's, given by name, runs in a process of its own that is ended where it takes too long. A task
judges by its own rules, so any shortest move and any right formula counts, not the one that the solver wrote alone.
"""

import dataclasses
import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from whatstuck.datasets import Row
from whatstuck.errors import WhatStuckError
from whatstuck.files import file_hash
from whatstuck.generalization.arms import ArmRows
from whatstuck.generalization.cells import CHECK_FAILED, CHECK_TIMED_OUT
from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.own.checking import Guard
from whatstuck.generalization.task import Task
from whatstuck.rows.verdicts.answers import Checker, find_checker
from whatstuck.runs import Json


class CheckFailedError(WhatStuckError):
    """A reply could not be judged, which says nothing of the row."""


class CheckTimedOutError(CheckFailedError):
    """A check did not come back in time."""


class TaskChecker:
    """Judges replies to the rows of an arm as the task does; see `task_checker`.

    Attributes:
        name: What to call it.
        rows_sha256: Hash of the rows of the arm.
    """

    def __init__(self, task: Task[Any, Any, Any], arm: ArmRows) -> None:
        self.name = f"task {task.name}, arm {arm.manifest['arm']}"
        self.rows_sha256: str = arm.manifest["rows_sha256"]
        self._task = task
        self._asked: dict[str, tuple[str, str, Any, InstructionMapping]] = {
            row["row_id"]: (row["prompt"][-1]["content"], row["completion"][-1]["content"], item, mapping)
            for row, (item, mapping) in zip(arm.rows, arm.posed, strict=True)
        }

    def __call__(self, row: Row, answer: str) -> bool:
        """Whether a whole reply, as the row's completion is one, is right."""
        item, mapping = self._find(row)
        read = self._task.parser.parse(answer)
        if read is None:
            return False
        score = self._task.scorer.score(item, mapping, read)
        _refuse(score.outcome, row)
        return score.success

    def check(self, rows: Iterable[Row]) -> None:
        """See that all rows are the arm's, before a model is asked.

        Raises:
            WhatStuckError: Naming the first one that is not.
        """
        for row in rows:
            self._find(row)

    def _find(self, row: Row) -> tuple[Any, InstructionMapping]:
        prompt, completion, item, mapping = self._asked.get(row.row_id, ("", "", None, None))
        # an instruction may have been put before the prompt
        if mapping is None or completion != row.completion or not row.content.endswith(prompt):
            raise WhatStuckError(
                f"row {row.row_id} is no row of the {self.name}: make the checker of the arm that wrote the file, with "
                "the same count and seed"
            )
        return item, mapping


class GuardedChecker:
    """A function of the user's, called with row and answer, that always comes back.

    Args:
        name: `module:function` or `file.py:function`.
        time_limit: Seconds for one answer.

    Raises:
        WhatStuckError: If it cannot be loaded.
    """

    def __init__(self, name: str, *, time_limit: float) -> None:
        self._guard = Guard("row function", name, time_limit, Path.cwd())
        self.source = self._guard.source

    def __call__(self, row: Row, answer: str) -> bool:
        """Whether it is right.

        Raises:
            CheckFailedError: If the function raised, or took too long.
        """
        checked = self._guard(dataclasses.asdict(row), answer)
        _refuse(checked.failure, row)
        return checked.found is True

    def close(self) -> None:
        """End its process."""
        self._guard.close()


def task_checker(task: Task[Any, Any, Any], arm: ArmRows) -> TaskChecker:
    """A checker of the rows of an arm, for `curate` and `difficulties`.

    Args:
        task: The task that the arm was made of.
        arm: The arm as `make_arm` returns it, made with the settings that wrote the file.

    Returns:
        A checker; it raises where it is called with a row of another arm.
    """
    return TaskChecker(task, arm)


@contextmanager
def judging(checker: str | Checker, *, time_limit: float) -> Iterator[Checker]:
    """The checker for a while: by name, as for `whatstuck rows` but guarded, or itself.

    Args:
        checker: A name, or a function of row and answer, which runs in this process and is not guarded.
        time_limit: Seconds that a function given by name has for one answer.

    Raises:
        WhatStuckError: If there is none of that name.
    """
    if isinstance(checker, str) and ":" in checker:
        guarded = GuardedChecker(checker, time_limit=time_limit)
        try:
            yield guarded
        finally:
            guarded.close()
    else:
        yield find_checker(checker) if isinstance(checker, str) else checker


def identity_of(checker: str | Checker, judge: Checker) -> Json:
    """What a manifest says of a checker: its name, and a hash of what it is made of, where there is something.

    Args:
        checker: As it was given.
        judge: What `judging` made of it.
    """
    if isinstance(judge, TaskChecker):
        return {"checker": judge.name, "checker_sha256": judge.rows_sha256}
    if isinstance(checker, str):
        source = judge.source if isinstance(judge, GuardedChecker) else None
        return {"checker": checker, "checker_sha256": _hash(source)}
    made = checker if inspect.isroutine(checker) else type(checker)
    file = inspect.getsourcefile(made) if made.__module__ != "builtins" else None
    return {"checker": f"{made.__module__}:{made.__qualname__}", "checker_sha256": _hash(file)}


def _hash(file: str | Path | None) -> str | None:
    return None if file is None or not Path(file).is_file() else file_hash(Path(file))


def _refuse(outcome: str | None, row: Row) -> None:
    if outcome == CHECK_TIMED_OUT:
        raise CheckTimedOutError(f"the check of row {row.row_id} took too long")
    if outcome == CHECK_FAILED:
        raise CheckFailedError(f"the check of row {row.row_id} failed")

"""The task that a call of `generalize` names: wordings, a file of one's own, or one by its name."""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.own.loading import OwnSource
from whatstuck.generalization.registry import make_task, maker_of
from whatstuck.generalization.settings import GeneralizeSettings
from whatstuck.generalization.task import Listed, Task
from whatstuck.models import find_checkpoints


def find_task(settings: GeneralizeSettings, *, identity: str = "") -> Task[Any, Any, Any]:
    """The task that settings name.

    Args:
        settings: The settings.
        identity: Of the task that the run was begun with, if it was.

    Raises:
        WhatStuckError: If there is none, it is not usable, or has no turns although episodes are asked for.
    """
    if settings.template_variants is not None:
        from whatstuck.generalization.wordings import load_wordings

        found: Task[Any, Any, Any] = load_wordings(
            [Path(path) for path in settings.template_variants],
            training=settings.training_wording,
            checkpoints=[checkpoint.path for checkpoint in find_checkpoints(settings.checkpoints)],
            identity=identity,
            max_new_tokens=settings.max_new_tokens,
        )
    elif settings.is_file:
        from whatstuck.generalization.own import load_task

        found = load_task(str(settings.task), max_new_tokens=settings.max_new_tokens)
    else:
        name, options = str(settings.task), dict(settings.options)
        takes = inspect.signature(maker_of(name)).parameters
        # some tasks begin replies otherwise, or draw other items
        for option, wanted in (("thought", settings.thought), ("whole", settings.episodes)):
            if wanted and option in takes:
                options.setdefault(option, True)
        found = make_task(name, **options)
    longest = settings.max_new_tokens
    if longest is not None:
        found = replace(found, max_new_tokens=longest, longest_thought=longest)
    if settings.episodes and found.step is None:
        raise WhatStuckError(f"the task {found.name} has no turns: leave --episodes out")
    return found


def is_unseen(task: Task[Any, Any, Any]) -> bool:
    """Whether a task keeps what it asks out of its training rows: by a split, or since it knows those rows."""
    if isinstance(task.source, OwnSource):
        return task.source.unseen
    return not isinstance(task.source, Listed) or bool(task.source.contents("train", {}))

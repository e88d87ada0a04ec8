"""Tasks by name: ours, those of other packages (entry points `whatstuck.tasks`), and files of the user's."""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.task import Task

Maker = Callable[..., Task[Any, Any, Any]]

_MAKERS: dict[str, Maker] = {}


def task(name: str) -> Callable[[Maker], Maker]:
    """Register a function that makes a task; its keyword arguments are the task's options.

    Args:
        name: What it is called on the command line.
    """

    def register(maker: Maker) -> Maker:
        _MAKERS[name] = maker
        return maker

    return register


def task_names() -> list[str]:
    """Every task that can be named."""
    _load_ours()
    return sorted({*_MAKERS, *(point.name for point in entry_points(group="whatstuck.tasks"))})


def make_task(name: str, **options: Any) -> Task[Any, Any, Any]:
    """Make a task.

    Args:
        name: Of ours or of an entry point.
        **options: Of the task.

    Raises:
        WhatStuckError: If there is none of that name, or it does not take the options.
    """
    maker = maker_of(name)
    parameters = inspect.signature(maker).parameters.values()
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unknown = [option for option in options if option not in known]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        near = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known) or 'none'}"
        raise WhatStuckError(f"{unknown[0]!r} is no option of the task {name}: {hint}")
    try:
        return maker(**options)
    except TypeError as error:
        raise WhatStuckError(f"task {name!r}: {error}") from error


def maker_of(name: str) -> Maker:
    """What makes a task; its keyword arguments are the task's options.

    Args:
        name: Of ours or of an entry point.

    Raises:
        WhatStuckError: If there is none of that name.
    """
    _load_ours()
    maker = _MAKERS.get(name)
    if maker is None:
        for point in entry_points(group="whatstuck.tasks", name=name):
            maker = point.load()
    if maker is None:
        raise WhatStuckError(f"unknown task {name!r}: use {', '.join(task_names())}, or a YAML file of your own")
    return maker


def _load_ours() -> None:
    from whatstuck.generalization import tasks

    for module in pkgutil.iter_modules(tasks.__path__):
        importlib.import_module(f"{tasks.__name__}.{module.name}")

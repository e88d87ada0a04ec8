"""The process that a user's checker runs in; `checking` starts it, and kills it where a check takes too long.

It speaks JSON, one object a line: first what to check with, then one reply at a time. It is no fork of the process that
holds the model, since torch has threads, and it imports no more than it needs.

It ends itself where nobody is left to do so: by the clock, which works inside of C as well, and by a look at its
parent, since a checker may use the clock for itself.
"""

import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

_GRACE = 5.0  # seconds behind the time limit: by then, who should have ended this process is gone
_LOOK = 0.5  # seconds between looks at the parent

Check = Callable[[dict[str, Any], str], Any]


def main() -> None:
    """Answer until nobody asks any more."""
    # a checker that prints or reads must not touch the pipes
    asked, told = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    with asked, told:
        settings = json.loads(asked.readline())
        threading.Thread(target=_end_with, args=(settings["parent"],), daemon=True).start()
        _die_after(settings["loading"] + _GRACE)
        try:
            check, source = _load(settings["kind"], settings["what"], settings["folder"])
        except (Exception, SystemExit) as error:  # noqa: BLE001 - of the user's module
            _tell(told, {"error": _brief(error)})
            return
        finally:
            _die_after(0)
        _tell(told, {"found": source})
        for line in asked:
            request = json.loads(line)
            _tell(told, _answer(check, request["row"], request["answer"], request["time_limit"]))


def _answer(check: Check, row: dict[str, Any], answer: str, time_limit: float) -> dict[str, Any]:
    _die_after(time_limit + _GRACE)
    try:
        return {"found": check(row, answer)}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - of the user's checker
        return {"error": _brief(error)}
    finally:
        _die_after(0)


def _die_after(seconds: float) -> None:
    """End this process by the system's default, which works inside of C as well; not on Windows."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _end_with(parent: int) -> None:
    """End this process, and what the checker has started, as soon as the parent is gone; not on Windows."""
    while os.getppid() == parent or os.name == "nt":
        time.sleep(_LOOK)
    with contextlib.suppress(OSError):  # a judge may have been denied to send signals
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _load(kind: str, what: str, folder: str) -> tuple[Check, str | None]:
    """The check, and the file that it is written in."""
    if kind == "regex":
        pattern = re.compile(what)

        def extract(_: dict[str, Any], answer: str) -> str | None:
            match = pattern.search(answer)
            return None if match is None else match[1 if pattern.groups else 0] or ""

        return extract, None
    if kind == "entry point":
        (point,) = entry_points(group="whatstuck.checkers", name=what)
        function = point.load()
    else:
        from whatstuck.errors import WhatStuckError
        from whatstuck.rows.verdicts.answers import find_function

        sys.path.append(str(Path.cwd()))
        os.chdir(folder)  # a module or file beside the task file is found, too
        function = find_function(what, "checker")
        if kind == "maker":
            function = function()

    given = _row if kind == "row function" else dict[str, Any]

    def judge(row: dict[str, Any], answer: str) -> bool:
        found = function(given(row), answer)
        if found is None or isinstance(found, str):  # a function without return, or one that judges in words
            raise WhatStuckError(f"it returned {found!r}, not True or False")
        return bool(found)

    code = getattr(function, "__code__", None)
    return judge, None if code is None else str(Path(code.co_filename).resolve())


def _row(fields: dict[str, Any]) -> Any:
    """A training row, as the checkers of `whatstuck rows` get it."""
    from whatstuck.datasets import Message, Row

    messages = tuple(Message(**message) for message in fields["messages"])
    players = fields["players"] and tuple((start, end) for start, end in fields["players"])
    return Row(**fields | {"messages": messages, "players": players})


def _brief(error: BaseException) -> str:
    said = str(error).strip().split("\n", maxsplit=1)[0]
    name = type(error).__name__
    return (said if name == "WhatStuckError" else f"{name}: {said}" if said else name)[:200]


def _tell(told: Any, answer: dict[str, Any]) -> None:
    told.write(json.dumps(answer) + "\n")
    told.flush()


if __name__ == "__main__":
    main()

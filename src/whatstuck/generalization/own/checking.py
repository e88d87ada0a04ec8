"""A user's checker, or a regular expression of theirs, which may raise or never come back.

Only another process can be ended for sure: a backtracking regular expression sits in C and hears nothing. So the checks
run in a worker, one after another, and the worker is killed and started again where one takes too long.
"""

import contextlib
import json
import logging
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, TextIO

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.own.templates import near

CHECK_FAILED = "check_failed"
CHECK_TIMED_OUT = "check_timed_out"

_LOADING = 60.0  # seconds for the import of a checker's module
_ENDING = 2.0  # seconds for the last words of a process that was killed
_LOGGED = 3  # different failures that are logged

_log = logging.getLogger(__name__)

# a row function is one of `whatstuck rows`: it is called with a Row, not with columns; a maker makes the function
Kind = Literal["exact", "number", "regex", "function", "row function", "maker", "entry point"]


def parse_checker(name: str) -> tuple[Kind, str]:
    """What a checker's name says: its kind, and the pattern or function.

    Raises:
        WhatStuckError: If there is none of that name, or the pattern is none.
    """
    if name == "exact":
        return "exact", ""
    if name == "number":
        return "number", ""
    if name.startswith("regex:"):
        pattern = name.removeprefix("regex:").strip()
        try:
            re.compile(pattern)
        except re.error as error:
            raise WhatStuckError(f"the checker's regular expression {pattern!r} is wrong: {error}") from error
        if not pattern:
            raise WhatStuckError("the checker's regular expression is empty: write one that finds the answer")
        return "regex", pattern
    if ":" in name:
        return "function", name
    known = sorted(point.name for point in entry_points(group="whatstuck.checkers"))
    if name in known:
        return "entry point", name
    ours = ["exact", "number", "regex: PATTERN", "module:function", *known]
    raise WhatStuckError(f"unknown checker {name!r}{near(name, ours)}; use {', '.join(ours)}")


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check said.

    Attributes:
        found: Of a function True or False; of a pattern the text, or None where it matches nothing.
        failure: `check_failed` or `check_timed_out`; None where the check came back.
        said: What it raised, or why it did not come back, where it failed.
    """

    found: bool | str | None
    failure: str | None = None
    said: str = ""


def guarded(checker: str, *, time_limit: float = 1.0, folder: Path | None = None) -> "Guard":
    """A checker that always comes back.

    Args:
        checker: `regex: PATTERN`, `module:function`, `file.py:function`, or the name of an entry point.
        time_limit: Seconds for one reply.
        folder: Where a module or file may lie; the present one unless it is given.

    Raises:
        WhatStuckError: If there is no such checker, or its module cannot be loaded.
    """
    kind, what = parse_checker(checker)
    if kind in ("exact", "number"):
        raise WhatStuckError(f"the checker {kind!r} is ours and needs no guard")
    return Guard(kind, what, time_limit, folder or Path.cwd())


class Guard:
    """A checker in a worker; see `guarded`.

    Attributes:
        failures: How often a check raised or timed out, by the first line of what it said.
        source: The file that a function is written in, where it is known.
    """

    def __init__(self, kind: Kind, what: str, time_limit: float, folder: Path) -> None:
        self.failures: Counter[str] = Counter()
        self.source: Path | None = None
        self._settings = {
            "kind": kind,
            "what": what,
            "folder": str(folder),
            "loading": _LOADING,
        }
        self._time_limit = time_limit
        self._worker: _Worker | None = self._start()

    def __call__(self, row: Mapping[str, Any], answer: str) -> Checked:
        """Check one reply; a failure is counted, and the first different ones are logged.

        Args:
            row: The columns of the row, for a function.
            answer: The reply.

        Returns:
            What the checker said; never raises because of it.
        """
        checked = self.ask(row, answer)
        if checked.failure is not None:
            if checked.said not in self.failures and len(self.failures) < _LOGGED:
                _log.warning("the checker %r failed: %s", self._settings["what"], checked.said)
            self.failures[checked.said] += 1
        return checked

    def ask(self, row: Mapping[str, Any], answer: str, *, longer: float = 0.0) -> Checked:
        """The same, of which nothing is counted or logged, with some more seconds."""
        if self._worker is None:
            try:
                self._worker = self._start()
            except WhatStuckError as error:  # it could be loaded before
                return Checked(None, CHECK_FAILED, str(error))
        limit = self._time_limit + longer
        said = self._worker.ask({"row": dict(row), "answer": answer, "time_limit": limit}, limit)
        if said is None:
            self._worker.end()
            self._worker = None
            return Checked(None, CHECK_TIMED_OUT, f"no answer in {limit:g} seconds")
        if said.get("ended"):
            self._worker.end()
            self._worker = None
            return Checked(None, CHECK_FAILED, "the checker ended its process")
        if "error" in said:
            return Checked(None, CHECK_FAILED, said["error"])
        return Checked(said["found"])

    def close(self) -> None:
        """End the worker; the next check starts another."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def _start(self) -> "_Worker":
        worker = _Worker()
        said = worker.ask({**self._settings, "parent": os.getpid()}, _LOADING)
        if said is None or "found" not in said:
            worker.end()
            why = "it takes too long" if said is None else said.get("error", "it ended the process")
            raise WhatStuckError(f"the checker {self._settings['what']!r} cannot be loaded: {why}")
        self.source = None if said["found"] is None else Path(said["found"])
        return worker


class _Worker:
    """The process and its pipes. A thread reads, since pipes know no time limit on every system."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "whatstuck.generalization.own.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,  # an interrupt is for us
        )
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        stdout = self._process.stdout
        reader = threading.Thread(target=_read, args=(stdout, self._said), daemon=True)
        reader.start()
        self.end = weakref.finalize(self, _end, self._process, reader)

    def ask(self, request: dict[str, Any], time_limit: float) -> dict[str, Any] | None:
        """What the process says; None where it says nothing in time, `{"ended": True}` where it is gone."""
        stdin = self._process.stdin
        if stdin is None:
            return {"ended": True}
        try:
            stdin.write(json.dumps(request, default=str) + "\n")
            stdin.flush()
        except BrokenPipeError:
            return {"ended": True}
        try:
            line = self._said.get(timeout=time_limit)
        except queue.Empty:
            return None
        said: dict[str, Any] = json.loads(line) if line else {"ended": True}
        return said


def _read(stdout: TextIO, said: "queue.SimpleQueue[str]") -> None:
    with stdout:  # closed here, since to close it elsewhere would wait for this thread
        for line in stdout:
            said.put(line)
    said.put("")


def _end(process: "subprocess.Popen[str]", reader: threading.Thread) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what the checker has started, which holds our pipes open
    process.kill()
    process.wait()
    reader.join(_ENDING)  # a child that left the group holds the pipe open as long as it lives
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):  # something was left to be written
            process.stdin.close()

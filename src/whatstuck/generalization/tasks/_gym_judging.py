"""The judges of reasoning-gym, for a process of their own: several hand a reply to `eval`, or to sympy, which does so.

A reply of a model is then code. It runs here, within a time limit, and can neither write nor start anything.
"""

import base64
import functools
import os
import pickle
import sys
from collections.abc import Callable, Mapping
from typing import Any

from whatstuck.errors import require

LONGEST = 2000
"""Characters of a reply that are judged, or twice those of the right answer."""

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_ACTS = ("os.", "subprocess.", "socket.", "shutil.", "pty.", "ctypes.", "urllib.", "webbrowser.")
_LOOKS = frozenset({"os.listdir", "os.scandir", "os.walk", "os.fwalk"})


def sent(dataset: str, settings: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, str]:
    """A question as the judge in the other process gets it."""
    return {"dataset": dataset, "settings": _packed(dict(settings)), "entry": _packed(dict(entry))}


def is_no_answer(answer: str, gold: object) -> bool:
    """Whether a reply is wrong before any judge sees it: by its length, or since it reaches into Python's insides."""
    return "__" in answer or len(answer) > max(LONGEST, 2 * len(str(gold)))


def make_judge() -> Callable[[dict[str, Any], str], bool]:
    """What the other process calls; there alone, since it takes away what a reply could do harm with."""
    factory: Any = require("reasoning_gym.factory", "tasks")

    @functools.lru_cache(maxsize=64)
    def judge_of(dataset: str, settings: str) -> Any:
        return factory.create_dataset(dataset, **_unpacked(settings))

    def is_right(row: dict[str, Any], answer: str) -> bool:
        judge = judge_of(row["dataset"], row["settings"])
        return float(judge.score_answer(answer, _unpacked(row["entry"]))) >= 1

    sys.addaudithook(_refuse_deeds)
    return is_right


def _packed(found: dict[str, Any]) -> str:
    return base64.b64encode(pickle.dumps(found)).decode()  # JSON would make lists of tuples


def _unpacked(packed: str) -> dict[str, Any]:
    found: dict[str, Any] = pickle.loads(base64.b64decode(packed))  # noqa: S301 - of our own process
    return found


def _refuse_deeds(event: str, args: tuple[Any, ...]) -> None:
    """Whatever changes something outside of this process; an error that Python takes for a missing right."""
    writes = event == "open" and bool(args[2] & _WRITES)
    if writes or (event.startswith(_ACTS) and event not in _LOOKS):
        raise PermissionError(f"a judge does nothing but judge: {event}")

"""Whether an answer is right: by text, by number, by labels, or as a judge of the user's own says.

The same checker looks at the finished model's answers, at the base model's, and at the gold answer itself: gold that
fails its own checker was never to be learned.
"""

import hashlib
import importlib
import re
import sys
import unicodedata
from collections.abc import Callable
from fractions import Fraction
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

from whatstuck.datasets import Row
from whatstuck.errors import WhatStuckError

_QUOTES = frozenset({"Pi", "Pf", "Ps", "Pe"})  # categories: quotation marks and brackets
_MARKS = frozenset(
    ".,;:!?¡¿…'\"*_`、。，；：！？・।॥؟،؛։܀"
)  # not #, %, & or a dash: "C#", "50%" and "-5" mean something
_UNSPACED = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"})
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(rf"(?<![\w.])[-+]?(?:{_DIGITS})(?:e[-+]?\d{{1,3}}|\s?/\s?\d+)?(?![\d/])", re.IGNORECASE)
_AROUND = " \t\n$€£¥₹%"  # may stand beside a number that is a whole answer
_LONGEST_NUMBER = 400  # characters; longer ones are no numbers that anybody compares


class Checker(Protocol):
    """Whether an answer to a row is right."""

    def __call__(self, row: Row, answer: str) -> bool:
        """True where it is."""


def find_checker(name: str) -> Checker:
    """The checker of that name.

    Args:
        name: `auto` compares numbers where the gold answer is one, else as `exact`; `exact`: equal when `normalized`;
            `number`: the last number of the answer is the last of the gold; `contains`: the normalized gold stands in
            the answer, as whole words; `labels`: comma-separated, in any order; `module:function` or
            `file.py:function`: a judge of the user's, called with the row and the answer.

    Raises:
        WhatStuckError: If there is none.
    """
    if name in _CHECKERS:
        return _CHECKERS[name]
    if ":" not in name:
        raise WhatStuckError(f"unknown checker {name!r}: use {', '.join(_CHECKERS)}, or module:function for your own")
    return _Judge(name, find_function(name, "checker"))


def judges_wordings(checker: Checker) -> bool:
    """Whether a checker knows a right answer in other words than the gold ones: then long ones are generated, too."""
    return checker not in (_auto, _exact)


def find_function(name: str, what: str) -> Callable[..., Any]:
    """A function of the user's by `module:function` or `file.py:function`.

    Args:
        name: Where it is.
        what: What it is for, for messages.

    Raises:
        WhatStuckError: If there is none.
    """
    where, _, function = name.rpartition(":")
    if not where or not function:
        raise WhatStuckError(f"the {what} {name!r} is not understood: give module:function")
    found = getattr(_load(where, f"{what} {name!r}"), function, None)
    if not callable(found):
        raise WhatStuckError(f"the {what} {name!r} is no function of {where}: give module:function")
    return cast("Callable[..., Any]", found)


def function_hash(name: str) -> str | None:
    """Hash of the file that a function of the user's is in: what was judged by another version is judged again.

    Args:
        name: As for `find_function`; the name of a checker of ours has none.
    """
    where, colon, _ = name.rpartition(":")
    if not colon:
        return None
    file = getattr(_load(where, repr(name)), "__file__", None)
    return None if file is None or not Path(file).is_file() else hashlib.sha256(Path(file).read_bytes()).hexdigest()


def normalized(text: str) -> str:
    """A text as answers are compared: NFKC, case folded, spaces as one, without punctuation around it.

    Works on every script, and nothing but white space becomes empty: an answer of punctuation alone stays.

    >>> normalized(" “New  York.” "), normalized("ＡＢＣ"), normalized("?!"), normalized("C#"), normalized("-5")
    ('new york', 'abc', '?!', 'c#', '-5')
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    whole = " ".join(folded.split())
    first, last = 0, len(whole)
    while first < last and _is_outer(whole[first]):
        first += 1
    while last > first and _is_outer(whole[last - 1]):
        last -= 1
    return whole[first:last] or whole


def _is_outer(character: str) -> bool:
    return character.isspace() or character in _MARKS or unicodedata.category(character) in _QUOTES


# --- checkers


def _exact(row: Row, answer: str) -> bool:
    return normalized(answer) == normalized(row.completion)


def _number(row: Row, answer: str) -> bool:
    gold = _numbers(row.completion)
    found = _numbers(answer)
    return bool(gold) and bool(found) and gold[-1] == found[-1]


def _auto(row: Row, answer: str) -> bool:
    return _number(row, answer) if _is_number(row.completion) else _exact(row, answer)


def _contains(row: Row, answer: str) -> bool:
    gold, text = normalized(row.completion), normalized(answer)
    at = text.find(gold)
    while at >= 0:
        end = at + len(gold)
        if not _goes_on(text[at - 1 : at], gold[:1]) and not _goes_on(gold[-1:], text[end : end + 1]):
            return bool(gold)
        at = text.find(gold, at + 1)
    return False


def _labels(row: Row, answer: str) -> bool:
    return _label_set(answer) == _label_set(row.completion)


_CHECKERS: dict[str, Checker] = {
    "auto": _auto,
    "exact": _exact,
    "number": _number,
    "contains": _contains,
    "labels": _labels,
}


def _label_set(text: str) -> frozenset[str]:
    return frozenset(label for part in text.split(",") if (label := normalized(part)))


def _goes_on(before: str, after: str) -> bool:
    """Whether two neighbouring characters are of one word; scripts that put no spaces end a word anywhere."""
    both = (before, after)
    return all(c.isalnum() and unicodedata.name(c, "").split(" ")[0] not in _UNSPACED for c in both)


# --- numbers


def _is_number(text: str) -> bool:
    """Whether the whole text is one number; "007" is none, but a name."""
    bare = _ascii_digits(text).strip().strip(_AROUND).rstrip(".").strip()
    match = _NUMBER.fullmatch(bare)
    return match is not None and not re.match(r"[-+]?0\d", bare) and bool(_numbers(bare))


def _numbers(text: str) -> list[Fraction]:
    """The numbers in a text, in order; "1,000", "3/4", "2.5e3" and digits of any script are read."""
    found = []
    for match in _NUMBER.finditer(_ascii_digits(text)):
        written = re.sub(r"[,\s]", "", match.group())
        if len(written) <= _LONGEST_NUMBER and not re.search(r"/0+$", written):
            top, *below = written.split("/")
            found.append(Fraction(top) / (Fraction(below[0]) if below else 1))
    return found


def _ascii_digits(text: str) -> str:
    """NFKC, digits of all scripts as 0 to 9, minus signs and fraction bars as one types them."""
    plain = unicodedata.normalize("NFKC", text).replace("\u2212", "-").replace("\u2044", "/")
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in plain)


# --- a judge of the user's own


class _Judge:
    """A function of the user's, whose failures name the row."""

    def __init__(self, name: str, function: Callable[[Row, str], Any]) -> None:
        self._name = name
        self._function = function

    def __call__(self, row: Row, answer: str) -> bool:
        try:
            found = self._function(row, answer)
        except Exception as error:
            raise self._failure(row, _brief(error)) from error
        if found is None or isinstance(found, str):  # a function without return, or one that judges in words
            raise self._failure(row, f"it returned {found!r}, not True or False")
        return bool(found)

    def _failure(self, row: Row, reason: str) -> WhatStuckError:
        return WhatStuckError(f"the checker {self._name} failed on row {row.row_id}: {reason}")


def _load(where: str, name: str) -> Any:
    here = str(Path.cwd())
    sys.path.append(here)  # a command line does not look where it was started
    try:
        if not where.endswith(".py"):
            return importlib.import_module(where)
        loader = SourceFileLoader(Path(where).stem, where)
        module = ModuleType(loader.name)
        loader.exec_module(module)
    except Exception as error:
        raise WhatStuckError(f"the {name} cannot be loaded: {_brief(error)}") from error
    finally:
        sys.path.remove(here)
    return module


def _brief(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]

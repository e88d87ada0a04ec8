"""Whether two answers to one question contradict each other.

They do if they are short and neither passes the check of the other row. Of longer ones, a judge says so, or their
numbers, names or first yes and no do. Otherwise nobody knows, which is no contradiction and no agreement.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from whatstuck.datasets import Row
from whatstuck.errors import WhatStuckError
from whatstuck.rows.causes.slots import slots_of
from whatstuck.rows.verdicts.answers import Checker, find_function, normalized

Judge = Callable[[Row, Row], bool | None]
"""Whether the answers of two rows, whose prompts are alike, contradict each other; None: it cannot say."""

SHORT = 5
"""Words of an answer up to which another wording is another answer."""
COMPARED = 40
"""Words of an answer up to which numbers and names are compared."""
_YES_NO = {"yes": True, "no": False, "true": True, "false": False, "correct": True, "incorrect": False}


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the answers of two rows are compared.

    Attributes:
        judge: Of the user's own; it decides alone.
        checker: Whether an answer is right for a row.
    """

    judge: Judge | None
    checker: Checker

    def __call__(self, first: Row, second: Row) -> float | None:
        """How surely they contradict each other, 0 to 1; None where it cannot be said."""
        if self.judge is not None:
            said = self.judge(first, second)
            return None if said is None else float(said)
        if self.checker(first, second.completion) or self.checker(second, first.completion):
            return 0.0
        return contradiction(first.completion, second.completion)


def find_judge(name: str) -> Judge:
    """A judge of the user's own, `module:function` or `file.py:function`, called with two rows.

    Raises:
        WhatStuckError: If there is none; later, if it fails on two rows, or returns something else than True, False or
            None.
    """
    function = find_function(name, "judge")

    def judge(first: Row, second: Row) -> bool | None:
        where = f"the judge {name} on rows {first.row_id} and {second.row_id}"
        try:
            said = function(first, second)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise WhatStuckError(f"{where} failed: {reason[:200]}") from error
        if said is not None and not isinstance(said, bool):
            raise WhatStuckError(f"{where} returned {said!r}: return True, False or None")
        return said

    return judge


def contradiction(first: str, second: str) -> float | None:
    """How surely two answers to one question contradict each other; None where it cannot be said.

    >>> contradiction("Paris", "Lyon"), contradiction("blue", "dark blue"), contradiction("Paris", "paris.")
    (1.0, 0.5, 0.0)
    """
    one, other = normalized(first), normalized(second)
    if one == other:
        return 0.0
    words = (one.split(), other.split())
    longest = max(map(len, words))
    if longest <= SHORT and max(len(one), len(other)) <= 8 * SHORT:  # a script without spaces has one long word
        within, around = sorted((" ".join(re.findall(r"\w+", text)) for text in (one, other)), key=len)
        return 0.5 if within and f" {within} " in f" {around} " else 1.0
    if longest > COMPARED:
        return None
    said = [_YES_NO.get(re.split(r"\W", line[0])[0]) for line in words]
    if None not in said and said[0] != said[1]:
        return 0.9
    slots = (slots_of(first), slots_of(second))
    for mine, yours in ((slots[0].numbers, slots[1].numbers), (slots[0].names, slots[1].names)):
        if mine and yours and not set(mine) & set(yours):
            return 0.7
    return None

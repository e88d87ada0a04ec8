"""The causes, in the order in which one of them is called the primary one.

The numbers are those of arXiv 2604.10079, which has no cause 0.
"""

from typing import Literal

from whatstuck.errors import WhatStuckError

Cause = Literal[
    "not_trained",
    "data_conflict",
    "forgotten",
    "base_conflict",
    "knowledge_missing",
    "more_training",
    "unexplained",
]

PRECEDENCE: tuple[Cause, ...] = (
    "not_trained",
    "data_conflict",
    "forgotten",
    "base_conflict",
    "knowledge_missing",
    "more_training",
)
"""Bugs first; then what the data says; "once learned" speaks against all that follows; a committed belief before a
missing one."""

NUMERALS: dict[Cause, str] = {
    "not_trained": "0",
    "knowledge_missing": "I",
    "base_conflict": "II",
    "data_conflict": "III",
    "forgotten": "IV",
    "more_training": "V",
    "unexplained": "–",
}

Status = Literal["present", "absent", "not_measured"]
"""A missing signal is never absent."""


def cause_named(text: str) -> Cause:
    """The cause of a name, or of the paper's number.

    >>> cause_named("III"), cause_named("data-conflict")
    ('data_conflict', 'data_conflict')

    Raises:
        WhatStuckError: If there is none.
    """
    asked = text.strip().lower().replace("-", "_").replace(" ", "_")
    for cause in PRECEDENCE:
        if asked in (cause, NUMERALS[cause].lower()):
            return cause
    known = ", ".join(f"{cause} ({NUMERALS[cause]})" for cause in PRECEDENCE)
    raise WhatStuckError(f"{text!r} is no cause: use {known}")

"""The causes, in the order in which one of them is called the primary one.

The numbers are those of arXiv 2604.10079, which has no cause 0.
"""

from typing import Literal

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

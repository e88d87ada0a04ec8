"""Why rows did not stick, in words and as bars.

The bars are plain boxes, not pictures: their numerals stay readable on a phone. No cause is told by its colour
alone; each has the numeral of the paper and its own line in the legend.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from whatstuck.report.words import percent
from whatstuck.rows.causes.names import NUMERALS, PRECEDENCE, Cause

ORDER: tuple[Cause, ...] = (*PRECEDENCE, "unexplained")

NAMES: dict[str, str] = {
    "not_trained": "not trained as it is asked",
    "data_conflict": "another row contradicts it",
    "forgotten": "learned, then forgotten",
    "base_conflict": "base model believes otherwise",
    "knowledge_missing": "base model lacks the knowledge",
    "more_training": "needs more training",
    "unexplained": "unexplained",
}

MEANINGS: dict[str, str] = {
    "not_trained": "The row was dropped, cut or masked, or it is asked in another form than it was trained.",
    "data_conflict": "Another training row asks the same and has another answer.",
    "forgotten": "Right at an earlier checkpoint, wrong at the end, and last seen early.",
    "base_conflict": "Before the training the model gave one and the same other answer, again and again.",
    "knowledge_missing": "Before the training the model gave no right answer, and its wrong ones are scattered.",
    "more_training": "Still getting better, and rare, long or seldom seen; or the whole training was too short.",
    "unexplained": "No test speaks for any of these.",
}

ARMS: dict[str, str] = {"rerun": "plain re-run", "more_compute": "more training alone", "sham": "sham treatment"}


@dataclass(frozen=True, slots=True)
class Share:
    """One box of a bar.

    Attributes:
        style: Its CSS class: the cause, or `unmeasured`.
        numeral: Numeral of the paper.
        label: What it is.
        count: Number of rows.
        percent: Of all rows of the bar.
    """

    style: str
    numeral: str
    label: str
    count: int
    percent: str


def numeral(cause: str) -> str:
    """The paper's number of a cause.

    >>> numeral("data_conflict")
    'III'
    """
    return NUMERALS.get(cast("Cause", cause), "?")


def titled(cause: str) -> str:
    """Numeral and name.

    >>> titled("forgotten"), titled("unexplained")
    ('IV · learned, then forgotten', 'unexplained')
    """
    name = NAMES.get(cause, cause)
    return name if cause == "unexplained" else f"{numeral(cause)} · {name}"


def arm_name(arm: str) -> str:
    """What was done in an arm of an intervention.

    >>> arm_name("sham"), arm_name("forgotten")
    ('sham treatment', 'treated as IV')
    """
    return ARMS[arm] if arm in ARMS else f"treated as {numeral(arm)}" if arm in NAMES else arm


def bar(counts: Mapping[str, int], unmeasured: int = 0, why: str = "") -> list[Share]:
    """The boxes of a stacked bar, in the order of precedence.

    Args:
        counts: Number of rows by cause.
        unmeasured: How many more rows have no cause because something was not measured: the last box.
        why: What that box is called.
    """
    total = sum(counts.values()) + unmeasured
    boxes: list[tuple[str, str, str, int]] = [
        (cause, numeral(cause), NAMES[cause], counts.get(cause, 0)) for cause in ORDER
    ]
    boxes += [(cause, "?", cause, count) for cause, count in sorted(counts.items()) if cause not in NAMES]
    if unmeasured:
        boxes.append(("unmeasured", "?", why, unmeasured))
    return [
        Share(style, mark, label, count, percent(count / total if total else None))
        for style, mark, label, count in boxes
    ]


def described(boxes: list[Share]) -> str:
    """A bar in words, for those who do not see it."""
    return "; ".join(f"{box.label} {box.count}" for box in boxes if box.count) or "no row"

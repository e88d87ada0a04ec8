"""The checker is tried on right replies before a model is loaded: one that refuses these would call every model wrong.

What fails on them, or does not come back, cannot check anything, and ends the call. A refusal is only said: what is
called right here is what the file writes, and a checker may be meant for other replies (tests of a program, say).
"""

import logging
from collections.abc import Iterable, Sequence

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.own.checking import CHECK_TIMED_OUT, Checked
from whatstuck.generalization.own.recipe import Recipe
from whatstuck.generalization.own.rows import OwnRow
from whatstuck.generalization.own.scoring import OwnScorer, ReplyParser, gold_of

_TRIED = 3  # rows
_FIRST = 5.0  # seconds more for the first one: a checker may import late
_SHOWN = 60  # characters of a reply in a message

_log = logging.getLogger(__name__)


def try_checker(
    recipe: Recipe,
    rows: Sequence[OwnRow],
    scored: Iterable[InstructionMapping],
    parser: ReplyParser,
    scorer: OwnScorer,
) -> list[str]:
    """Score the right replies to the first rows.

    Args:
        recipe: The task file.
        rows: Those of the test.
        scored: Mappings by which replies will be scored, that of the training first.
        parser: Reads replies.
        scorer: Scores them.

    Returns:
        What a reader should know: which of them is not taken.

    Raises:
        WhatStuckError: If a check fails on one, or does not come back; it names the row.
    """
    refused = None
    longer = _FIRST
    for mapping in scored:
        for row in rows[:_TRIED]:
            reply = recipe.demonstration(row, mapping)
            answer = parser.parse(reply) or ""
            if scorer.guard is not None:
                checked = scorer.guard.ask(scorer.told(row, gold_of(row, mapping)), answer, longer=longer)
                longer = 0.0
                if checked.failure is not None:
                    scorer.guard.close()
                    raise _failure(recipe, mapping, row, reply, checked)
                if refused is None and scorer.judges and checked.found is not True:
                    refused = row, reply
    if scorer.judges:
        return [] if refused is None else [_said(*refused, "it returned False")]
    reply = recipe.demonstration(rows[0], recipe.mappings[0])
    score = scorer.score(rows[0], recipe.mappings[0], parser.parse(reply) or "")
    return [] if score.success else [_said(rows[0], reply, score.outcome)]


def _said(row: OwnRow, reply: str, why: str) -> str:
    _log.warning("the checker does not take the reply %r to %s", reply, row.place)  # a note must hold no text
    return (
        f"The checker does not take the right reply to {row.place}, as `reply` writes it ({why}): if such a reply is "
        "right, nothing below is."
    )


def _failure(recipe: Recipe, mapping: InstructionMapping, row: OwnRow, reply: str, checked: Checked) -> WhatStuckError:
    under = f" under the mapping {mapping.name!r}" if mapping != recipe.mappings[0] else ""
    shown = repr(reply if len(reply) <= _SHOWN else reply[:_SHOWN] + "...")
    late = checked.failure == CHECK_TIMED_OUT
    how = "mend it; it is called as function(row, reply), and row['gold'] is the right answer"
    mend = "mend it, or raise time_limit" if late else how
    return WhatStuckError(
        f"{recipe.path.name}: the checker {recipe.file.checker!r} does not take the right reply {shown} to "
        f"{row.place}{under} ({checked.said}): {mend}"
    )

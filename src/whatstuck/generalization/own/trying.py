"""The checker is tried on right replies before a model is loaded: one that refuses these would call every model wrong.

A function of the user's must take them, whatever mapping is scored. One of our checkers, or a pattern, may be meant for
replies that are longer than those the file writes: that is only said.
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
        What a reader should know: that a pattern, or a checker of ours, does not take the first one.

    Raises:
        WhatStuckError: If a function of the user's refuses one or fails on it, or any check does not come back; it
            names the row.
    """
    for mapping in scored:
        for row in rows[:_TRIED]:
            reply = recipe.demonstration(row, mapping)
            answer = parser.parse(reply) or ""
            if scorer.guard is not None:
                checked = scorer.guard.ask(scorer.told(row, gold_of(row, mapping)), answer)
                if checked.failure is not None or (scorer.judges and checked.found is not True):
                    scorer.guard.close()
                    raise _refusal(recipe, mapping, row, reply, checked)
    if scorer.judges:
        return []
    reply = recipe.demonstration(rows[0], recipe.mappings[0])
    score = scorer.score(rows[0], recipe.mappings[0], parser.parse(reply) or "")
    if score.success:
        return []
    _log.warning("the checker does not take the reply %r to %s", reply, rows[0].place)  # a note must hold no text
    return [f"The checker does not take the right reply to {rows[0].place}, as `reply` writes it: {score.outcome}."]


def _refusal(recipe: Recipe, mapping: InstructionMapping, row: OwnRow, reply: str, checked: Checked) -> WhatStuckError:
    under = f" under the mapping {mapping.name!r}" if mapping != recipe.mappings[0] else ""
    shown = repr(reply if len(reply) <= _SHOWN else reply[:_SHOWN] + "...")
    said = checked.said or f"it returned {checked.found!r}"
    if checked.failure == CHECK_TIMED_OUT:
        mend = "mend it, or raise time_limit"
    elif checked.failure is not None:
        mend = "mend it; it is called as function(row, reply), and row['gold'] is the right answer"
    else:
        mend = "mend it (row['gold'] is the right answer), or say in `reply` how a right reply looks"
    return WhatStuckError(
        f"{recipe.path.name}: the checker {recipe.file.checker!r} does not take the right reply {shown} to "
        f"{row.place}{under} ({said}): {mend}"
    )

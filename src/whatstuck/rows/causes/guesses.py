"""Right answers of the base model that are guesses: it gives the same answer to rows of which it is wrong.

SLiCK calls a row known that is right in one draw of many. Among few possible answers chance alone does that, so a row
counts as known only where its answer is given more often than to other rows of the kind that the base does not know.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from whatstuck.rows.causes.cohort import Cohort
from whatstuck.rows.causes.conflicts import Conflicts
from whatstuck.rows.causes.probing import BaseAnswers
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import Thresholds
from whatstuck.rows.verdicts.answers import normalized


def without_guesses(
    bases: Mapping[str, BaseAnswers],
    rows: Iterable[TrainingRow],
    cohort: Cohort,
    conflicts: Conflicts,
    thresholds: Thresholds,
) -> dict[str, BaseAnswers]:
    """The answers, with `unknown` for rows that are right by chance.

    That is a row with a rate of at most `thresholds.committed_right` and below `thresholds.lift` times the share that
    its gold answer has among the answers to other rows of the kind. Where fewer than five others were asked, what is
    known stays known; so does the probability of a choice, which is corrected for chance already.

    Args:
        bases: Row id to answers.
        rows: All training rows.
        cohort: What is usual among them.
        conflicts: Which rows ask the same.
        thresholds: See above.
    """
    found = dict(bases)
    for row in rows:
        it = bases.get(row.row_id)
        if it is None or it.form == "choices" or not 0 < it.rate <= thresholds.committed_right:
            continue
        gold = normalized(row.row.completion)
        usual = cohort.usual_share(it, gold, bases, conflicts.of(row.row_id).alike)
        if it.rate < thresholds.lift * usual:
            found[row.row_id] = replace(it, knowledge="unknown")
    return found

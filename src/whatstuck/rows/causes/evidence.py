"""Evidence for and against each cause, of every row that did not stick.

A signal that was not measured is never absent, and no cause is a default. The rules are in `from_data.py`,
`from_base.py` and `from_training.py`. What they decide where the printed criteria of arXiv 2604.10079 contradict each
other:

- Printed first, "the base model does not know it" takes nearly every row, since a row that does not stick is rarely one
  that the base model knew. Here it needs that not knowing raises the risk, and that the row is not simply behind.
- A large divergence of base and finished model is printed as a sign of a belief that resists. A belief that resists
  keeps the divergence small. It is a descriptor here, and what the base model answers decides.
- Similar prompts with right answers are printed as a conflict. Here their answers must contradict each other, and the
  conflict must show in what the model answers, or hold half of the votes.
- Forgetting needs that the row was left behind; that a training is too short needs evidence of its own.

Data, forgetting and belief are looked at first. Rows that have one of these are left out when the risk of the other
traits is estimated: else a conflict among rare prompts would make rarity a reason.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from whatstuck.rows.causes.case import Case, Evidence, Risks
from whatstuck.rows.causes.cohort import cohort_of
from whatstuck.rows.causes.conflicts import Conflicts
from whatstuck.rows.causes.from_base import base_conflict, knowledge_missing, with_fair_chance
from whatstuck.rows.causes.from_data import data_conflict, not_trained
from whatstuck.rows.causes.from_training import forgotten, more_training
from whatstuck.rows.causes.guesses import without_guesses
from whatstuck.rows.causes.probing import BaseAnswers
from whatstuck.rows.histories import History
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import Thresholds

__all__ = ["Evidence", "gather_evidence"]


def gather_evidence(
    rows: Sequence[TrainingRow],
    verdicts: Sequence[Mapping[str, Any]],
    histories: Mapping[str, History],
    bases: Mapping[str, BaseAnswers],
    conflicts: Conflicts,
    thresholds: Thresholds,
    *,
    fed_known: bool = True,
) -> dict[str, tuple[Evidence, ...]]:
    """Evidence for all causes of every row that is unlearned or unstable.

    Args:
        rows: All training rows.
        verdicts: Records of `schemas.VERDICTS`; rows without a verdict are neither learned nor not.
        histories: From `rows.histories`; rows without a supervised token have none.
        bases: What the base model answers to rows that are not learned and, to say whether that matters, to a random
            sample of learned ones. Empty: not asked.
        conflicts: From `find_conflicts`, on all rows.
        thresholds: Every number that decides.
        fed_known: Whether it is known how the trainer fed the rows; if not, a row that passed the tests of the feeding
            was not looked at.

    Returns:
        Row id to evidence, in the order of `names.PRECEDENCE`.
    """
    said = {record["row_id"]: record for record in verdicts}
    cohort = cohort_of(rows, {row_id: record["verdict"] for row_id, record in said.items()}, histories, thresholds)
    bases = without_guesses(bases, rows, cohort, conflicts, thresholds)
    cases = [
        Case(
            row=row,
            verdict=said[row.row_id],
            history=histories.get(row.row_id),
            base=bases.get(row.row_id),
            bases=bases,
            conflicts=conflicts,
            cohort=cohort,
            thresholds=thresholds,
            fed_known=fed_known,
        )
        for row in rows
        if row.row_id in cohort.failed
    ]
    found: dict[str, tuple[Evidence, ...]] = {
        case.row.row_id: (not_trained(case), data_conflict(case), forgotten(case), base_conflict(case))
        for case in cases
    }
    explained = {row_id for row_id, first in found.items() if any(each.status == "present" for each in first)}
    among = [row.row_id for row in rows if row.row_id not in explained]
    few = {row_id for row_id in among if cohort.few(histories.get(row_id), thresholds)}
    long = {row_id for row_id in among if row_id in histories and histories[row_id].tokens > cohort.long}
    risks = Risks(
        few=cohort.attributable(few, among),
        long=cohort.attributable(long, among),
        rare=cohort.attributable(cohort.rare, among),
        unknown=cohort.attributable_unknown(bases, [row_id for row_id in among if row_id not in few]),
    )
    for case in cases:
        *first, belief = found[case.row.row_id]
        belief = with_fair_chance(belief, case, risks)
        more, on_its_way = more_training(case, risks)
        committed = belief.status == "present"
        missing = knowledge_missing(case, risks, committed=committed, on_its_way=on_its_way)
        found[case.row.row_id] = (*first, belief, missing, more)
    return found

"""The table of rows that did not stick, each with its cause: where evidence, attribution and advice come together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from whatstuck.rows.causes.advice import advise
from whatstuck.rows.causes.attribution import attribute, paper_cause
from whatstuck.rows.causes.conflicts import Conflict, Conflicts
from whatstuck.rows.causes.evidence import gather_evidence
from whatstuck.rows.causes.probing import BaseAnswers
from whatstuck.rows.histories import History
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.schemas import UNLEARNED
from whatstuck.rows.thresholds import Thresholds


def name_causes(
    rows: Sequence[TrainingRow],
    verdicts: Sequence[Mapping[str, Any]],
    histories: Mapping[str, History],
    bases: Mapping[str, BaseAnswers],
    conflicts: Conflicts,
    thresholds: Thresholds,
    *,
    fed_known: bool = True,
) -> pa.Table:
    """Name the cause of every row that is unlearned or unstable.

    Args:
        rows: All training rows.
        verdicts: Records of `schemas.VERDICTS`.
        histories: From `rows.histories`.
        bases: What the base model answers, see `gather_evidence`; empty if it was not asked.
        conflicts: From `find_conflicts`, on all rows.
        thresholds: Every number that decides.
        fed_known: Whether it is known how the trainer fed the rows; if not, a row that passed the tests of the feeding
            was not looked at.

    Returns:
        A table of `schemas.UNLEARNED`, the most severe first: the lowest success rate, then the highest loss.
    """
    evidence = gather_evidence(rows, verdicts, histories, bases, conflicts, thresholds, fed_known=fed_known)
    by_id = {row.row_id: row for row in rows}
    records = []
    for said in sorted((record for record in verdicts if record["row_id"] in evidence), key=_severity):
        row_id = said["row_id"]
        history, conflict = histories.get(row_id), conflicts.of(row_id)
        found = attribute(evidence[row_id], thresholds)
        records.append(
            {
                "row_id": row_id,
                "verdict": said["verdict"],
                "cause": found.cause,
                "secondary": list(found.secondary),
                "margin": None if math.isnan(found.margin) else found.margin,
                "ambiguous": found.ambiguous,
                "paper_cause": paper_cause(bases.get(row_id), conflict, history, thresholds),
                "evidence": [each.record() for each in evidence[row_id]],
                "conflict_group": conflict.group,
                "neighbours": _neighbours(conflict),
                "advice": advise(by_id[row_id], found, evidence[row_id], conflict, history),
            }
        )
    return pa.Table.from_pylist(records, schema=UNLEARNED)


def _severity(record: Mapping[str, Any]) -> tuple[float, float, int]:
    rate, nll = _known(record.get("rate")), _known(record.get("nll"))
    return (1.0 if rate is None else rate, -math.inf if nll is None else -nll, record.get("source_index") or 0)


def _known(value: float | None) -> float | None:
    """NaN as None: it compares with nothing, so it would break the order."""
    return None if value is None or math.isnan(value) else value


def _neighbours(conflict: Conflict) -> list[dict[str, Any]]:
    return [
        {
            "row_id": other.row_id,
            "gold": other.gold,
            "similarity": None if math.isnan(other.similarity) else other.similarity,
        }
        for other in conflict.opponents
    ]

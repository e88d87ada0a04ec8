"""The table of verdicts: one record per row of the training file, from its answers and its history."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from whatstuck.rows.histories import History
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import Thresholds
from whatstuck.rows.verdicts.asking import Asked
from whatstuck.rows.verdicts.rule import judge
from whatstuck.rows.verdicts.screening import Because

_ANSWERED = ("form", "samples", "right", "first_right", "greedy_right", "rate", "rate_low", "rate_high", "greedy")
_CHOSEN = ("recited", "letters")
_LAST = ("tokens", "nll", "token_accuracy", "last_exposure_step", "exposures")
_HISTORY = ("forgetting_events", "first_learned_step", "last_learned_step", "confidence", "variability")


def verdict_records(
    rows: Sequence[TrainingRow],
    last: Mapping[str, Mapping[str, Any]],
    because: Mapping[str, Because],
    answers: Mapping[str, Asked],
    histories: Mapping[str, History],
    thresholds: Thresholds,
) -> list[dict[str, Any]]:
    """Records of `schemas.VERDICTS`, in the order of the rows.

    Args:
        rows: All training rows.
        last: By row id, its numbers at the last checkpoint.
        because: Why each was asked.
        answers: What those that were asked answered.
        histories: Rows without a supervised token have none.
        thresholds: Every number that decides.
    """
    return [
        {
            "row_id": row.row_id,
            "source_index": row.row.source_index,
            "prompt": row.row.content,
            "gold": row.row.completion,
            "asked_because": because[row.row_id],
            **_judged(row, answers.get(row.row_id), thresholds),
            **{name: last[row.row_id][name] for name in _LAST},
            **_history(histories.get(row.row_id)),
        }
        for row in rows
    ]


def _judged(row: TrainingRow, asked: Asked | None, thresholds: Thresholds) -> dict[str, Any]:
    """The columns that come from answers. A row that could not be asked says so, and what gate 0 found beside it."""
    if asked is None:
        return {"verdict": "learned", "form": "screened", "samples": 0}
    judged = judge(asked, thresholds)
    return {
        "verdict": judged.verdict,
        "paper_unlearned": judged.paper_unlearned,
        "not_asked": judged.reason + _never_trained(row) * bool(judged.reason),
        **{name: _known(getattr(asked, name)) for name in (*_ANSWERED, "top_wrong", "top_wrong_share")},
        **({name: _known(getattr(asked, name)) for name in _CHOSEN} if asked.form == "choices" else {}),
    }


def _never_trained(row: TrainingRow) -> str:
    found = ", ".join(test.problem.replace("_", " ") for test in row.not_trained if test.problem != "too_long")
    return f" (and not trained as it is asked: {found})" if found else ""


def _known(value: Any) -> Any:
    """None instead of NaN, which a table takes for a number."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _history(history: History | None) -> dict[str, Any]:
    """The columns that come from the checkpoints."""
    if history is None:
        return {}
    return {name: getattr(history, name) for name in (*_HISTORY, "correctness", "mean_margin")}

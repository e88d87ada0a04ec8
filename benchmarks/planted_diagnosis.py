"""What whatstuck says about the rows of a planted world: the same functions in the same order as the verb `rows` calls.

Only the loading of models and the files of a run folder are missing, since the models are in memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from whatstuck.models.generating import seed_of
from whatstuck.rows.causes.attribution import loss_only, printed_order
from whatstuck.rows.causes.conflicts import Conflicts, find_conflicts
from whatstuck.rows.causes.names import Cause
from whatstuck.rows.causes.naming import name_causes
from whatstuck.rows.causes.probing import probe_base
from whatstuck.rows.feeding.gate import checked, failed_tests, fitting
from whatstuck.rows.histories import histories
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import Thresholds
from whatstuck.rows.verdicts.answers import find_checker
from whatstuck.rows.verdicts.asking import ask
from whatstuck.rows.verdicts.screening import screen
from whatstuck.rows.verdicts.table import verdict_records

THRESHOLDS = Thresholds()
"""Those of the product."""
CHECKER = "exact"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is said about the rows.

    Attributes:
        verdicts: Row id to verdict.
        asked_because: Row id to why it was asked; empty where it was not.
        conflicts: Rows that contradict each other.
        causes: Record of `schemas.UNLEARNED` of every row that is not learned.
        printed: The same rows by the order that the paper prints.
        by_loss: And by losses alone.
    """

    verdicts: Mapping[str, str]
    asked_because: Mapping[str, str]
    conflicts: Conflicts
    causes: Mapping[str, Mapping[str, Any]]
    printed: Mapping[str, Cause]
    by_loss: Mapping[str, Cause]


def gated(rows: Sequence[TrainingRow], tokenizer: PreTrainedTokenizerFast, positions: int) -> list[TrainingRow]:
    """The rows with the tests of gate 0 that they fail."""
    checker = find_checker(CHECKER)
    found = []
    for row in rows:
        tests = [
            *failed_tests(row, tokenizer, known=True),
            *checked(row, lambda answer, row=row: checker(row.row, answer)),  # type: ignore[misc]  # mypy and defaults
            *fitting(row, positions),
        ]
        found.append(replace(row, not_trained=tuple(tests)))
    return found


def diagnose(
    base: PreTrainedModel,
    finished: PreTrainedModel,
    tables: Mapping[int, pa.Table],
    rows: Sequence[TrainingRow],
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    thresholds: Thresholds = THRESHOLDS,
) -> Diagnosis:
    """Find the rows that did not stick, and name their causes.

    Args:
        base: The model before the fine-tuning.
        finished: The model after it.
        tables: Trajectories by step.
        rows: The rows, with the tests of gate 0 that they fail.
        tokenizer: Of both models.
        seed: Of draws and audit.
        thresholds: Every number that decides.
    """
    checker = find_checker(CHECKER)
    followed = histories(tables)
    last = {record["row_id"]: record for record in tables[max(tables)].to_pylist()}
    why = screen(
        list(last),
        [record["nll"] for record in last.values()],
        [record["token_accuracy"] for record in last.values()],
        [record["tokens"] for record in last.values()],
        thresholds,
        not_trained={row.row_id for row in rows if row.not_trained},
        seed=seed,
    )
    because = dict(zip(last, why, strict=True))
    doubtful = [row for row in rows if because[row.row_id]]
    answers = {one.row_id: one for one in ask(finished, tokenizer, doubtful, checker, thresholds, seed=seed)}
    verdicts = verdict_records(rows, last, because, answers, followed, thresholds)
    verdict_of = {record["row_id"]: record["verdict"] for record in verdicts}
    wrong = [row for row in rows if verdict_of[row.row_id] != "learned"]
    right = [row for row in rows if verdict_of[row.row_id] == "learned"] if wrong else []
    sample = sorted(right, key=lambda row: seed_of(seed, row.row_id))[: thresholds.base_learned]
    probed = probe_base(base, tokenizer, [*wrong, *sample], rows, checker, thresholds, seed=seed)
    bases = {one.row_id: one for one in probed}
    conflicts = find_conflicts(rows, thresholds, checker=checker)
    causes = name_causes(rows, verdicts, followed, bases, conflicts, thresholds).to_pylist()
    ids = [row.row_id for row in wrong]
    return Diagnosis(
        verdicts=verdict_of,
        asked_because=because,
        conflicts=conflicts,
        causes={record["row_id"]: record for record in causes},
        printed={i: printed_order(bases.get(i), conflicts.of(i), followed.get(i), thresholds) for i in ids},
        by_loss={i: loss_only(followed.get(i), thresholds) for i in ids},
    )

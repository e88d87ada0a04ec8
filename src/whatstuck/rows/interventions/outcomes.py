"""What a treated model answers to the rows that are followed: one record per row and wording."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whatstuck.dynamics.teacher_forcing import score_tokens
from whatstuck.models import default_mask_token, positions_in
from whatstuck.rows.interventions.phases import REMOVED, Arm
from whatstuck.rows.interventions.wordings import as_asked, wordings
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.schemas import INTERVENTIONS
from whatstuck.rows.thresholds import Thresholds
from whatstuck.rows.verdicts.answers import Checker
from whatstuck.rows.verdicts.asking import ask
from whatstuck.rows.verdicts.rule import judge

Role = Literal["unlearned", "learned"]


@dataclass(frozen=True)
class Interview:
    """Which rows are asked, and how; the same for every arm.

    Attributes:
        cause: Whose rows are to be recovered.
        roles: Row id to why it is followed: rows of the cause (`unlearned`, also where they are unstable), and
            `learned` ones for the damage.
        rows: The rows, as they are asked.
        others: Rows whose answers may be wrong options of a choice.
        groups: Row id to its cluster; a row without one is its own.
        paraphrases: The user's wordings by row id.
        checker: When an answer is right.
        thresholds: Numbers of the verdict.
        chat_template: `auto` or `never`.
        seed: Of the draws; the same for every arm.
    """

    cause: str
    roles: Mapping[str, Role]
    rows: Sequence[TrainingRow]
    others: Sequence[TrainingRow]
    groups: Mapping[str, str]
    paraphrases: Mapping[str, Sequence[str]]
    checker: Checker
    thresholds: Thresholds
    chat_template: str
    seed: int

    def hold(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, arm: Arm, seed: int) -> pa.Table:
        """Ask the model of an arm.

        Args:
            model: The trained model in eval mode.
            tokenizer: Its tokenizer.
            arm: The arm.
            seed: The seed of its training.

        Returns:
            A table of `INTERVENTIONS`. `right`: the verdict is learned, as of the first model. What could not be asked
            is neither right nor wrong (null) and has no rate; what is longer than the context has no loss.
        """
        by_wording: dict[str, list[TrainingRow]] = {}
        for row in self.rows:
            for name, worded in wordings(row.row, self.paraphrases):
                asked = row if worded is row.row else as_asked(worded, tokenizer, self.chat_template)
                by_wording.setdefault(name, []).append(asked)
        records: list[dict[str, Any]] = []
        for name, rows in by_wording.items():
            answers = ask(
                model,
                tokenizer,
                rows,
                self.checker,
                self.thresholds,
                seed=self.seed,
                chat_template=self.chat_template,
                others=self.others,
            )
            losses = _losses(model, rows, default_mask_token(tokenizer))
            for row, answer, loss in zip(rows, answers, losses, strict=True):
                judged = judge(answer, self.thresholds)
                role = self.roles[row.row_id]
                records.append(
                    {
                        "cause": self.cause,
                        "arm": arm.name,
                        "seed": seed,
                        "row_id": row.row_id,
                        "group": self.groups.get(row.row_id, row.row_id),
                        "role": REMOVED[role] if row.row_id in arm.removed else role,
                        "wording": name,
                        "right": None if judged.verdict == "not_asked" else judged.verdict == "learned",
                        "rate": None if math.isnan(answer.rate) else answer.rate,
                        "nll": loss,
                    }
                )
        return pa.Table.from_pylist(records, schema=INTERVENTIONS)


def _losses(model: PreTrainedModel, rows: Sequence[TrainingRow], pad_token_id: int) -> list[float | None]:
    """Loss of the answers, nats per token; None where the model cannot read the row: a longer wording may not fit."""
    positions = positions_in(model)
    read = [index for index, row in enumerate(rows) if positions is None or len(row.asked.ids) <= positions]
    scores = score_tokens(model, [rows[index].asked for index in read], pad_token_id)
    found = {index: score.nll for index, score in zip(read, scores, strict=True)}
    return [found.get(index) for index in range(len(rows))]

"""One training row from all sides: what the file says, how it is asked, what was really learned of it.

Reading, asking and feeding differ more often than people think. Everything about rows that did not stick works on
this one type, so that no part guesses what another one meant.
"""

from dataclasses import dataclass
from typing import Literal

from whatstuck.datasets import RenderedRow, Row
from whatstuck.dynamics.teacher_forcing import TokenRow

Problem = Literal[
    "dropped", "nothing_supervised", "answer_cut", "answer_masked", "other_prompt", "fails_its_checker", "too_long"
]
"""Why a row was not trained as it is asked; each is a test of gate 0."""


@dataclass(frozen=True, slots=True)
class NotTrained:
    """A failed test of gate 0: which, and the numbers in one sentence."""

    problem: Problem
    sentence: str


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A row of the training file.

    Attributes:
        row: The row as the file has it.
        rendered: Prompt and answer as the finished model is asked.
        prompt_ids: Tokens of that prompt.
        target_ids: Tokens of that answer, without an end of turn.
        fed: What the trainer fed: all tokens, and the positions that were learned. None: not fed at all, or not known.
        not_trained: Failed tests of gate 0.
    """

    row: Row
    rendered: RenderedRow
    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    fed: TokenRow | None
    not_trained: tuple[NotTrained, ...] = ()

    @property
    def row_id(self) -> str:
        """Id of the row."""
        return self.row.row_id

    @property
    def asked(self) -> TokenRow:
        """The row as it is asked: prompt and answer, the answer predicted."""
        ids = self.prompt_ids + self.target_ids
        return TokenRow(ids, tuple(range(len(self.prompt_ids), len(ids))))

"""Rows with long answers are asked as a choice: which of these would the model say?

A free answer of many tokens cannot be called right by comparing texts. arXiv 2604.10079 (§3.1.1) has the model point at
one of four options by its letter; a model that recites an answer word for word may still be at chance there. So what
decides is the answer's own text, behind the prompt as it is asked:

- A row is *recited* if every token of its answer is the most likely one, given those before it: then the most likely
  answer is the gold, and no choice can say more.
- Otherwise the gold's beginning competes with wrong ones (`options.py`), the model's own answers among them. An option
  weighs as much as its tokens do on average: softmax of their mean log-probabilities at the temperature of the draws.
  Sums would make of every small difference a certainty, and prefer short answers.

So the gold never wins for its style alone: the model's own answer has that style too. The letters are kept as a number
(`letters.py`), for the paper's rule.

An own answer that says the same in other words cannot be told from a wrong one here, so this asks for the gold answer's
wording, which is what was trained; of the rest of an answer only reciting and the loss know. Answers that a judge can
read are better generated: raise `longest_answer`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from whatstuck.datasets import Message, Row, render, target_ids
from whatstuck.dynamics.teacher_forcing import TokenRow, score_tokens
from whatstuck.errors import WhatStuckError
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import Thresholds
from whatstuck.rows.verdicts.letters import by_letters
from whatstuck.rows.verdicts.options import Option, Pool, options_of, own_answers
from whatstuck.rows.verdicts.replies import Respondent

_ALONE = "there are no answers beside its own that differ enough"
_TOO_LONG = "prompt and answer are longer than the context"
_NOTHING_ASKED = "Answer:"  # stands in for a question without instruction


@dataclass(frozen=True, slots=True)
class Choice:
    """A row asked as a choice.

    Attributes:
        row_id: The row.
        options: The gold answer first, whole, though only beginnings compete.
        probabilities: Of each option; empty where nothing competed.
        low: Probability of the gold, were all wrong options as likely as the likeliest of them.
        high: The same of the least likely.
        letters: Probability of the gold's letter in the paper's form; NaN where that says nothing.
        recited: Every token of the whole answer is the most likely one.
        unavailable: Why the choice says nothing; empty if it does, and where the row is recited.
    """

    row_id: str
    options: tuple[str, ...]
    probabilities: tuple[float, ...] = ()
    low: float = math.nan
    high: float = math.nan
    letters: float = math.nan
    recited: bool = False
    unavailable: str = ""

    @property
    def above_chance(self) -> float:
        """Probability of the gold, corrected for chance: 0 is guessing, 1 is certain, less than 0 is another belief."""
        chance = 1 / len(self.options)
        return (self.probabilities[0] - chance) / (1 - chance)


def choose(
    respondent: Respondent,
    rows: Sequence[TrainingRow],
    others: Sequence[TrainingRow],
    thresholds: Thresholds,
    *,
    seed: int,
) -> list[Choice]:
    """Ask rows as choices: would the model say the gold answer, or another one?

    Args:
        respondent: Who is asked.
        rows: The rows.
        others: Rows whose answers may stand beside the gold.
        thresholds: `options`, `longest_answer` (tokens of an answer that compete), `temperature`.
        seed: Of the model's own answers, and of which other rows are taken.

    Returns:
        A choice per row, in order. One that says nothing has a reason.

    Raises:
        WhatStuckError: If the model gives NaN.
    """
    pool = Pool(others, seed)
    recited = _recited(respondent, rows)
    saying_else = [i for i, known in enumerate(recited) if not known]
    said = own_answers(respondent, [rows[i] for i in saying_else], thresholds, seed)
    own: dict[int, list[str]] = dict(zip(saying_else, said, strict=True))  # who recites says nothing else
    options = [
        options_of(respondent, row, (*pool.opposing(row), *own.get(i, ()), *pool.near(row)), thresholds)
        for i, row in enumerate(rows)
    ]
    letters = by_letters(respondent, [row.row for row in rows], [[o.shown for o in some] for some in options])
    logs = _mean_logs(respondent, [row.row for row in rows], options, thresholds)
    found = []
    for i, (row, some) in enumerate(zip(rows, options, strict=True)):
        choice = _weighed(row, some, logs[i], thresholds.temperature)
        reason = "" if recited[i] else choice.unavailable
        found.append(replace(choice, letters=letters[i], recited=recited[i], unavailable=reason))
    return found


def tell_apart(
    respondent: Respondent,
    rows: Sequence[TrainingRow],
    others: Sequence[TrainingRow],
    thresholds: Thresholds,
    *,
    seed: int,
) -> list[Choice]:
    """Ask rows as choices of another kind: does the question make the gold answer likelier than answers of other rows?

    This is for a model that was never trained on the rows, and would say each of them in words of its own. So its own
    answers are no options, and an option weighs as much as the question raises the mean log-probability of its tokens
    (as pointwise mutual information does, Holtzman et al. 2021); chance is one over the number of options.

    Args:
        respondent: Who is asked.
        rows: The rows.
        others: Rows whose answers stand beside the gold.
        thresholds: `options`, `longest_answer`.
        seed: Of which other rows are taken.

    Returns:
        As `choose`, without letters.

    Raises:
        WhatStuckError: If the model gives NaN.
    """
    pool = Pool(others, seed)
    options = [options_of(respondent, row, pool.near(row), thresholds) for row in rows]
    asked = _mean_logs(respondent, [row.row for row in rows], options, thresholds)
    blind = _mean_logs(respondent, [_blinded(row.row) for row in rows], options, thresholds)
    found = []
    for row, some, logs, before, known in zip(rows, options, asked, blind, _recited(respondent, rows), strict=True):
        raised = None if logs is None or before is None else logs - before
        found.append(replace(_weighed(row, some, raised, 1.0), recited=known))
    return found


def _weighed(
    row: TrainingRow, options: Sequence[Option], logs: npt.NDArray[np.float64] | None, temperature: float
) -> Choice:
    """From a number per option, in nats, to their shares."""
    choice = Choice(row.row_id, tuple(option.text for option in options))
    if logs is None:
        return replace(choice, unavailable=_ALONE if len(options) == 1 else _TOO_LONG)
    gold, *wrong = logs / temperature
    return replace(
        choice,
        probabilities=tuple(_softmax(logs / temperature).tolist()),
        low=float(_softmax(np.array([gold, *[max(wrong)] * len(wrong)]))[0]),
        high=float(_softmax(np.array([gold, *[min(wrong)] * len(wrong)]))[0]),
    )


def _softmax(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shares = np.exp(values - values.max())
    return np.asarray(shares / shares.sum(), dtype=np.float64)


# --- likelihoods


def _recited(respondent: Respondent, rows: Sequence[TrainingRow]) -> list[bool]:
    """Whether the most likely answer to each row is its own, token by token."""
    fitting = [i for i, row in enumerate(rows) if respondent.fits(row.prompt_ids, len(row.target_ids))]
    scores = score_tokens(respondent.model, [rows[i].asked for i in fitting], respondent.pad_token_id)
    found = {i: score.correct for i, score in zip(fitting, scores, strict=True)}
    return [found.get(i, False) for i in range(len(rows))]


def _mean_logs(
    respondent: Respondent, rows: Sequence[Row], options: Sequence[Sequence[Option]], thresholds: Thresholds
) -> list[npt.NDArray[np.float64] | None]:
    """Mean log-probability of the beginning of each option of each row, nats per token.

    None where there is one option, or the context is too short.
    """
    texts: list[TokenRow] = []
    counts = []
    for row, some in zip(rows, options, strict=True):
        made = [_behind(respondent, row, option.text, thresholds.longest_answer) for option in some]
        usable = len(made) > 1 and all(respondent.fits(text.ids, 0) for text in made)
        texts += made if usable else []
        counts.append(len(made) if usable else 0)
    scores = iter(score_tokens(respondent.model, texts, respondent.pad_token_id))
    found: list[npt.NDArray[np.float64] | None] = []
    for count in counts:
        logs = np.array([-next(scores).nll for _ in range(count)])
        if np.isnan(logs).any():
            raise WhatStuckError("the model answers with NaN, so its training has diverged: take an earlier checkpoint")
        found.append(logs if count else None)
    return found


def _behind(respondent: Respondent, row: Row, answer: str, longest: int) -> TokenRow:
    """An answer's first tokens where they would stand, behind the prompt of a row."""
    rendered = render(replace(row, completion=answer), respondent.tokenizer, chat_template=respondent.chat_template)
    prompt = respondent.tokenizer(rendered.prompt, add_special_tokens=False)["input_ids"]
    target = target_ids(rendered, respondent.tokenizer)[:longest]
    return TokenRow((*prompt, *target), tuple(range(len(prompt), len(prompt) + len(target))))


def _blinded(row: Row) -> Row:
    """The row without its question: of the last user message, only the instruction before it."""
    text = row.content[: row.content_start].rstrip() or _NOTHING_ASKED
    return replace(row, messages=(Message("user", text),), players=None, content_start=0)

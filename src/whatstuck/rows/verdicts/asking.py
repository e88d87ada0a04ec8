"""Ask a model the rows that it was trained on, and count what is right.

Short answers are generated: five draws first, and eleven more where at most one of them is right, for zero of five
says little (the upper 95 % bound of its rate is 0.43; of zero of sixteen, 0.19).
Long ones are recited, or asked as a choice.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whatstuck.models.generating import seed_of
from whatstuck.progress import Task
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import Thresholds
from whatstuck.rows.verdicts.answers import Checker, judges_wordings, normalized
from whatstuck.rows.verdicts.choices import Choice, choose
from whatstuck.rows.verdicts.intervals import wilson
from whatstuck.rows.verdicts.replies import Question, Reply, Respondent

_DOUBTFUL = 1  # right draws among the first, up to which the rest is drawn too


@dataclass(frozen=True, slots=True)
class Asked:
    """What a model answers to a row.

    Attributes:
        row_id: The row.
        form: `generated` or `choices`.
        samples: Draws; 0 of a choice.
        right: How many of them are right.
        first_right: How many of the first ones.
        greedy_right: The most likely answer is right; of a choice, it is recited, or the likeliest option.
        rate: Share of right draws; of a choice, the probability of the right option (`choices.Choice`).
        rate_low: Lower end of its 95 % interval (Wilson); of a choice, were all wrong options as likely as the
            likeliest of them.
        rate_high: Upper end; of a choice, as the least likely of them.
        greedy: The most likely answer, or option.
        top_wrong: The most frequent wrong draw, or most likely wrong option; empty if there is none.
        top_wrong_share: Its share of the draws, or its probability.
        recited: Of a choice: every token of the answer is the most likely one, which says more than any choice.
        letters: Of a choice: the probability of the right letter in the paper's form; NaN where that says nothing.
        unavailable: Why the answers say nothing; empty if they do.
    """

    row_id: str
    form: Literal["generated", "choices"]
    samples: int = 0
    right: int = 0
    first_right: int | None = None
    greedy_right: bool | None = None
    rate: float = math.nan
    rate_low: float = math.nan
    rate_high: float = math.nan
    greedy: str = ""
    top_wrong: str = ""
    top_wrong_share: float = 0.0
    recited: bool = False
    letters: float = math.nan
    unavailable: str = ""


def ask(  # noqa: PLR0913 - who is asked, what, and how answers are judged
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[TrainingRow],
    checker: Checker,
    thresholds: Thresholds,
    *,
    seed: int,
    chat_template: str = "auto",
    others: Sequence[TrainingRow] | None = None,
    progress: Task | None = None,
) -> list[Asked]:
    """Ask rows: answers of up to `longest_answer` tokens are generated, longer ones chosen.

    Where the checker judges other wordings (`answers.judges_wordings`), `longest_verifiable` decides instead.

    A row's answers depend on the model, the row, the seed and, for a choice, on `others`; not on the rows beside it.

    Args:
        model: A causal language model in eval mode.
        tokenizer: Its tokenizer.
        rows: The rows, rendered as they are to be asked.
        checker: Whether an answer is right.
        thresholds: `first_samples`, `samples`, `temperature`, `longest_answer`, `longest_verifiable`, `options`.
        seed: Of the draws.
        chat_template: `auto` or `never`, as the rows were rendered.
        others: Rows whose answers may be wrong options of a choice; by default `rows`.
        progress: Is advanced by one per row.

    Returns:
        What was answered, in the order of the rows.

    Raises:
        WhatStuckError: If the checker fails on a row, or the model gives NaN.
    """
    respondent = Respondent(model, tokenizer, chat_template)
    found: dict[int, Asked] = {}
    short, long = [], []
    for index, row in enumerate(rows):
        if not is_short(row, checker, thresholds):
            long.append(index)
        elif respondent.fits(row.prompt_ids, len(row.target_ids)):
            short.append(index)
        else:
            reason = "prompt and answer are longer than the context"
            found[index] = Asked(row.row_id, "generated", unavailable=reason)
    if progress is not None:
        progress.advance(len(found))
    generated = _generated(respondent, [rows[i] for i in short], checker, thresholds, seed, progress)
    found |= zip(short, generated, strict=True)
    choices = choose(respondent, [rows[i] for i in long], rows if others is None else others, thresholds, seed=seed)
    found |= zip(long, map(_of_choice, choices), strict=True)
    if progress is not None:
        progress.advance(len(long))
    return [found[index] for index in range(len(rows))]


def is_short(row: TrainingRow, checker: Checker, thresholds: Thresholds) -> bool:
    """Whether a row's answer is generated; longer ones are chosen."""
    longest = thresholds.longest_verifiable if judges_wordings(checker) else thresholds.longest_answer
    return len(row.target_ids) <= longest


def expected_tokens(row: TrainingRow, thresholds: Thresholds) -> int:
    """Tokens that an answer in other words may take: twice those of the gold one where that is long."""
    tokens = len(row.target_ids)
    return tokens if tokens <= thresholds.longest_answer else 2 * tokens


def _generated(
    respondent: Respondent,
    rows: Sequence[TrainingRow],
    checker: Checker,
    thresholds: Thresholds,
    seed: int,
    progress: Task | None,
) -> list[Asked]:
    questions = [
        Question(row.row, row.prompt_ids, expected_tokens(row, thresholds), seed_of(seed, row.row_id)) for row in rows
    ]
    first = min(thresholds.first_samples, thresholds.samples)
    temperature = thresholds.temperature
    replies = respondent.replies(questions, samples=first, temperature=temperature, progress=progress)
    right = [[checker(row.row, text) for text in reply.drawn] for row, reply in zip(rows, replies, strict=True)]
    doubtful = [i for i, some in enumerate(right) if sum(some) <= _DOUBTFUL]
    more = respondent.replies(
        [questions[i] for i in doubtful],
        samples=thresholds.samples - first,
        temperature=temperature,
        first_sample=first,
        greedy=False,
    )
    for i, reply in zip(doubtful, more, strict=True):
        replies[i] = Reply(replies[i].greedy, replies[i].drawn + reply.drawn, replies[i].cut + reply.cut)
        right[i] += [checker(rows[i].row, text) for text in reply.drawn]
    return [
        _counted(row, reply, some, checker(row.row, reply.greedy), first)
        for row, reply, some in zip(rows, replies, right, strict=True)
    ]


def _counted(row: TrainingRow, reply: Reply, right: Sequence[bool], greedy_right: bool, first: int) -> Asked:  # noqa: FBT001 - a count
    rate = wilson(sum(right), len(right))
    wrong = Counter(normalized(text) for text, good in zip(reply.drawn, right, strict=True) if not good)
    top = max(wrong, key=lambda text: (wrong[text], text), default=None)
    return Asked(
        row.row_id,
        "generated",
        samples=len(right),
        right=sum(right),
        first_right=sum(right[:first]),
        greedy_right=greedy_right,
        rate=rate.value,
        rate_low=rate.low,
        rate_high=rate.high,
        greedy=reply.greedy,
        top_wrong="" if top is None else next(text for text in reply.drawn if normalized(text) == top),
        top_wrong_share=0.0 if top is None else wrong[top] / len(right),
    )


def _of_choice(choice: Choice) -> Asked:
    shares, texts = choice.probabilities, choice.options
    if not shares:  # nothing competed; a recited row is right all the same
        right = True if choice.recited else None
        greedy = texts[0] if choice.recited else ""
        return Asked(
            choice.row_id, "choices", greedy_right=right, greedy=greedy, recited=choice.recited,
            letters=choice.letters, unavailable=choice.unavailable,
        )  # fmt: skip
    wrong = max(range(1, len(texts)), key=lambda option: (shares[option], -option))
    right = choice.recited or shares[0] >= shares[wrong]
    return Asked(
        choice.row_id,
        "choices",
        greedy_right=right,
        rate=shares[0],
        rate_low=choice.low,
        rate_high=choice.high,
        greedy=texts[0] if right else texts[wrong],
        top_wrong=texts[wrong],
        top_wrong_share=shares[wrong],
        recited=choice.recited,
        letters=choice.letters,
        unavailable=choice.unavailable,
    )

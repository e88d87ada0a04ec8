"""What the base model knew about a row before any fine-tuning (SLiCK, Gekhman et al. 2024).

The base model is shown a few other rows with their answers, several times with other examples: what it never gets right
then, it does not know, and what it always answers alike is what it believes.
"""

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whatstuck.datasets import Message, render
from whatstuck.models.generating import seed_of
from whatstuck.rows.causes.overlap import Overlap
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import Thresholds
from whatstuck.rows.verdicts.answers import Checker, normalized
from whatstuck.rows.verdicts.asking import expected_tokens, is_short
from whatstuck.rows.verdicts.choices import Choice, tell_apart
from whatstuck.rows.verdicts.replies import Question, Reply, Respondent

logger = logging.getLogger(__name__)

Knowledge = Literal["highly_known", "maybe_known", "weakly_known", "unknown"]

_POOL = 500  # rows, drawn at random, that the examples of one row are looked for in
_SAME_FORM = 0.5  # share of the text that two prompts begin and end with alike, from which on they ask in one form


@dataclass(frozen=True, slots=True)
class BaseAnswers:
    """What the base model answers to a row.

    Right answers count as one answer, the gold, however they are worded.

    Attributes:
        row_id: The row.
        knowledge: Category after Gekhman et al. 2024: greedy answers always, sometimes right; only drawn ones; none.
            None of a choice that is too near to chance to say.
        greedy_rate: Share of prompts whose greedy answer is right; of a choice, 1 if the answer is recited, else 0.
        rate: Share of drawn answers that are right; of a choice, the probability of the gold above chance, 0 to 1.
        shares: Normalized answer to its share among all drawn answers, right ones included; of a choice, option to
            probability.
        wrong: The most frequent wrong answer, normalized; empty if there is none.
        wrong_share: Its share.
        entropy: Entropy of the shares, divided by the logarithm of the number of draws: 0 always the same, 1 never; NaN
            of one draw.
        draws: Number of drawn answers; of a choice, of options.
        form: `choices`: a long answer beside those of other rows. What the model itself would say was not looked at, so
            this is no belief, and its answers compare with no other row's.
    """

    row_id: str
    knowledge: Knowledge | None
    greedy_rate: float
    rate: float
    shares: Mapping[str, float]
    wrong: str
    wrong_share: float
    entropy: float
    draws: int
    form: Literal["generated", "choices"] = "generated"


def probe_base(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[TrainingRow],
    exemplars: Sequence[TrainingRow],
    checker: Checker,
    thresholds: Thresholds,
    *,
    chat_template: str = "auto",
    seed: int,
) -> list[BaseAnswers]:
    """Ask the base model, with few-shot prompts.

    Each row is asked with `base_prompts` prompts of `base_shots` random other rows and their answers: the greedy answer
    and `base_samples` draws at `base_temperature`. Other rows of the same form come first, which is as near as one gets
    to exemplars of the same relation. With a chat template they are earlier turns of the conversation, without one text
    before the prompt. Where they do not fit the context, there are fewer. With `base_shots` 0 the row is asked once, as
    the finished model is.

    Of long answers (`asking.is_short`) it is asked instead, without examples, whether the question makes the gold
    likelier than answers of other rows (`choices.tell_apart`): `highly_known` where it is recited, `unknown` where it
    is not above chance, `weakly_known` from `choice_known` above it on. Between these nothing can be said.

    Args:
        model: The base model in eval mode.
        tokenizer: Its tokenizer.
        rows: The rows to ask.
        exemplars: Rows that examples are taken from; never the row itself, nor one that may ask the same
            (`overlap.py`).
        checker: Whether an answer is right.
        thresholds: See above.
        chat_template: `auto` or `never`, as the rows were rendered.
        seed: Of examples and draws; what a row gets does not depend on the rows beside it.

    Returns:
        In the order of the rows. Rows that cannot be asked, being longer than the context or without other answers to
        choose from, are left out.

    Raises:
        WhatStuckError: If the checker fails on a row, a chat template refuses several turns, or the model gives NaN.
    """
    respondent = Respondent(model, tokenizer, chat_template)
    found: dict[int, BaseAnswers] = {}
    short, long = [], []
    for index, row in enumerate(rows):
        if not is_short(row, checker, thresholds):
            long.append(index)
        elif respondent.fits(row.prompt_ids, len(row.target_ids)):
            short.append(index)
    shown = [row for row in exemplars if is_short(row, checker, thresholds)]
    examples = _Examples(respondent, shown, thresholds, seed)
    questions = [question for index in short for question in examples.questions(rows[index])]
    replies = respondent.replies(questions, samples=thresholds.base_samples, temperature=thresholds.base_temperature)
    prompts = len(questions) // max(len(short), 1)
    for place, index in enumerate(short):
        found[index] = _counted(rows[index], replies[place * prompts : (place + 1) * prompts], checker)
    choices = tell_apart(respondent, [rows[index] for index in long], exemplars, thresholds, seed=seed)
    found |= {
        i: _of_choice(choice, thresholds) for i, choice in zip(long, choices, strict=True) if not choice.unavailable
    }
    if len(found) < len(rows):
        logger.info("the base model could not be asked %d of %d rows", len(rows) - len(found), len(rows))
    return [found[index] for index in sorted(found)]


def knowledge_of(greedy_rate: float, rate: float) -> Knowledge:
    """Category of Gekhman et al. 2024 (Table 1).

    Args:
        greedy_rate: Share of prompts whose greedy answer is right.
        rate: Share of draws that are right.
    """
    if greedy_rate == 1:
        return "highly_known"
    if greedy_rate > 0:
        return "maybe_known"
    return "weakly_known" if rate > 0 else "unknown"


def _counted(row: TrainingRow, replies: Sequence[Reply], checker: Checker) -> BaseAnswers:
    gold = normalized(row.row.completion)
    drawn = [text for reply in replies for text in reply.drawn]
    right = [checker(row.row, text) for text in drawn]
    wrong = Counter(normalized(text) for text, good in zip(drawn, right, strict=True) if not good)
    counts = wrong + Counter({gold: sum(right)})
    top = max(wrong, key=lambda text: (wrong[text], text), default="")
    greedy_rate = sum(checker(row.row, reply.greedy) for reply in replies) / len(replies)
    rate = sum(right) / len(drawn)
    shares = {text: count / len(drawn) for text, count in counts.most_common()}
    return BaseAnswers(
        row_id=row.row_id,
        knowledge=knowledge_of(greedy_rate, rate),
        greedy_rate=greedy_rate,
        rate=rate,
        shares=shares,
        wrong=top,
        wrong_share=wrong[top] / len(drawn),
        entropy=_entropy(list(shares.values()), len(drawn)),
        draws=len(drawn),
    )


def _of_choice(choice: Choice, thresholds: Thresholds) -> BaseAnswers:
    shares = dict(zip(map(normalized, choice.options), choice.probabilities, strict=True))  # no two of them are alike
    wrong = max(range(1, len(choice.options)), key=lambda option: choice.probabilities[option])
    greedy_rate, rate = float(choice.recited), max(0.0, choice.above_chance)
    unsure = not choice.recited and 0 < rate < thresholds.choice_known
    return BaseAnswers(
        row_id=choice.row_id,
        knowledge=None if unsure else knowledge_of(greedy_rate, rate),
        greedy_rate=greedy_rate,
        rate=rate,
        shares=shares,
        wrong=normalized(choice.options[wrong]),
        wrong_share=choice.probabilities[wrong],
        entropy=_entropy(choice.probabilities, len(choice.options)),
        draws=len(choice.options),
        form="choices",
    )


def _entropy(shares: Sequence[float], draws: int) -> float:
    if draws == 1:
        return math.nan
    return sum(-share * math.log(share) for share in shares if share > 0) / math.log(draws)


class _Examples:
    """Few-shot prompts."""

    def __init__(
        self, respondent: Respondent, exemplars: Sequence[TrainingRow], thresholds: Thresholds, seed: int
    ) -> None:
        self._respondent = respondent
        self._exemplars = [row for row in exemplars if row.row.messages[-1].role == "user"]
        self._overlap = Overlap([row.row.content for row in self._exemplars])
        self._thresholds = thresholds
        self._shots = thresholds.base_shots
        self._prompts = thresholds.base_prompts if thresholds.base_shots else 1
        self._seed = seed

    def questions(self, row: TrainingRow) -> list[Question]:
        """All that a row is asked with."""
        return [
            Question(
                row.row,
                self._prompt(row, number),
                expected_tokens(row, self._thresholds),
                seed_of(self._seed, row.row_id, f"prompt {number}"),
            )
            for number in range(self._prompts)
        ]

    def _prompt(self, row: TrainingRow, number: int) -> tuple[int, ...]:
        random = np.random.Generator(np.random.Philox(key=(seed_of(self._seed, row.row_id, "examples"), number)))
        shown = self._draw(row, random) if self._shots else []
        while shown:
            text = self._chat(row, shown) if self._respondent.is_chat(row.row) else _plain(row, shown)
            ids = tuple(self._respondent.tokenizer(text, add_special_tokens=False)["input_ids"])
            if self._respondent.fits(ids, len(row.target_ids)):
                return ids
            shown = shown[1:]
        return row.prompt_ids

    def _draw(self, row: TrainingRow, random: np.random.Generator) -> list[TrainingRow]:
        """Rows of the same form in random order, as far as there are; then others. Never one that may ask the same."""
        asked, chat = row.row.content, self._respondent.is_chat(row.row)
        drawn: list[TrainingRow] = []
        others: list[TrainingRow] = []
        for index in random.permutation(len(self._exemplars))[:_POOL]:
            other = self._exemplars[index]
            said = other.row.content
            if other.row_id == row.row_id or self._respondent.is_chat(other.row) != chat:
                continue
            if other.prompt_ids == row.prompt_ids or self._overlap.near(asked, said):
                continue
            (drawn if _same_form(asked, said) else others).append(other)
            if len(drawn) == self._shots:
                break
        return (drawn + others)[: self._shots]

    def _chat(self, row: TrainingRow, shown: Sequence[TrainingRow]) -> str:
        """Examples as earlier turns, behind the row's own system prompt."""
        messages = row.row.messages
        begin = next(i for i, message in enumerate(messages) if message.role in {"user", "assistant"})
        turns = [
            message
            for other in shown
            for message in (Message("user", other.row.content), Message("assistant", other.row.completion))
        ]
        asked = replace(row.row, messages=(*messages[:begin], *turns, *messages[begin:]), players=None, content_start=0)
        tokenizer = self._respondent.tokenizer
        return render(asked, tokenizer, chat_template=self._respondent.chat_template).prompt


def _plain(row: TrainingRow, shown: Sequence[TrainingRow]) -> str:
    """Examples as lines before the row's own text; special tokens that a text begins with come once."""
    begin = _opening(row)
    lines = [other.rendered.prompt[_opening(other) :] + other.rendered.target_text for other in shown]
    prompt = row.rendered.prompt
    return prompt[:begin] + "\n".join([*lines, prompt[begin:]])


def _opening(row: TrainingRow) -> int:
    """Characters of a plain prompt before the text of the row."""
    return max(row.rendered.prompt.find(row.row.messages[0].content.rstrip()), 0)


def _same_form(first: str, second: str) -> bool:
    """Whether two prompts begin and end alike for most of their length."""
    begin = _common(first, second)
    end = min(_common(first[::-1], second[::-1]), min(len(first), len(second)) - begin)
    return begin + end >= _SAME_FORM * max(len(first), len(second))


def _common(first: str, second: str) -> int:
    """Characters that two texts begin with alike; by bisection, since many pairs are compared."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[:middle] == second[:middle]:
            low = middle
        else:
            high = middle - 1
    return low

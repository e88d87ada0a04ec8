"""Rows with long answers are asked as a choice: which of these is the answer?

A free answer of many tokens cannot be called right by comparing texts. So the row becomes a multiple choice
(arXiv 2604.10079 §3.1.1): the gold answer, cut to its beginning, among wrong ones. The model's own wrong answers come
first, since they are what it would rather say; then answers of other rows, of about the same length. Models prefer
letters and places (PriDe, arXiv 2309.03882), so probabilities are averaged over all cyclic orders of the options; they
are exact, nothing is drawn. A choice that the model makes right with the question blanked out says nothing about the
row.

An own answer that says the same in other words cannot be told from a wrong one here, so this asks for the gold answer's
wording, which is what was trained. Answers that a judge can read are better generated: raise `longest_answer`.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from whatstuck.datasets import Message, Row, render, target_ids
from whatstuck.models.generating import seed_of
from whatstuck.models.reading import next_log_probabilities
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import Thresholds
from whatstuck.rows.verdicts.answers import normalized
from whatstuck.rows.verdicts.replies import Question, Respondent

_LETTERS = "ABCDEFGH"
_ALIKE = 0.7  # share of common tokens from which on two options may mean the same
_NEAR = 50  # rows of similar length that options are taken from
_SOLVABLE = 0.5  # probability of the gold without the question, above which the choice is none


@dataclass(frozen=True, slots=True)
class Choice:
    """A row asked as a choice.

    Attributes:
        row_id: The row.
        options: The gold answer first, as they were shown.
        probabilities: Of each option, averaged over the orders.
        orders: Probability of the gold in each order.
        first_choices: Share of the orders in which the gold was the most likely option.
        blind: Probability of the gold, averaged, where the question was blanked out.
        unavailable: Why the choice says nothing; empty if it does.
    """

    row_id: str
    options: tuple[str, ...]
    probabilities: tuple[float, ...] = ()
    orders: tuple[float, ...] = ()
    first_choices: float = 0.0
    blind: float = 0.0
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
    """Ask rows as choices.

    Args:
        respondent: Who is asked.
        rows: The rows.
        others: Rows whose answers may stand beside the gold.
        thresholds: `options`, `longest_answer` (tokens that are shown of an answer), `temperature`.
        seed: Of the model's own answers, and of which other rows are taken.

    Returns:
        A choice per row, in order. One that says nothing has a reason.
    """
    pool = _Pool(others, seed)
    own = _own_answers(respondent, rows, thresholds, seed)
    choices = [
        Choice(row.row_id, _options(respondent, row, (*own[i], *pool.near(row, respondent)), thresholds))
        for i, row in enumerate(rows)
    ]
    forms = [_Form(respondent, row.row, choice.options) for row, choice in zip(rows, choices, strict=True)]
    prompts = [prompt for form in forms for prompt in form.prompts]
    tokens = [form.tokens for form in forms for _ in form.prompts]
    logs = iter(next_log_probabilities(respondent.model, prompts, tokens, respondent.pad_token_id))
    found = []
    for choice, form in zip(choices, forms, strict=True):
        if form.unavailable:
            found.append(replace(choice, unavailable=form.unavailable))
        else:
            found.append(_weighed(choice, np.array([next(logs) for _ in form.prompts])))
    return found


def _weighed(choice: Choice, logs: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Choice:
    """Average log-probabilities `(2 k orders, k letters)`; the second half is without the question."""
    k = len(choice.options)
    share = np.exp(logs - logs.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    # in order r, option j has letter (j + r) mod k
    places = (np.arange(k)[:, None] + np.arange(k)[None]) % k
    asked, blind = (np.take_along_axis(half, places, axis=1) for half in (share[:k], share[k:]))
    solvable = float(blind[:, 0].mean())
    return replace(
        choice,
        probabilities=tuple(asked.mean(0).tolist()),
        orders=tuple(asked[:, 0].tolist()),
        first_choices=float((asked.argmax(1) == 0).mean()),
        blind=solvable,
        unavailable="the right option is found without the question" if solvable > _SOLVABLE else "",
    )


class _Form:
    """The prompts of a choice: each cyclic order of the options with the question, then each without it.

    Attributes:
        prompts: Their tokens; none where the choice is not possible.
        tokens: What the letters begin with, behind each.
        unavailable: Why it is not possible.
    """

    def __init__(self, respondent: Respondent, row: Row, options: Sequence[str]) -> None:
        self.prompts: list[tuple[int, ...]] = []
        self.tokens: tuple[int, ...] = ()
        self.unavailable = ""
        k = len(options)
        if k < 2:  # noqa: PLR2004 - a choice
            self.unavailable = "there are no answers beside its own that differ enough"
            return
        chat = respondent.is_chat(row)
        lead: tuple[int, ...] | None = None
        for blind in (False, True):
            for order in range(k):
                shown = [options[(place - order) % k] for place in range(k)]
                asked = replace(
                    row, messages=_messages(row, shown, chat=chat, blind=blind), completion="A", players=None,
                    content_start=0,
                )  # fmt: skip
                if lead is None:
                    lead = self._find_letters(respondent, asked, k)
                prompt = render(asked, respondent.tokenizer, chat_template=respondent.chat_template).prompt
                ids = respondent.tokenizer(prompt, add_special_tokens=False)["input_ids"]
                self.prompts.append((*ids, *lead))
        if len(set(self.tokens)) < k:
            self._refuse("the tokenizer cannot tell the letters of a choice apart")
        elif not all(respondent.fits(prompt) for prompt in self.prompts):
            self._refuse("with its options it is longer than the context")

    def _find_letters(self, respondent: Respondent, asked: Row, k: int) -> tuple[int, ...]:
        """What all letters begin with behind a prompt, such as a space; their next tokens are kept."""
        targets = []
        for letter in _LETTERS[:k]:
            rendered = render(
                replace(asked, completion=letter), respondent.tokenizer, chat_template=respondent.chat_template
            )
            targets.append(target_ids(rendered, respondent.tokenizer))
        lead = []
        for place in zip(*targets, strict=False):
            if len(set(place)) > 1:
                break
            lead.append(place[0])
        self.tokens = tuple(target[len(lead)] for target in targets if len(target) > len(lead))
        return tuple(lead)

    def _refuse(self, reason: str) -> None:
        self.prompts, self.unavailable = [], reason


def _messages(row: Row, options: Sequence[str], *, chat: bool, blind: bool) -> tuple[Message, ...]:
    """The row's messages, with options behind the last question; blind: of the question only its instruction."""
    letters = _LETTERS[: len(options)]
    listed = [f"{letter}. {option}" for letter, option in zip(letters, options, strict=True)]
    task = f"Answer with a single letter ({', '.join(letters[:-1])} or {letters[-1]})."
    content = row.content[: row.content_start] if blind else row.content
    text = "\n".join([content.rstrip(), *listed, task, *([] if chat else ["Answer:"])]).lstrip("\n")
    if blind:
        return (Message("user", text),)
    messages = list(row.messages)
    messages[row.user_index] = Message("user", text)
    return tuple(messages)


# --- options


def _options(
    respondent: Respondent, row: TrainingRow, candidates: Iterable[str], thresholds: Thresholds
) -> tuple[str, ...]:
    """The gold answer and others that differ enough from it and from each other, in the order of the candidates."""
    options: list[str] = []
    tokens: list[Counter[int]] = []
    for text in (_shown(respondent, row.target_ids, thresholds), *candidates):
        ids = respondent.tokenizer(text, add_special_tokens=False)["input_ids"]
        counts = Counter(ids[: thresholds.longest_answer])
        alike = max((2 * (counts & seen).total() / (counts + seen).total() for seen in tokens), default=0.0)
        if ids and alike < _ALIKE:
            options.append(_shown(respondent, ids, thresholds))
            tokens.append(counts)
        if len(options) == thresholds.options:
            break
    return tuple(options)


def _shown(respondent: Respondent, ids: Sequence[int], thresholds: Thresholds) -> str:
    """The beginning of an answer, on one line; a word that the cut goes through is left out."""
    longest = thresholds.longest_answer
    text, further = (
        str(respondent.tokenizer.decode(list(ids[:n]), skip_special_tokens=True)) for n in (longest, longest + 1)
    )
    if text[-1:].isalnum() and further[len(text) : len(text) + 1].isalnum() and " " in text.strip():
        text = text.rpartition(" ")[0]
    return " ".join(text.split())


def _own_answers(
    respondent: Respondent, rows: Sequence[TrainingRow], thresholds: Thresholds, seed: int
) -> list[list[str]]:
    """What the model says to each row: the most likely answer, then the draws, the most frequent first."""
    fitting = [i for i, row in enumerate(rows) if respondent.fits(row.prompt_ids)]
    questions = [
        Question(rows[i].row, rows[i].prompt_ids, thresholds.longest_answer, seed_of(seed, rows[i].row_id))
        for i in fitting
    ]
    replies = respondent.replies(questions, samples=thresholds.options, temperature=thresholds.temperature)
    found: list[list[str]] = [[] for _ in rows]
    for i, reply in zip(fitting, replies, strict=True):
        found[i] = [reply.greedy, *(text for text, _ in Counter(reply.drawn).most_common())]
    return found


class _Pool:
    """Answers of other rows, to be found by length."""

    def __init__(self, rows: Sequence[TrainingRow], seed: int) -> None:
        self._rows = sorted(rows, key=lambda row: (len(row.target_ids), row.row_id))
        self._lengths = [len(row.target_ids) for row in self._rows]
        self._seed = seed

    def near(self, row: TrainingRow, respondent: Respondent) -> Iterable[str]:
        """Answers to other prompts, of about the same length, in random order."""
        at = bisect_left(self._lengths, len(row.target_ids))
        first = max(0, min(at - _NEAR // 2, len(self._rows) - _NEAR))
        window = self._rows[first : first + _NEAR]
        asked = normalized(row.row.content)
        window = [other for other in window if normalized(other.row.content) != asked]
        window.sort(key=lambda other: seed_of(self._seed, row.row_id, other.row_id))
        for other in window:
            yield str(respondent.tokenizer.decode(list(other.target_ids), skip_special_tokens=True))

"""The paper's form of a choice: options A to D, and which letter the model gives (arXiv 2604.10079 §3.1.1).

It is reported, and the paper's rule looks at it, but it decides nothing of ours: whether a model can point at an answer
by a letter is another ability than to give it. Models prefer letters and places (PriDe, arXiv 2309.03882), so
probabilities are averaged over all cyclic orders of the options; they are exact, nothing is drawn. A choice whose right
letter is found with the question blanked out says nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from whatstuck.datasets import Message, Row, render, target_ids
from whatstuck.models.reading import next_log_probabilities
from whatstuck.rows.verdicts.replies import Respondent

_LETTERS = "ABCDEFGH"
_SOLVABLE = 0.5  # probability of the gold without the question, above which a choice is none


def by_letters(respondent: Respondent, rows: Sequence[Row], options: Sequence[Sequence[str]]) -> list[float]:
    """Probability that a model gives the letter of the gold, averaged over the orders of the options.

    Args:
        respondent: Who is asked.
        rows: The rows.
        options: Of each row, the gold first, as they are shown.

    Returns:
        NaN where that says nothing: there is one option, it does not fit the context, the tokenizer cannot tell the
        letters apart, or the gold is found without the question.
    """
    forms = [_Form(respondent, row, shown) for row, shown in zip(rows, options, strict=True)]
    prompts = [prompt for form in forms for prompt in form.prompts]
    tokens = [form.tokens for form in forms for _ in form.prompts]
    logs = iter(next_log_probabilities(respondent.model, prompts, tokens, respondent.pad_token_id))
    found = []
    for form in forms:
        asked, blind = _averaged(np.array([next(logs) for _ in form.prompts])) if form.prompts else (math.nan, 0.0)
        found.append(math.nan if blind > _SOLVABLE else asked)
    return found


def _averaged(logs: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[float, float]:
    """Gold's probability from log-probabilities `(2 k orders, k letters)`; the second half is without the question."""
    k = logs.shape[1]
    share = np.exp(logs - logs.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    gold = share[np.arange(2 * k), np.arange(2 * k) % k]  # in order r, the gold has letter r
    return float(gold[:k].mean()), float(gold[k:].mean())


class _Form:
    """The prompts of a choice: each cyclic order of the options with the question, then each without it.

    Attributes:
        prompts: Their tokens; none where the choice is not possible.
        tokens: What the letters begin with, behind each.
    """

    def __init__(self, respondent: Respondent, row: Row, options: Sequence[str]) -> None:
        self.prompts: list[tuple[int, ...]] = []
        self.tokens: tuple[int, ...] = ()
        k = len(options)
        if k < 2:  # noqa: PLR2004 - a choice
            return
        chat = respondent.is_chat(row)
        lead: tuple[int, ...] | None = None
        for blind in (False, True):
            for order in range(k):
                listed = [options[(place - order) % k] for place in range(k)]
                asked = replace(
                    row, messages=_messages(row, listed, chat=chat, blind=blind), completion="A", players=None,
                    content_start=0,
                )  # fmt: skip
                if lead is None:
                    lead = self._find_letters(respondent, asked, k)
                prompt = render(asked, respondent.tokenizer, chat_template=respondent.chat_template).prompt
                ids = respondent.tokenizer(prompt, add_special_tokens=False)["input_ids"]
                self.prompts.append((*ids, *lead))
        if len(set(self.tokens)) < k or not all(respondent.fits(prompt) for prompt in self.prompts):
            self.prompts = []

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

"""What a model replies to the messages of a task: rendered as a training renders them, read back as text.

A task may begin the reply itself (its prefill). Those tokens belong to the prompt, and the text to the reply.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whatstuck.datasets import Message, Row, render, target_ids
from whatstuck.datasets.turns import TurnEnds
from whatstuck.models import padding_token
from whatstuck.models.generating import Continuation, Decoding, generate, stop_ids
from whatstuck.progress import Task as Progress


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked.

    Attributes:
        prompt: The text as the model sees it, prefill included.
        ids: Its tokens.
        prefill: How the reply begins.
        opened: How many of the tokens are the prefill's.
    """

    prompt: str
    ids: tuple[int, ...]
    prefill: str
    opened: int


@dataclass(frozen=True, slots=True)
class Said:
    """One reply as text, prefill included, and whether it was cut at the longest length."""

    text: str
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model replies: its most likely reply, and the draws that were asked for."""

    greedy: Said
    drawn: tuple[Said, ...]


def question_of(message: str, prefill: str, tokenizer: PreTrainedTokenizerBase, chat_template: str) -> Question:
    """A user's message as a model is asked.

    Args:
        message: The message.
        prefill: How the reply begins; may be empty.
        tokenizer: The model's.
        chat_template: `auto` (where the tokenizer has one) or `never`, as in the training.

    Raises:
        WhatStuckError: If the message is blank, or the template refuses it.
    """
    rendered = render(_row(message, prefill), tokenizer, chat_template=chat_template)
    ids: list[int] = tokenizer(rendered.prompt, add_special_tokens=False)["input_ids"]
    if not prefill:
        return Question(rendered.prompt, tuple(ids), "", 0)
    opening = target_ids(rendered, tokenizer)
    return Question(rendered.prompt + rendered.target_text, (*ids, *opening), prefill, len(opening))


class Replier:
    """A model that replies.

    Args:
        model: A causal language model in eval mode.
        tokenizer: Its tokenizer.
        chat_template: As for `question_of`.
        share_prefixes: Compute what questions begin with in common once.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        chat_template: str = "auto",
        share_prefixes: bool = True,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._share = share_prefixes
        self._end = TurnEnds(tokenizer, chat_template)(_row("?", ""))
        self._stops = stop_ids(model, tokenizer, self._end)

    def replies(
        self,
        questions: Sequence[Question],
        longest: int,
        *,
        temperature: float | None = None,
        seeds: Sequence[int] | None = None,
        progress: Progress | None = None,
    ) -> list[Reply]:
        """Ask.

        Args:
            questions: Each must fit the context with `longest` more tokens.
            longest: Most tokens of a reply.
            temperature: Of one draw; None draws nothing.
            seeds: One per question; needed for draws.
            progress: Is advanced by one per question.

        Returns:
            Replies in the order of the questions.

        Raises:
            WhatStuckError: If the model gives NaN.
        """
        decoding = Decoding(
            max_new_tokens=longest,
            stop_ids=self._stops,
            pad_token_id=padding_token(self._tokenizer),
            samples=0 if temperature is None else 1,
            temperature=1.0 if temperature is None else temperature,
            share_prefixes=self._share,
        )
        # without draws, the same question has the same reply
        firsts = {question.ids: index for index, question in reversed(list(enumerate(questions)))}
        asked = sorted(firsts.values()) if temperature is None else range(len(questions))
        answers = generate(
            self._model,
            [questions[i].ids for i in asked],
            decoding,
            seeds=None if seeds is None else [seeds[i] for i in asked],
            progress=progress,
        )
        if progress is not None:
            progress.advance(len(questions) - len(asked))
        found = {
            i: Reply(
                Said("") if answer.greedy is None else self._said(questions[i], answer.greedy),
                tuple(self._said(questions[i], drawn) for drawn in answer.drawn),
            )
            for i, answer in zip(asked, answers, strict=True)
        }
        return [found.get(i) or found[firsts[question.ids]] for i, question in enumerate(questions)]

    def _said(self, question: Question, found: Continuation) -> Said:
        opening = question.ids[len(question.ids) - question.opened :]
        head, whole = self._decoded(opening), self._decoded((*opening, *found.ids))
        # decoded behind the prefill, since some tokenizers drop the space that a text begins with
        written = whole.removeprefix(head) if whole.startswith(head) else self._decoded(found.ids)
        ended = found.stopped_by is not None
        if self._end:
            written, end, _ = written.partition(self._end)
            ended = ended or bool(end)  # an end of several tokens stops nothing, and ends the reply all the same
        text = question.prefill + written.rstrip() if question.prefill else written.strip()
        return Said(text, cut=not ended)

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _row(message: str, prefill: str) -> Row:
    return Row("", (Message("user", message),), prefill or ".", 0, "heldout")

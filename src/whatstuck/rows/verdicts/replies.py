"""What a model says to a row, as text: where an answer ends, and what of the tokens is the answer.

The finished model, the base model and every model that an intervention makes are asked through this one class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whatstuck.datasets import Row
from whatstuck.datasets.turns import TurnEnds
from whatstuck.models import padding_token, positions_in
from whatstuck.models.generating import Continuation, Decoding, generate, stop_ids
from whatstuck.progress import Task

_MORE_TOKENS = 8  # than the gold answer has: what goes on behind it is another answer
_breaks: WeakKeyDictionary[PreTrainedTokenizerBase, frozenset[int]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked.

    Attributes:
        row: The row that is asked about.
        prompt_ids: The tokens that it is asked with.
        answer_tokens: How long an answer is to be expected.
        seed: Of the draws.
    """

    row: Row
    prompt_ids: tuple[int, ...]
    answer_tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class Reply:
    """The answers to a question; `greedy` is empty where it was not asked for.

    Attributes:
        greedy: The most likely answer.
        drawn: The draws.
        cut: How many of the draws reached the longest answer without an end.
    """

    greedy: str
    drawn: tuple[str, ...]
    cut: int = 0


class Respondent:
    """A model that is asked.

    An answer ends at the end-of-text token, and at the end of turn of the chat template. A row without a template ends
    at a line break too, unless the gold answer has one: a model that was trained on such rows may never have seen
    another end.

    Args:
        model: A causal language model in eval mode.
        tokenizer: Its tokenizer.
        chat_template: `auto` or `never`, as the rows were rendered.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chat_template: str) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.chat_template = chat_template
        self.pad_token_id = padding_token(tokenizer)
        self.positions = positions_in(model)
        self._turn_end = TurnEnds(tokenizer, chat_template)

    def is_chat(self, row: Row) -> bool:
        """Whether the row is asked in a chat template."""
        return self._turn_end.is_chat(row)

    def fits(self, prompt_ids: Sequence[int], answer_tokens: int = 1) -> bool:
        """Whether prompt and answer fit into the context."""
        return self.positions is None or len(prompt_ids) + answer_tokens <= self.positions

    def replies(
        self,
        questions: Sequence[Question],
        *,
        samples: int,
        temperature: float,
        first_sample: int = 0,
        greedy: bool = True,
        progress: Task | None = None,
    ) -> list[Reply]:
        """Ask.

        Args:
            questions: Each must fit the context; an answer that does not is cut.
            samples: Draws per question.
            temperature: Of the draws.
            first_sample: Number of the first draw.
            greedy: Whether the most likely answer is wanted.
            progress: Is advanced by one per question.

        Returns:
            Replies in the order of the questions.
        """
        groups: dict[frozenset[int], list[int]] = {}
        for index, question in enumerate(questions):
            groups.setdefault(self._stops(question.row), []).append(index)
        found: dict[int, Reply] = {}
        for stops, members in groups.items():
            longest = [self._longest(questions[i]) for i in members]
            decoding = Decoding(
                max_new_tokens=max(longest),
                stop_ids=stops,
                pad_token_id=self.pad_token_id,
                samples=samples,
                first_sample=first_sample,
                temperature=temperature,
                greedy=greedy,
            )
            answers = generate(
                self.model,
                [questions[i].prompt_ids for i in members],
                decoding,
                seeds=[questions[i].seed for i in members],
                longest=longest,
                progress=progress,
            )
            for index, answer in zip(members, answers, strict=True):
                row = questions[index].row
                said = "" if answer.greedy is None else self._text(row, answer.greedy)
                drawn = tuple(self._text(row, one) for one in answer.drawn)
                found[index] = Reply(said, drawn, sum(self._is_cut(row, one) for one in answer.drawn))
        return [found[index] for index in range(len(questions))]

    def _longest(self, question: Question) -> int:
        longest = question.answer_tokens + _MORE_TOKENS
        return longest if self.positions is None else min(longest, self.positions - len(question.prompt_ids))

    def _stops(self, row: Row) -> frozenset[int]:
        stops = stop_ids(self.model, self.tokenizer, self._turn_end(row))  # an end of several is found in the text
        return stops | self._line_breaks() if self._ends_at_break(row) else stops

    def _ends_at_break(self, row: Row) -> bool:
        return not self.is_chat(row) and "\n" not in row.completion.rstrip()

    def _line_breaks(self) -> frozenset[int]:
        """All tokens with a line break in them: there may be many, such as a full stop with one behind it."""
        if self.tokenizer not in _breaks:
            texts = self.tokenizer.batch_decode([[token] for token in range(len(self.tokenizer))])
            _breaks[self.tokenizer] = frozenset(token for token, text in enumerate(texts) if "\n" in text)
        return _breaks[self.tokenizer]

    def _is_cut(self, row: Row, said: Continuation) -> bool:
        end = self._turn_end(row)  # one of several tokens stops nothing, but is an end
        return said.stopped_by is None and not (end and end in self._decoded(list(said.ids)))

    def _decoded(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _text(self, row: Row, said: Continuation) -> str:
        ids = list(said.ids)
        at_break = self._ends_at_break(row)
        if at_break and said.stopped_by in self._line_breaks():
            ids.append(said.stopped_by)  # it may begin with the end of the answer
        text = self._decoded(ids)
        if end := self._turn_end(row):
            text = text.partition(end)[0]
        return (text.partition("\n")[0] if at_break else text).strip()

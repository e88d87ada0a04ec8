"""What ends an answer: training puts it behind the completion, and asking stops at it."""

from typing import TYPE_CHECKING

from whatstuck.datasets.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKER = "\ue0f7"  # a private-use character that no template contains


class TurnEnds:
    """The end of the answer to each row, found once per sequence of roles: rendering is slow.

    Args:
        tokenizer: Tokenizer of the model.
        chat_template: `auto` or `never`, as for `render`.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", chat_template: str) -> None:
        self._tokenizer = tokenizer
        self._chat_template = chat_template
        self._ends: dict[tuple[str, ...], str] = {}

    def is_chat(self, row: Row) -> bool:
        """Whether the row is shown in a chat template."""
        return self._chat_template != "never" and not row.plain and bool(self._tokenizer.chat_template)

    def __call__(self, row: Row) -> str:
        """What the template writes behind the answer, else the end-of-text token."""
        eos = str(self._tokenizer.eos_token or "")
        if not self.is_chat(row):
            return eos
        roles = tuple(message.role for message in row.messages)
        if roles not in self._ends:  # the end depends on no content
            messages = [{"role": message.role, "content": message.content} for message in row.messages]
            messages.append({"role": "assistant", "content": _MARKER})
            text = str(self._tokenizer.apply_chat_template(messages, tokenize=False))
            self._ends[roles] = text.rpartition(_MARKER)[2].strip() or eos
        return self._ends[roles]

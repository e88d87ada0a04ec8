"""The text that a model sees of a row: prompt, target, and where in the prompt the players may be.

Training and probing use this one function, so that what is probed is what was trained. Two traps live here. A
chat template may strip what it is given, put a system prompt before it or a thinking block after it, so nothing
is assumed: the row is rendered a second time with a marker in place of the text that we look for. And a space
between prompt and answer must be in the target, because most tokenizers glue it to the word behind it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

from jinja2 import TemplateError

from whatstuck.datasets.rows import Row
from whatstuck.errors import WhatStuckError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKER = "\ue0f7here\ue0f7"  # private-use characters: in no text, and no template strips or rewrites them


@dataclass(frozen=True, slots=True)
class RenderedRow:
    """A row as the model sees it.

    Attributes:
        prompt: Exact text before the answer, template and BOS in it: tokenize it with `add_special_tokens=False`.
        target_text: The answer that follows the prompt, with the space before it if there is one, without the
            end-of-turn token.
        content: Span `[start, end)` of `prompt` that players may come from: `Row.player_region` of the last user
            message.
    """

    prompt: str
    target_text: str
    content: tuple[int, int]


def render(row: Row, tokenizer: "PreTrainedTokenizerBase", *, chat_template: str = "auto") -> RenderedRow:
    r"""Render a row for a model.

    With a chat template, the prompt is what the template shows before the answer when it renders the whole
    conversation: the generation prompt and, where the template adds more before an answer (an empty thinking
    block), that too. The target is the completion as the template places it, stripped where it strips.

    Without one, the prompt is the contents of the messages joined by line breaks, behind the special tokens that
    the tokenizer puts before a text by default. A space between prompt and completion is added where there is no
    whitespace (nor Chinese or Japanese print), and belongs to the target.

    Args:
        row: The row.
        tokenizer: Tokenizer of the model.
        chat_template: `auto` uses the tokenizer's chat template where it has one and the row is not `plain`;
            `never` uses none.

    Raises:
        WhatStuckError: If the template refuses the messages, or rewrites the last user message so that it cannot
            be found in the prompt.
    """
    if chat_template not in {"auto", "never"}:
        raise WhatStuckError(f"unknown chat_template {chat_template!r}: use auto or never")
    if chat_template == "auto" and not row.plain and tokenizer.chat_template:
        return _render_chat(row, tokenizer)
    return _render_plain(row, tokenizer)


def target_ids(rendered: RenderedRow, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Tokens of the target where it stands, behind the prompt.

    SentencePiece tokenizers put a space before any text that they are given. Alone, the target " time" then
    begins with an extra space token that never follows the prompt, so the target is tokenized behind the prompt.
    Where the two melt together (the prompt alone ends in other tokens), the target is tokenized alone.
    """
    before: list[int] = tokenizer(rendered.prompt, add_special_tokens=False)["input_ids"]
    both: list[int] = tokenizer(rendered.prompt + rendered.target_text, add_special_tokens=False)["input_ids"]
    if both[: len(before)] == before:
        return both[len(before) :]
    alone: list[int] = tokenizer(rendered.target_text, add_special_tokens=False)["input_ids"]
    return alone


def _render_plain(row: Row, tokenizer: "PreTrainedTokenizerBase") -> RenderedRow:
    opening = _opening(tokenizer)
    if row.messages[0].content.startswith(opening):
        opening = ""
    before = [message.content + "\n" for message in row.messages[: row.user_index]]
    start = len(opening) + sum(map(len, before))
    prompt = opening + "\n".join(message.content for message in row.messages)
    target = row.completion
    if not target[0].isspace():
        if prompt.endswith(" "):
            prompt, target = prompt[:-1], " " + target
        elif not (prompt[-1].isspace() or _is_wide(prompt[-1]) or _is_wide(target[0])):
            target = " " + target
    first, last = row.player_region
    return RenderedRow(prompt, target, (start + first, start + last))


def _is_wide(character: str) -> bool:
    """Whether a character is of Chinese, Japanese or Korean print, which puts no space before an answer."""
    return east_asian_width(character) in "WF"


def _opening(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Special tokens that the tokenizer puts before a text by default, as text: mostly BOS or nothing."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    at = next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), 0)
    return "".join(tokenizer.convert_ids_to_tokens(full[:at]))


def _render_chat(row: Row, tokenizer: "PreTrainedTokenizerBase") -> RenderedRow:
    generation = _apply(row, tokenizer)
    before, placed = _place_completion(row, tokenizer)
    completion: str | None = row.completion
    if placed is None:  # the template rewrites such an answer: leave it as the user wrote it
        prompt, target, completion = generation, row.completion, None
    elif before.startswith(generation) and not before[len(generation) :].strip():
        prompt, target, completion = generation, before[len(generation) :] + placed, None
    else:
        prompt, target = before, placed
    start = _find_user(row, prompt, _apply(row, tokenizer, user=_MARKER, completion=completion))
    content = row.content
    lead = len(content) - len(content.lstrip())
    first, last = row.player_region
    return RenderedRow(prompt, target, (start + first - lead, start + last - lead))


def _place_completion(row: Row, tokenizer: "PreTrainedTokenizerBase") -> tuple[str, str | None]:
    """What the whole conversation shows before the completion, and the completion as it stands there."""
    marked = _apply(row, tokenizer, completion=_MARKER)
    whole = _apply(row, tokenizer, completion=row.completion)
    before, found, after = marked.partition(_MARKER)
    if not found or not whole.startswith(before) or not whole.endswith(after):
        return "", None
    placed = whole[len(before) : len(whole) - len(after)]
    return before, placed if placed.strip() == row.completion.strip() else None


def _find_user(row: Row, prompt: str, marked: str) -> int:
    """Where the last user message, stripped, begins in the prompt."""
    text = row.content.strip()
    start = marked.find(_MARKER)
    at = prompt.find(text, start)
    if start < 0 or at < 0 or prompt[start:at].strip():
        raise WhatStuckError(
            f"row {row.row_id}: the chat template rewrites the last user message, so its words cannot be found in "
            "the prompt: render without a chat template (chat_template never)"
        )
    return at


def _apply(
    row: Row, tokenizer: "PreTrainedTokenizerBase", *, user: str | None = None, completion: str | None = None
) -> str:
    """The template's text: the generation prompt, or with `completion` the whole conversation."""
    messages: list[dict[str, str]] = [{"role": message.role, "content": message.content} for message in row.messages]
    if user is not None:
        messages[row.user_index]["content"] = user
    if completion is not None:
        messages.append({"role": "assistant", "content": completion})
    try:
        text: Any = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=completion is None)
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise WhatStuckError(
            f"row {row.row_id}: the chat template refuses these messages ({reason}): change their roles, or render "
            "without a chat template (chat_template never)"
        ) from error
    return str(text)

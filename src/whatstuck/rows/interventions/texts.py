"""Texts for continued pretraining: documents of the user's, as rows of which nearly everything is learned."""

import json
import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from whatstuck.datasets import Message, Row
from whatstuck.datasets.rows import row_hash
from whatstuck.errors import WhatStuckError

logger = logging.getLogger(__name__)

_FIRST = re.compile(r"\s*(\S+)(?=\s+\S)|\s*(\S)(?=\S)")  # a word with another behind it; without spaces, a character


@dataclass(frozen=True, slots=True)
class Document:
    """One text.

    Attributes:
        row: The text as a row: its first word is the prompt, the rest the completion.
        supports: Ids of the rows that it supports; empty if it does not say.
    """

    row: Row
    supports: frozenset[str]


def read_documents(path: Path, tokenizer: PreTrainedTokenizerBase, *, longest: int | None) -> list[Document]:
    """Texts of a file.

    Args:
        path: JSONL with `text`, and perhaps `row_id` or `row_ids`; or a text file with an empty line between texts.
        tokenizer: Tokenizer of the model.
        longest: Tokens of a text; longer ones become several.

    Raises:
        WhatStuckError: If the file is not readable, or a text is no text.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WhatStuckError(f"{path} is no readable text: give JSONL or a text file in UTF-8") from error
    found: dict[str, Document] = {}
    for place, text, supports in _texts(path, content):
        for part in _parts(text, tokenizer, longest):
            row = text_row(part, place)
            known = found.get(row.row_id)
            found[row.row_id] = Document(row, supports | known.supports if known else supports)
    if not found:
        raise WhatStuckError(f"{path}: there is no text in it")
    return list(found.values())


def text_row(text: str, place: str = "the text") -> Row:
    """A text as a plain row.

    Raises:
        WhatStuckError: If it has less than two words, or two characters.
    """
    text = text.strip()
    match = _FIRST.match(text)
    if match is None:
        raise WhatStuckError(f"{place}: a text of one word teaches nothing: give sentences")
    messages = (Message("user", text[: match.end()]),)
    completion = text[match.end() :]
    name = f"text-{row_hash(messages, completion)}"
    return Row(name, messages, completion, source_index=0, split="train", plain=True)


def supporting(documents: Sequence[Document], targets: Collection[str]) -> list[Row]:
    """The texts that support at least one of the targets, or that do not say whom they support.

    Raises:
        WhatStuckError: If there is none.
    """
    wanted = set(targets)
    chosen = [document.row for document in documents if not document.supports or document.supports & wanted]
    if not chosen:
        raise WhatStuckError("none of the supporting texts names a row of this cause: check their row_ids")
    return chosen


def repeats(rows: Sequence[Row], targets: Sequence[Row]) -> int:
    """How many texts hold both a target's question and its answer word by word: those are training, not support."""
    texts = [row.content + row.completion for row in rows]
    pairs = [(row.content[row.content_start :].strip(), row.completion.strip()) for row in targets]
    return sum(any(question in text and answer in text for question, answer in pairs) for text in texts)


def _texts(path: Path, content: str) -> list[tuple[str, str, frozenset[str]]]:
    """Place, text and supported rows."""
    if path.suffix.lower() not in {".jsonl", ".ndjson"}:
        parts = [part for part in re.split(r"\n\s*\n", content) if part.strip()]
        return [(f"{path.name} text {number}", part, frozenset()) for number, part in enumerate(parts, start=1)]
    found = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path.name} line {number}"
        try:
            record: Any = json.loads(line)
        except ValueError as error:
            raise WhatStuckError(f"{place}: not valid JSON: {error}") from error
        if not isinstance(record, dict) or not isinstance(record.get("text"), str) or not record["text"].strip():
            raise WhatStuckError(f"{place}: give an object with a `text`")
        named = record.get("row_ids", record.get("row_id", []))
        named = [named] if isinstance(named, str) else named
        if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
            raise WhatStuckError(f"{place}: row_ids must be a list of row ids")
        found.append((place, record["text"], frozenset(named)))
    return found


def _parts(text: str, tokenizer: PreTrainedTokenizerBase, longest: int | None) -> list[str]:
    """A text in halves of halves, until each is short enough; cut at a space where there is one."""
    text = text.strip()
    tokens = len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 2  # and what is put around it
    if longest is None or tokens <= longest or len(text) < 4:  # noqa: PLR2004 - nothing left to cut
        return [text]
    middle = text.find(" ", len(text) // 2)
    middle = middle if 0 < middle < len(text) - 2 else len(text) // 2
    halves = (text[:middle], text[middle:])
    return [part for half in halves if len(half.strip()) > 1 for part in _parts(half, tokenizer, longest)]

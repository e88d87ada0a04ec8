"""Other wordings of a row: a treatment that only works word by word has taught nothing.

A user's own paraphrases are best. Without them the frame around the question is worded anew, which every language
model should survive; the question itself is left as it is, since nothing here can write a true paraphrase.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from whatstuck.datasets import Message, Row, render, target_ids
from whatstuck.errors import WhatStuckError
from whatstuck.rows.interventions.effects import ORIGINAL
from whatstuck.rows.material import TrainingRow

_FRAMES = (
    "Please answer this: {}",
    "{}\n\nGive only the answer.",
    "Here is something to answer.\n\n{}",
)
"""Tried in this order; the first two that change the text are taken."""
_WANTED = 2


def read_paraphrases(path: Path, rows: Sequence[Row]) -> dict[str, list[str]]:
    """A user's wordings by row id.

    Raises:
        WhatStuckError: If a line is bad, or names a row that is not there, or repeats its prompt.
    """
    by_id = {row.row_id: row for row in rows}
    found: dict[str, list[str]] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise WhatStuckError(f"{path} is no readable JSONL in UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path.name} line {number}"
        try:
            record = json.loads(line)
            name, prompt = str(record["row_id"]), str(record["prompt"])
        except (ValueError, KeyError, TypeError) as error:
            raise WhatStuckError(f"{place}: give row_id and prompt") from error
        if name not in by_id:
            raise WhatStuckError(f"{place}: no training row has the id {name!r}")
        if not prompt.strip() or _same(prompt, by_id[name].content):
            raise WhatStuckError(f"{place}: this is no other wording of the row: change it, or leave it out")
        found.setdefault(name, []).append(prompt)
    return found


def wordings(row: Row, given: Mapping[str, Sequence[str]]) -> list[tuple[str, Row]]:
    """A row as it is, and in other words: pairs of name and row.

    Args:
        row: The row.
        given: The user's wordings by row id; rows without one get two new frames.
    """
    prompts = list(given.get(row.row_id, ())) or _framed(row)
    other = [(f"paraphrase {number}", _worded(row, prompt)) for number, prompt in enumerate(prompts, start=1)]
    return [(ORIGINAL, row), *other]


def as_asked(row: Row, tokenizer: PreTrainedTokenizerBase, chat_template: str) -> TrainingRow:
    """A row as the model is asked."""
    rendered = render(row, tokenizer, chat_template=chat_template)
    prompt = tokenizer(rendered.prompt, add_special_tokens=False)["input_ids"]
    return TrainingRow(row, rendered, tuple(prompt), tuple(target_ids(rendered, tokenizer)), None)


def _framed(row: Row) -> list[str]:
    """The instruction behind the question where there is one, and new frames."""
    instruction, question = row.content[: row.content_start].strip(), row.content[row.content_start :].strip()
    candidates = [f"{question}\n\n{instruction}"] if instruction else []
    candidates += [frame.format(row.content.strip()) for frame in _FRAMES]
    return [prompt for prompt in dict.fromkeys(candidates) if not _same(prompt, row.content)][:_WANTED]


def _worded(row: Row, prompt: str) -> Row:
    messages = list(row.messages)
    messages[row.user_index] = Message("user", prompt)
    return replace(row, messages=tuple(messages), players=None, content_start=0)


def _same(first: str, second: str) -> bool:
    return " ".join(first.split()) == " ".join(second.split())

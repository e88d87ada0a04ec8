"""What a record of a data file means: which shape it has, and its messages and completion.

The shapes are those that people already train on (TRL, LLaMA-Factory, axolotl, plain classification tables).
A record may hold more fields than its shape needs; the first shape in `SHAPES` whose fields are all there wins.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from whatstuck.datasets.rows import Message
from whatstuck.errors import WhatStuckError

Record = Mapping[str, Any]

_ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "observation": "tool",
}

# Some data sets spell the end-of-text token out at the end of each completion. It is the trainer's job to add
# the right one for the model, so it is no part of the answer.
_END_MARKERS = re.compile(r"(?:<\|(?:endoftext|end_of_text|eot_id|im_end)\|>|<end_of_turn>|</s>|\s)+\Z")


class Parsed(NamedTuple):
    """What a record says, before ids and instructions."""

    messages: tuple[Message, ...]
    completion: str
    plain: bool = False


class Shape(NamedTuple):
    """A known shape: its name, the fields it needs (one of each group), and how to read it."""

    name: str
    needs: tuple[tuple[str, ...], ...]
    parse: Callable[[Record, Sequence[str] | None], Parsed]


def find_shape(record: Record) -> Shape:
    """The shape of a record.

    Raises:
        WhatStuckError: If it has none; names the shapes there are and the fields found.
    """
    for shape in SHAPES:
        if all(any(key in record for key in group) for group in shape.needs):
            return shape
    found = ", ".join(map(str, record)) or "none"
    shapes = "; ".join(shape.name for shape in SHAPES)
    raise WhatStuckError(f"no known shape, fields found: {found}; known shapes: {shapes}")


def parse_record(record: Record, shape: Shape, labels: Sequence[str] | None) -> Parsed:
    """Messages and completion of a record.

    Args:
        record: Fields of one row, without those that are null.
        shape: From `find_shape`.
        labels: Names that label ids stand for; None takes labels as they are.

    Raises:
        WhatStuckError: If a field has the wrong type, a role is unknown or a label id has no name.
    """
    parsed = shape.parse(record, labels)
    messages = list(parsed.messages)
    if "system" in record and record["system"] != "" and messages[0].role != "system":
        messages.insert(0, Message("system", _text(record["system"], "system")))
    return Parsed(tuple(messages), _without_end_marker(parsed.completion), parsed.plain)


def _text(value: object, name: str) -> str:
    """A string that can be encoded; parts of a multi-part message are joined when all are text."""
    if isinstance(value, list) and value and all(isinstance(p, dict) and p.get("type") == "text" for p in value):
        value = "".join(_text(part.get("text"), name) for part in value)
    if not isinstance(value, str):
        raise WhatStuckError(f"{name} must be text, found {type(value).__name__}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise WhatStuckError(f"{name} holds half of a surrogate pair (broken Unicode): write the character itself")
    return value


def _without_end_marker(completion: str) -> str:
    match = _END_MARKERS.search(completion)
    return completion[: match.start()] if match and match[0].strip() else completion


def _turns(value: object, name: str) -> list[Message]:
    """Messages in either spelling: role and content, or from and value."""
    if not isinstance(value, list):
        raise WhatStuckError(f"{name} must be a list of messages, found {type(value).__name__}")
    turns = []
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, dict):
            raise WhatStuckError(f"message {number} of {name} must be an object, found {type(turn).__name__}")
        role = turn.get("role") or turn.get("from")
        if not isinstance(role, str) or role.lower() not in _ROLES:
            raise WhatStuckError(f"message {number} of {name} has the unknown role {role!r}: use {', '.join(_ROLES)}")
        content = turn.get("content")
        content = turn.get("value") if content is None else content
        turns.append(Message(_ROLES[role.lower()], _text(content, f"message {number} of {name}")))
    return turns


def _conversation(turns: Sequence[Message]) -> Parsed:
    """The last assistant turn is the completion; what comes after it (an unanswered question) is left out."""
    answers = [i for i, turn in enumerate(turns) if turn.role == "assistant"]
    if not answers:
        raise WhatStuckError("no assistant message: the last one of a conversation is the completion")
    return Parsed(tuple(turns[: answers[-1]]), turns[answers[-1]].content)


def _messages(record: Record, _: Sequence[str] | None) -> Parsed:
    return _conversation(_turns(record["messages"], "messages"))


def _sharegpt(record: Record, _: Sequence[str] | None) -> Parsed:
    return _conversation(_turns(record["conversations"], "conversations"))


def _prompt_completion(record: Record, _: Sequence[str] | None) -> Parsed:
    prompt, completion = record["prompt"], record["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        return _pair(record, "prompt", "completion")
    before = _turns(prompt, "prompt") if isinstance(prompt, list) else [Message("user", _text(prompt, "prompt"))]
    if isinstance(completion, list):
        return _conversation([*before, *_turns(completion, "completion")])
    return Parsed(tuple(before), _text(completion, "completion"))


def _alpaca(record: Record, _: Sequence[str] | None) -> Parsed:
    """Instruction and input joined by a line break, as LLaMA-Factory shows them to a model."""
    parts = [_text(record["instruction"], "instruction")]
    parts += [_text(record[key], key) for key in ("input", "context") if key in record]
    answer = "output" if "output" in record else "response"
    history = [
        Message(role, _text(text, "history"))
        for pair in record.get("history") or []
        for role, text in zip(("user", "assistant"), pair, strict=False)
    ]
    prompt = Message("user", "\n".join(part for part in parts if part.strip()))
    return Parsed((*history, prompt), _text(record[answer], answer))


def _question_answer(record: Record, _: Sequence[str] | None) -> Parsed:
    return _pair(record, "question", "answer")


def _pair(record: Record, prompt: str, completion: str) -> Parsed:
    message = Message("user", _text(record[prompt], prompt))
    return Parsed((message,), _text(record[completion], completion))


def _text_label(record: Record, names: Sequence[str] | None) -> Parsed:
    key = "labels" if "labels" in record else "label"
    label = record[key]
    ids = label if isinstance(label, list) else [label]
    if isinstance(label, str) and names is not None:
        ids = label.split(",")
    parts = [_label_name(item, names) for item in ids]
    return Parsed((Message("user", _text(record["text"], "text")),), ", ".join(parts))


def _label_name(label: object, names: Sequence[str] | None) -> str:
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise WhatStuckError(f"a label must be text or a whole number, found {type(label).__name__}")
    if names is None:
        return _text(str(label), "label")
    if not re.fullmatch(r"\s*[0-9]+\s*", str(label)) or int(label) >= len(names):
        raise WhatStuckError(f"label {label!r} is none of the ids 0 to {len(names) - 1} that the labels name")
    return names[int(label)]


def _plain_text(record: Record, _: Sequence[str] | None) -> Parsed:
    """Rendered text without a marked answer: its last word, with the space before it, is the completion."""
    text = _without_end_marker(_text(record["text"], "text")).rstrip()
    match = re.search(r" ?\S+\Z", text)
    prompt = text[: match.start()] if match else ""
    if match is None or not prompt.strip():
        raise WhatStuckError("text needs at least two words: the last one is taken as the completion")
    return Parsed((Message("user", prompt),), match[0], plain=True)


SHAPES = (
    Shape("messages", (("messages",),), _messages),
    Shape("conversations (from, value)", (("conversations",),), _sharegpt),
    Shape("prompt, completion", (("prompt",), ("completion",)), _prompt_completion),
    Shape("instruction, input|context, output|response", (("instruction",), ("output", "response")), _alpaca),
    Shape("question, answer", (("question",), ("answer",)), _question_answer),
    Shape("text, labels|label", (("text",), ("labels", "label")), _text_label),
    Shape("text", (("text",),), _plain_text),
)
"""Every shape that is read without configuration, in order of precedence."""

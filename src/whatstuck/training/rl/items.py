"""What is asked in reinforcement learning: items of the training side of a task, as tokens.

The prompt of a step ends inside of the reply: behind the prefill, and with AdaBack behind what is revealed of a right
reply. Tokens are those that supervised training has for the same row, not those of a text cut in the middle.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from whatstuck.datasets import Message, Row, render, target_ids
from whatstuck.errors import WhatStuckError
from whatstuck.generalization.cells import CHECK_FAILED
from whatstuck.generalization.drawing import draw_items
from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.replying import question_of
from whatstuck.generalization.task import NO_ANSWER, Score, Task, Variant

_TRIES = 100  # random mappings for one content

AnyTask = Task[Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One item, ready to be asked.

    Attributes:
        item: The item.
        mapping: What its instruction says.
        prompt: Its tokens up to the reply.
        prefill: Tokens that the reply begins with.
        rest: Tokens of a right reply behind the prefill; empty where the task has no demonstrator.
    """

    item: Any
    mapping: InstructionMapping
    prompt: tuple[int, ...]
    prefill: tuple[int, ...]
    rest: tuple[int, ...]


def ask_items(
    task: AnyTask,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    *,
    mapping: str,
    thought: bool,
    chat_template: str,
    seed: int,
) -> list[Asked]:
    """Draw items and write them as tokens.

    Args:
        task: The task.
        tokenizer: Of the model.
        count: How many; for the same seed the same contents, and what is chosen beside the mapping (a target), where
            it can be, whatever the mapping.
        mapping: `frozen` or `random`.
        thought: Whether right replies have a thought.
        chat_template: `auto` or `never`.
        seed: Of the draw.

    Raises:
        WhatStuckError: If the task has no random mappings, or none under which a content can be solved.
    """
    variant = Variant("training", "training", task.training, task.training)
    drawn = draw_items(task.source, count, split="train", variant=variant, seed=seed)
    pairs = [
        _posed(task, content, f"{seed} {index}")
        if mapping == "random"
        else _as_trained(task, content, f"{seed} {index}")
        for index, content in enumerate(drawn.contents)
    ]
    asked = []
    prompt = task.prompts["training"]
    for item, meaning in pairs:
        text = prompt.render(item, meaning)
        question = question_of(text, prompt.prefill, tokenizer, chat_template)
        opening = len(question.ids) - question.opened
        before, prefill = question.ids[:opening], question.ids[opening:]
        rest: list[int] = []
        if task.demonstrator is not None:
            reply = task.demonstrator.reply(item, meaning, thought=thought)
            if not reply.startswith(prompt.prefill):
                raise WhatStuckError(
                    f"right replies of {task.name} do not begin with {prompt.prefill!r}, as its prompt has them begin: "
                    f"make the task with thought={thought}"
                )
            rest = _behind(prefill, prompt.prefill, _whole(text, reply, tokenizer, chat_template), reply, tokenizer)
        asked.append(Asked(item, meaning, before, prefill, tuple(rest)))
    return asked


def score_reply(task: AnyTask, asked: Asked, reply: str) -> Score:
    """What a reply is worth; a check that raises must not end a training, so it is an outcome."""
    try:
        answer = task.parser.parse(reply)
        return NO_ANSWER if answer is None else task.scorer.score(asked.item, asked.mapping, answer)
    except Exception:  # noqa: BLE001 - a task may be of anybody's making
        return Score(valid=False, success=False, outcome=CHECK_FAILED)


def longest_prompt(asked: Sequence[Asked]) -> int:
    """Tokens of the longest prompt, prefill included."""
    return max(len(one.prompt) + len(one.prefill) for one in asked)


def _as_trained(task: AnyTask, content: Any, seed: str) -> tuple[Any, InstructionMapping]:
    """A content under the training's mapping, under which it was drawn."""
    return task.source.pose(content, task.training, task.training, random.Random(f"{seed} pose")), task.training


def _posed(task: AnyTask, content: Any, seed: str) -> tuple[Any, InstructionMapping]:
    """A content under the first random mapping that it can be solved under."""
    if task.random_mapping is None:
        raise WhatStuckError(f"the task {task.name} has no random mappings: use mapping=frozen")
    rng = random.Random(f"{seed} mapping")
    for _ in range(_TRIES):
        meaning = task.random_mapping(rng)
        item = task.source.pose(content, meaning, meaning, random.Random(f"{seed} pose"))
        if item is not None:
            return item, meaning
    raise WhatStuckError(f"the task {task.name} has a content that no random mapping can solve: use mapping=frozen")


def _whole(text: str, reply: str, tokenizer: PreTrainedTokenizerBase, chat_template: str) -> list[int]:
    """Tokens of a reply as supervised training has them."""
    row = Row("rl", (Message("user", text),), reply, 0, "train")
    return target_ids(render(row, tokenizer, chat_template=chat_template), tokenizer)


def _behind(
    prefill: tuple[int, ...], written: str, whole: list[int], reply: str, tokenizer: PreTrainedTokenizerBase
) -> list[int]:
    """The tokens of a reply behind its prefill."""
    if tuple(whole[: len(prefill)]) == prefill:
        return whole[len(prefill) :]
    # the prefill melts into what follows: then they are those of the rest alone
    alone: list[int] = tokenizer(reply.removeprefix(written), add_special_tokens=False)["input_ids"]
    return alone

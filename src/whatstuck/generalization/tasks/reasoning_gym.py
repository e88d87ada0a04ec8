"""Tasks of the package reasoning-gym, with difficulty as a parameter; theirs have no instruction to map.

The package says what is right. It does not say what is valid, so every reply with an answer is.
"""

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from whatstuck.errors import WhatStuckError, require
from whatstuck.generalization.mapping import NO_MAPPING, InstructionMapping
from whatstuck.generalization.registry import task
from whatstuck.generalization.task import Score, Task, Variant
from whatstuck.generalization.tasks._answers import AnswerParser

_TRIES = 20  # some generators fail on some seeds


@dataclass(frozen=True, slots=True)
class Question:
    """An entry of a data set, with the data set that judges answers to it."""

    entry: Mapping[str, Any]
    judge: Any


class GymSource:
    """Questions of one data set; the shift is what its configuration takes.

    Args:
        dataset: Its name in reasoning-gym.
        config: Difficulty of the training.

    Raises:
        WhatStuckError: If there is no such data set.
        MissingExtraError: If reasoning-gym is not installed.
    """

    def __init__(self, dataset: str, config: Mapping[str, Any]) -> None:
        self._factory: Any = require("reasoning_gym.factory", "tasks")
        if dataset not in self._factory.DATASETS:
            raise WhatStuckError(f"reasoning-gym has no data set {dataset!r}: see reasoning_gym.factory.DATASETS")
        self._dataset = dataset
        self._config = config

    def draw(self, rng: random.Random, shift: Mapping[str, Any]) -> Question:
        """One question."""
        failed: Exception | None = None
        for _ in range(_TRIES):
            seed = rng.getrandbits(31)
            try:
                judge = self._factory.create_dataset(self._dataset, **{**self._config, **shift}, size=1, seed=seed)
            except (TypeError, ValueError, AssertionError) as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise WhatStuckError(f"reasoning-gym's {self._dataset} refuses its settings: {reason}") from error
            try:
                return Question(judge[0], judge)
            except Exception as error:  # noqa: BLE001 - a generator of theirs may raise anything
                failed = error
        raise WhatStuckError(f"reasoning-gym's {self._dataset} failed on {_TRIES} seeds, last with {failed!r}")

    def key(self, content: Question) -> str:
        """Hash of the question's text."""
        return hashlib.blake2b(str(content.entry["question"]).encode(), digest_size=8).hexdigest()

    def pose(
        self, content: Question, shown: InstructionMapping, scored: InstructionMapping, rng: random.Random
    ) -> Question:
        """The question itself."""
        del shown, scored, rng
        return content


@dataclass(frozen=True, slots=True)
class GymPrompt:
    """The question and the form of a reply."""

    prefill: str = "<answer>"

    def render(self, item: Question, shown: InstructionMapping) -> str:
        """The user's message."""
        del shown
        return f"{item.entry['question']}\nReply in the form <answer> your answer </answer>."


class GymScorer:
    """Asks the data set's own judge; a partial score is not a success."""

    def score(self, item: Question, scored: InstructionMapping, answer: str) -> Score:
        """Score an answer: `right` or `wrong`."""
        del scored
        right = float(item.judge.score_answer(answer, item.entry)) >= 1
        return Score(valid=True, success=right, outcome="right" if right else "wrong")


class GymDemonstrator:
    """Writes the answer that came with the question."""

    def reply(self, item: Question, shown: InstructionMapping, *, thought: bool) -> str:
        """The whole reply.

        Raises:
            WhatStuckError: If a thought is asked for, or the data set gives no answer.
        """
        del shown
        if thought:
            raise WhatStuckError("tasks of reasoning-gym come without a solver's thought: train on answers alone")
        answer = item.entry["answer"]
        if answer is None:
            raise WhatStuckError("this data set of reasoning-gym gives no answers: it can be asked, not trained on")
        return f"<answer> {answer} </answer>"


@task("reasoning-gym")
def reasoning_gym(
    *,
    dataset: str,
    config: Mapping[str, Any] | None = None,
    harder: Mapping[str, Any] | None = None,
    max_new_tokens: int = 64,
) -> Task[Question, Question, str]:
    """Make the task.

    Args:
        dataset: Name of a data set of reasoning-gym, such as `family_relationships`.
        config: Its settings in the training; its own defaults where nothing is said.
        harder: Settings of harder cases, such as `{"min_family_size": 9, "max_family_size": 12}`; or several, by the
            name of their variant: `{"Nine": {...}, "Twelve": {...}}`.
        max_new_tokens: Longest reply.
    """
    named = dict(harder or {})
    if named and not all(isinstance(settings, Mapping) for settings in named.values()):
        named = {"Harder": named}
    variants = [Variant("ID", "training", NO_MAPPING, NO_MAPPING)]
    variants += [Variant(name, "harder", NO_MAPPING, NO_MAPPING, dict(shift)) for name, shift in named.items()]
    return Task(
        name=f"reasoning-gym {dataset}",
        source=GymSource(dataset, dict(config or {})),
        prompts={"training": GymPrompt()},
        parser=AnswerParser(),
        scorer=GymScorer(),
        demonstrator=GymDemonstrator(),
        variants=tuple(variants),
        training=NO_MAPPING,
        max_new_tokens=max_new_tokens,
    )

"""Tasks of the package reasoning-gym, with difficulty as a parameter; theirs have no instruction to map.

The package says what is right. It does not say what is valid, so every reply with an answer is. Its judges run in a
process of their own, since some of them run a reply as code (`_gym_judging`).
"""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whatstuck.errors import WhatStuckError, require
from whatstuck.generalization.mapping import NO_MAPPING, InstructionMapping
from whatstuck.generalization.own.checking import Guard
from whatstuck.generalization.own.limits import LONGEST_THOUGHT, reply_limit
from whatstuck.generalization.own.names import refuse_bad_name
from whatstuck.generalization.registry import task
from whatstuck.generalization.task import Score, Task, Variant
from whatstuck.generalization.tasks._answers import AnswerParser
from whatstuck.generalization.tasks._gym_judging import is_no_answer, make_judge, sent

_TRIES = 20  # some generators fail on some seeds
_LOOKED_AT = 4  # questions of each difficulty whose answers say how long replies may be
_SHORTEST = 64  # tokens
_TIME_LIMIT = 3.0  # seconds; the slowest data set takes 0.6 to be made again, and judges take a few milliseconds


@dataclass(frozen=True, slots=True)
class Question:
    """An entry of a data set, with the settings that make the data set which judges answers to it."""

    entry: Mapping[str, Any]
    dataset: str
    settings: Mapping[str, Any]


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
            settings = {**self._config, **shift, "size": 1, "seed": seed}
            try:
                made = self._factory.create_dataset(self._dataset, **settings)
            except (TypeError, ValueError, AssertionError) as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise WhatStuckError(f"reasoning-gym's {self._dataset} refuses its settings: {reason}") from error
            try:
                return Question(made[0], self._dataset, settings)
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
    """Asks the data set's own judge; a partial score is not a success.

    Args:
        time_limit: Seconds for one answer.
    """

    def __init__(self, time_limit: float = _TIME_LIMIT) -> None:
        self._time_limit = time_limit
        self.guard: Guard | None = None

    def score(self, item: Question, scored: InstructionMapping, answer: str) -> Score:
        """Score an answer: `right` or `wrong`; `check_failed` or `check_timed_out` where the judge did not say."""
        del scored
        if is_no_answer(answer, item.entry["answer"]):
            return Score(valid=True, success=False, outcome="wrong")
        if self.guard is None:  # the process takes seconds to start, and a training needs none
            self.guard = Guard("maker", f"{make_judge.__module__}:{make_judge.__name__}", self._time_limit, Path.cwd())
        said = self.guard(sent(item.dataset, item.settings, item.entry), answer)
        if said.failure is not None:
            return Score(valid=False, success=False, outcome=said.failure)
        right = said.found is True
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
    max_new_tokens: int | None = None,
) -> Task[Question, Question, str]:
    """Make the task.

    Args:
        dataset: Name of a data set of reasoning-gym, such as `family_relationships`.
        config: Its settings in the training; its own defaults where nothing is said.
        harder: Settings of harder cases, such as `{"min_family_size": 9, "max_family_size": 12}`; or several, by the
            name of their variant: `{"Nine": {...}, "Twelve": {...}}`.
        max_new_tokens: Longest reply; by default what the answers to a few questions of each difficulty ask for.

    Raises:
        WhatStuckError: If a setting is wrong.
    """
    for name, given in (("config", config), ("harder", harder)):
        if given is not None and not isinstance(given, Mapping):
            raise WhatStuckError(f"{name} must name settings of {dataset}, such as {{min_terms: 4}}, got {given!r}")
    if max_new_tokens is not None and (type(max_new_tokens) is not int or max_new_tokens < 1):
        raise WhatStuckError(f"max_new_tokens must be a whole number from 1 on, got {max_new_tokens!r}")
    named: dict[str, Any] = {str(name): settings for name, settings in (harder or {}).items()}
    if named and not all(isinstance(settings, Mapping) for settings in named.values()):
        named = {"Harder": named}
    for name in named:
        refuse_bad_name(name)
    variants = [Variant("ID", "training", NO_MAPPING, NO_MAPPING)]
    variants += [Variant(name, "harder", NO_MAPPING, NO_MAPPING, dict(shift)) for name, shift in named.items()]
    source = GymSource(dataset, dict(config or {}))
    limit, notes = reply_limit(_answers(source, variants), max_new_tokens, least=_SHORTEST)
    return Task(
        name=f"reasoning-gym {dataset}",
        source=source,
        prompts={"training": GymPrompt()},
        parser=AnswerParser(),
        scorer=GymScorer(),
        demonstrator=GymDemonstrator(),
        variants=tuple(variants),
        training=NO_MAPPING,
        max_new_tokens=limit,
        longest_thought=max(LONGEST_THOUGHT, limit),
        notes=notes,
    )


def _answers(source: GymSource, variants: Sequence[Variant]) -> Iterator[str]:
    """Right replies to a few questions of each difficulty."""
    rng = random.Random("answers")
    for variant in variants:
        for _ in range(_LOOKED_AT):
            yield f" {source.draw(rng, variant.shift).entry['answer']} </answer>"

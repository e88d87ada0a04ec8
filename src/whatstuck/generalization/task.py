"""A verifiable task: where items come from, how they are asked, how a reply is read, and when it is right.

Mapping, prompt, parser and scorer are four separate objects, so that a test can show one mapping and score by another:
that is *Fake*, which tells a model that cannot do the task from one that ignores the instruction.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

from whatstuck.generalization.mapping import InstructionMapping

Content = TypeVar("Content")
Item = TypeVar("Item")
Answer = TypeVar("Answer")
Content_co = TypeVar("Content_co", covariant=True)
Item_co = TypeVar("Item_co", covariant=True)
Item_contra = TypeVar("Item_contra", contravariant=True)
Answer_co = TypeVar("Answer_co", covariant=True)
Answer_contra = TypeVar("Answer_contra", contravariant=True)

Kind = Literal["training", "instruction", "wording", "harder", "fake"]
"""What a variant asks about: the training wording itself, another mapping, another wording of the same, harder
cases, or what the instruction no longer says."""

Split = Literal["train", "test"]


class Source(Protocol[Content, Item_co]):
    """Where items come from. Content is what splits go by; posing it under mappings makes an item of it."""

    def draw(self, rng: random.Random, shift: Mapping[str, Any]) -> Content:
        """One random content, such as a room or a hand; `shift` changes the difficulty."""

    def key(self, content: Content) -> str:
        """The same for contents that must not stand on both sides of a split."""

    def pose(
        self, content: Content, shown: InstructionMapping, scored: InstructionMapping, rng: random.Random
    ) -> Item_co | None:
        """An item that can be solved under both mappings; None where the content allows none.

        Where they differ, no answer to the item is right under both.
        """


@runtime_checkable
class Listed(Protocol[Content_co]):
    """A source that has so many contents and no more, such as a file of rows; it says itself which are for tests."""

    def contents(self, split: Split, shift: Mapping[str, Any]) -> Sequence[Content_co]:
        """All contents of one side."""


class Prompt(Protocol[Item_contra]):
    """How an item is asked. Nothing but the part about the mapping depends on the mapping."""

    @property
    def prefill(self) -> str:
        """How the assistant's reply begins, before the model writes; may be empty."""

    def render(self, item: Item_contra, shown: InstructionMapping) -> str:
        """The user's message."""


class Parser(Protocol[Answer_co]):
    """How a reply is read. Knows neither item nor mapping."""

    def parse(self, reply: str) -> Answer_co | None:
        """The answer in a reply (prefill included); None where there is none."""


@dataclass(frozen=True, slots=True)
class Score:
    """What an answer is worth.

    Attributes:
        valid: It obeys the rules of the scored mapping, right or wrong.
        success: It is right; then it is valid, too.
        outcome: One word, such as `right`, `wrong_value`, `no_answer`.
    """

    valid: bool
    success: bool
    outcome: str


NO_ANSWER = Score(valid=False, success=False, outcome="no_answer")
LONGER = "longer"
"""Outcome of a reply that begins with an answer and goes on, where the whole reply should be one."""


class Scorer(Protocol[Item_contra, Answer_contra]):
    """When an answer is right."""

    def score(self, item: Item_contra, scored: InstructionMapping, answer: Answer_contra) -> Score:
        """Score it by a mapping, which need not be the one that was shown."""


class Demonstrator(Protocol[Item_contra]):
    """Writes what a model is trained to reply: by a solver, not by another model."""

    def reply(self, item: Item_contra, shown: InstructionMapping, *, thought: bool) -> str:
        """The whole reply, prefill included; with a thought, the steps of the solver come first."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One column of the result: the same task asked in one way.

    Attributes:
        name: What it is called, such as `All-5`.
        kind: What it asks about.
        shown: The mapping in the prompt.
        scored: The mapping that decides; differs from `shown` in `fake` alone.
        shift: Difficulty settings of the source; empty for that of the training.
        wording: Name of the prompt's wording.
    """

    name: str
    kind: Kind
    shown: InstructionMapping
    scored: InstructionMapping
    shift: Mapping[str, Any] = field(default_factory=dict)
    wording: str = "training"


@dataclass(frozen=True)
class Task(Generic[Content, Item, Answer]):
    """A task, whole.

    Attributes:
        name: Its name on the command line.
        source: Where items come from.
        prompts: How they are asked, by wording; `training` is the one that is trained.
        parser: How replies are read.
        scorer: When they are right.
        demonstrator: What is trained; None where no solver writes it.
        variants: How it is asked in a test; the first one is of kind `training`.
        training: The mapping of the frozen arm.
        mappings: The fixed ones of the paper's diverse arm; empty if it has none.
        random_mapping: Draws a mapping for one example, never one of a held-out `instruction` variant; None where
            nothing can be mapped.
        max_new_tokens: Longest reply that is only an answer.
        longest_thought: Longest reply with a thought.
        step: For tasks of several turns: `(item, scored, answer) -> the next item, or None when it is solved`; a
            reply that is not valid changes nothing.
        turns: Most turns of an episode.
        identity: Hash of the files that it was made of; empty where there are none.
        notes: What a reader of its results should know, such as rows that were left out; a sentence each.
    """

    name: str
    source: Source[Content, Item]
    prompts: Mapping[str, Prompt[Item]]
    parser: Parser[Answer]
    scorer: Scorer[Item, Answer]
    demonstrator: Demonstrator[Item] | None
    variants: tuple[Variant, ...]
    training: InstructionMapping
    mappings: tuple[InstructionMapping, ...] = ()
    random_mapping: Callable[[random.Random], InstructionMapping] | None = None
    max_new_tokens: int = 32
    longest_thought: int = 256
    step: Callable[[Item, InstructionMapping, Answer], Item | None] | None = None
    turns: int = 30
    identity: str = ""
    notes: tuple[str, ...] = ()

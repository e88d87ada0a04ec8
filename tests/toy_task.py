"""Two small tasks: one that the tiny model of conftest.py was trained on, and one of several turns.

`feelings` asks what `tiny_run` was trained on (helpers.py). The training's prompt names no words; another mapping is
shown as a sentence before it. So a model that learned the rule succeeds in the training's words.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import helpers
from whatstuck.generalization.mapping import NO_MAPPING, InstructionMapping
from whatstuck.generalization.registry import task
from whatstuck.generalization.task import Score, Task, Variant

SAME = InstructionMapping("same", tuple((feeling, feeling) for feeling in helpers.FEELINGS))
OTHER = InstructionMapping("other", tuple(zip(helpers.FEELINGS, ("sad", "angry", "worried", "glad"), strict=True)))


class Scenes:
    def draw(self, rng: random.Random, shift: Mapping[str, Any]) -> helpers.Scene:
        del shift
        return helpers.scenes(1, seed=rng.randrange(10**9))[0]

    def key(self, content: helpers.Scene) -> str:
        return content.prompt

    def pose(
        self, content: helpers.Scene, shown: InstructionMapping, scored: InstructionMapping, rng: random.Random
    ) -> helpers.Scene | None:
        del rng, shown, scored
        return None if content.rule == "sad" else content  # some contents cannot be posed


@dataclass(frozen=True)
class ScenePrompt:
    prefill: str = ""
    padding: str = ""

    def render(self, item: helpers.Scene, shown: InstructionMapping) -> str:
        words = "" if shown == SAME else " ".join(f"{name} is {word}." for name, word in shown.pairs) + " "
        return words + self.padding + item.prompt


class Word:
    def parse(self, reply: str) -> str | None:
        return reply.strip() or None


class FeelingScorer:
    def score(self, item: helpers.Scene, scored: InstructionMapping, answer: str) -> Score:
        if answer not in scored.meanings:
            return Score(valid=False, success=False, outcome="other_word")
        right = scored[item.rule] == answer
        return Score(valid=True, success=right, outcome="right" if right else "wrong")


@task("feelings")
def feelings(*, padding: int = 0, broken: bool = False) -> Task[helpers.Scene, helpers.Scene, str]:
    return Task(
        name="feelings",
        source=Scenes(),
        prompts={"training": ScenePrompt(), "long": ScenePrompt(padding="Mara found a golden ring. " * padding)},
        parser=Word(),
        scorer=BrokenScorer() if broken else FeelingScorer(),
        demonstrator=None,
        variants=(
            Variant("ID", "training", SAME, SAME),
            Variant("Other", "instruction", OTHER, OTHER),
            Variant("Long", "harder", SAME, SAME, wording="long"),
            Variant("Fake", "fake", OTHER, SAME),
        ),
        training=SAME,
        max_new_tokens=4,
        longest_thought=6,
    )


class BrokenScorer(FeelingScorer):
    """Raises on some replies, and is too slow on others."""

    def score(self, item: helpers.Scene, scored: InstructionMapping, answer: str) -> Score:
        if item.rule == "angry":
            raise ZeroDivisionError(answer)
        if item.rule == "worried":
            raise TimeoutError
        return super().score(item, scored, answer)


# --- turns


class Numbers:
    """Counting down to 0 by `down`; `stay` is a turn that changes nothing."""

    def draw(self, rng: random.Random, shift: Mapping[str, Any]) -> int:
        return rng.randint(1, shift.get("largest", 200))

    def key(self, content: int) -> str:
        return str(content)

    def pose(self, content: int, shown: InstructionMapping, scored: InstructionMapping, rng: random.Random) -> int:
        del shown, scored, rng
        return content


class NumberPrompt:
    prefill = ""

    def render(self, item: int, shown: InstructionMapping) -> str:
        del shown
        return f"count {item}"


class MoveScorer:
    def score(self, item: int, scored: InstructionMapping, answer: str) -> Score:
        del item, scored
        if answer not in {"down", "stay", "break"}:
            return Score(valid=False, success=False, outcome="other_word")
        return Score(valid=True, success=answer == "down", outcome="right" if answer == "down" else "wrong")


def count(item: int, scored: InstructionMapping, answer: str) -> int | None:
    del scored
    if answer == "break":
        raise RuntimeError(item)
    after = item - (answer == "down")
    return after or None


@task("counting")
def counting() -> Task[int, int, str]:
    return Task(
        name="counting",
        source=Numbers(),
        prompts={"training": NumberPrompt()},
        parser=Word(),
        scorer=MoveScorer(),
        demonstrator=None,
        variants=(Variant("ID", "training", NO_MAPPING, NO_MAPPING, {"largest": 9}),),
        training=NO_MAPPING,
        max_new_tokens=3,
        step=count,
        turns=5,
    )

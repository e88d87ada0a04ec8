"""The cards of tier 0: targets, replies, thoughts, and what training may not show."""

import itertools
import random

import pytest

from whatstuck.generalization.arms import make_arm
from whatstuck.generalization.drawing import draw_items, side
from whatstuck.generalization.tasks.micro_points import Hand, micro_points, random_faces, sums, values_of

TASK = micro_points()


@pytest.mark.parametrize("variant", TASK.variants, ids=lambda variant: variant.name)
def test_every_item_can_be_solved_and_the_solution_is_right(variant: object) -> None:
    drawn = draw_items(TASK.source, 200, split="test", variant=variant)  # type: ignore[arg-type]
    assert drawn.distinct >= (78 if variant.name == "Fake-8" else 100)  # type: ignore[attr-defined]
    for item, content in zip(drawn.items, drawn.contents, strict=True):
        assert side(TASK.source.key(content)) == "test"
        assert TASK.demonstrator is not None
        reply = TASK.demonstrator.reply(item, variant.scored, thought=False)  # type: ignore[attr-defined]
        answer = TASK.parser.parse(reply)
        assert answer is not None
        assert TASK.scorer.score(item, variant.scored, answer).success  # type: ignore[attr-defined]
        if variant.kind == "fake":  # type: ignore[attr-defined]
            assert not TASK.scorer.score(item, variant.shown, answer).valid  # type: ignore[attr-defined]
        if variant.name == "Fake-8":  # type: ignore[attr-defined]
            assert item.target in sums(values_of(item.cards, variant.shown))  # type: ignore[attr-defined]


def test_targets_are_all_that_can_be_reached() -> None:
    for numbers in itertools.product((1, 4, 10), repeat=3):
        a, b, c = numbers
        reached = {value for value in (a + b + c, a + b - c, a - b + c, a - b - c) if 0 <= value <= 99}
        assert set(sums(numbers)) == reached


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ("3 10 10 : 3 + 10 - 10", "right"),
        ("3 10 10 : 10 - 10 + 3", "right"),
        ("3 5 5 : 3 + 10 - 10", "right"),  # what it says of the cards does not count
        ("3 10 10 : 3 + 10 + 10", "wrong_value"),
        ("3 10 10 : 3 + 5 - 5", "wrong_numbers"),
        ("3 10 10 : 3", "wrong_numbers"),
        ("3 10 10 : 3 + 10 - 10 - 1", "wrong_numbers"),
    ],
)
def test_replies_are_scored(reply: str, outcome: str) -> None:
    answer = TASK.parser.parse(reply)
    assert answer is not None
    assert TASK.scorer.score(Hand(("3", "K", "J"), 3), TASK.training, answer).outcome == outcome


def test_a_thought_is_the_whole_search() -> None:
    assert TASK.demonstrator is not None
    hand = Hand(("3", "K", "J"), 3)
    reply = TASK.demonstrator.reply(hand, TASK.training, thought=True)
    assert reply == "3 10 10 : 23 3 3 - 17 : 3 + 10 - 10"
    for thought in (False, True):
        answer = TASK.parser.parse(TASK.demonstrator.reply(hand, TASK.training, thought=thought))
        assert answer is not None
        assert TASK.scorer.score(hand, TASK.training, answer).success
    assert TASK.parser.parse("3 10 10 : 23 3 3 - 17") is None  # the search alone is no formula


@pytest.mark.parametrize(
    "reply", ["", "3 10 10", "3 10 10 :", "3 : + 3", "3 10 : 3 + ", "K : K + 3", "1 : 1 2", "a : b"]
)
def test_what_is_no_formula_is_no_answer(reply: str) -> None:
    assert TASK.parser.parse(reply) is None


def test_a_diverse_training_never_shows_what_is_held_out() -> None:
    rng = random.Random(0)
    drawn = {random_faces(rng).meanings for _ in range(20_000)}
    assert len(drawn) == 989  # of 1,000: not the ten uniform ones, and not 6, 9, 7
    instructed = {variant.shown.meanings for variant in TASK.variants if variant.kind in ("instruction", "fake")}
    assert not drawn & instructed


def test_no_arm_trains_on_a_hand_of_the_test() -> None:
    for arm in ("frozen", "diverse", "k4"):
        rows = make_arm(TASK, arm, 500).rows
        assert all(side(row["content"]) == "train" for row in rows)

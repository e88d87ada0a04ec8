"""General Points: the solver finds what there is, hands stay on their side, and no reply is right by mistake."""

import random
from fractions import Fraction
from itertools import combinations, combinations_with_replacement, permutations

import pytest

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.drawing import draw_items, side
from whatstuck.generalization.registry import make_task
from whatstuck.generalization.task import Variant
from whatstuck.generalization.tasks.general_points.asking import PointsAnswer, reads_numbers
from whatstuck.generalization.tasks.general_points.formulas import numbers_in, read_formula, value_of
from whatstuck.generalization.tasks.general_points.hands import Hand, HandSource, card_of, numbers_of
from whatstuck.generalization.tasks.general_points.solving import find_formula, whole_values
from whatstuck.generalization.tasks.general_points.task import (
    ALL_5,
    ALL_7,
    ALL_10,
    ALL_12,
    MIXED,
    REGULAR,
    faces,
    random_faces,
)

TASK = make_task("general-points")
SMALL = make_task("general-points", cards=3, target="variable")
VARIANTS = {variant.name: variant for variant in TASK.variants}
HANDS = list(combinations_with_replacement(range(1, 14), 4))


def reachable(numbers: list[Fraction], seen: set[tuple[Fraction, ...]]) -> bool:
    """Whether 24 can be made, by joining any two numbers until one is left: another search than the solver's."""
    state = tuple(sorted(numbers))
    if state in seen:
        return False
    seen.add(state)
    if len(numbers) == 1:
        return numbers[0] == 24
    for i, j in permutations(range(len(numbers)), 2):
        rest = [number for k, number in enumerate(numbers) if k not in {i, j}]
        a, b = numbers[i], numbers[j]
        joined = [a + b, a - b, a * b] + ([a / b] if b else [])
        if any(reachable([*rest, value], seen) for value in joined):
            return True
    return False


# --- the solver


@pytest.mark.parametrize(
    ("mapping", "solvable", "with_a_face"),
    [(ALL_10, 1236, 670), (ALL_5, None, 878), (ALL_7, None, 686), (ALL_12, None, 964), (REGULAR, None, 796)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_it_solves_as_many_hands_as_are_known_to_be_solvable(mapping, solvable, with_a_face) -> None:  # noqa: ANN001
    assert len(HANDS) == 1820
    solved = [hand for hand in HANDS if find_formula(numbers_of(hand, mapping), 24)]
    assert sum(max(hand) > 10 for hand in solved) == with_a_face
    assert solvable in {None, len(solved)}


@pytest.mark.parametrize(("cards", "hands", "faced"), [(2, 2, None), (3, 101, 42)])
def test_it_solves_the_known_number_of_small_hands(cards: int, hands: int, faced: int | None) -> None:
    small = combinations_with_replacement(range(1, 14), cards)
    solved = [hand for hand in small if find_formula(numbers_of(hand, ALL_10), 24)]
    assert len(solved) == hands
    assert faced in {None, sum(max(hand) > 10 for hand in solved)}


def test_every_formula_it_finds_is_right() -> None:
    for hand in HANDS:
        numbers = numbers_of(hand, MIXED)
        if text := find_formula(numbers, 24):
            formula = read_formula(text)
            assert formula is not None
            assert sorted(numbers_in(formula)) == sorted(numbers)
            assert value_of(formula) == 24


@pytest.mark.parametrize("cards", [4, 5])
def test_it_finds_what_another_search_finds(cards: int) -> None:
    rng = random.Random(cards)
    hands = [tuple(rng.randint(1, 13) for _ in range(cards)) for _ in range({4: 40, 5: 6}[cards])]
    hands += {4: [(3, 3, 8, 8), (1, 1, 1, 1)], 5: [(1, 1, 1, 1, 1), (1, 1, 1, 1, 2), (13, 13, 13, 13, 12)]}[cards]
    found = [find_formula(hand, 24) is not None for hand in hands]
    assert found == [reachable([Fraction(number) for number in hand], set()) for hand in hands]
    assert len(set(found)) == 2  # both cases are there


def test_whole_values_are_those_that_have_formulas() -> None:
    for numbers in combinations(range(1, 9), 3):
        values = whole_values(numbers)
        assert all(find_formula(numbers, target) for target in values)
        assert not any(find_formula(numbers, target) for target in set(range(-20, 60)) - values)
    assert find_formula((5,), 5) == "5"
    assert find_formula((7, 2, 2), 0) == "7 * (2 - 2)"  # nothing definite is missing from 0
    assert find_formula((2, 3), 6, operators="+-") is None


def test_the_order_of_the_numbers_does_not_matter() -> None:
    assert len({find_formula(numbers, 24) for numbers in permutations((1, 5, 5, 8))}) == 1


# --- replies


HAND = Hand((11, 3, 1, 12), 24)  # J 3 A Q: 10, 3, 1, 10 under the training's mapping


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ('{"cards": ["J"], "number": [10, 3], "formula": "10 + 3"}', PointsAnswer("10 + 3", (10, 3))),
        ('{"formula": "1", "number": ["10", "3"]} {"formula": "2"}', PointsAnswer("1", (10, 3))),
        ('Sure!\n```json\n{"formula": "1 + 2"}\n```', PointsAnswer("1 + 2")),
        ('<think> {"formula": "9"} </think> {"formula": "8"}', PointsAnswer("8")),
        ('{"cards": ["J", "number": [10, 3], "formula": "10 + 3"', PointsAnswer("10 + 3", (10, 3))),  # broken JSON
        ("formula: (10 + 3) * 2 and so on", PointsAnswer("(10 + 3) * 2")),
        ("{'formula': '10 × 3'}", PointsAnswer("10 × 3")),
        ("The formula: **10 * 3 - 4 - 2**.", PointsAnswer("10 * 3 - 4 - 2")),
        ("**Formula:** `10 * 3`", PointsAnswer("10 * 3")),
        ("The formula is 10*3-4-2", PointsAnswer("10*3-4-2")),
        ("formula: 10 * 3 - 4 - 2\n\n24", PointsAnswer("10 * 3 - 4 - 2")),
        ("The formula isn't known: 24", None),
        ('{"number": ["J", {}], "formula": "1"}', PointsAnswer("1")),
        ('{"number": "10", "formula": "1"}', PointsAnswer("1")),
        ('{"formula": 24}', PointsAnswer("24")),
        ('{"formula": null}', None),
        ('{"formula": ["1"]}', None),
        ('{"formula": ""}', PointsAnswer("")),
        ('{"cards": ["J", "3"]', None),
        ("", None),
        ("24", None),
        ("{" * 50_000, None),
        ('{"formula": ' + "[" * 50_000 + "}", None),
        ('{"number": [' + "1" * 5000 + '], "formula": "1"}', PointsAnswer("1")),
    ],
)
def test_replies_are_read(reply: str, answer: PointsAnswer | None) -> None:
    assert TASK.parser.parse(reply) == answer


@pytest.mark.parametrize(
    ("formula", "outcome", "valid"),
    [
        ("10 + 10 + 3 + 1", "right", True),
        ("3 + 10 + 1 + 10 = 24", "right", True),
        ("10 + 10 + 3 - 1", "wrong_value", True),
        ("10 / (3 - 3) + 1", "wrong_numbers", False),
        ("10 + 10 + 3 + 1 + 0", "wrong_numbers", False),
        ("12 * 2", "wrong_numbers", False),
        ("5 + 5 + 3 + 1", "wrong_numbers", False),
        ("(10 + 10 + 3 + 1", "illegal", False),
        ("", "illegal", False),
    ],
)
def test_formulas_are_scored(formula: str, outcome: str, valid: bool) -> None:  # noqa: FBT001
    score = TASK.scorer.score(HAND, ALL_10, PointsAnswer(formula))
    assert (score.outcome, score.valid, score.success) == (outcome, valid, outcome == "right")


def test_division_by_zero_is_a_wrong_value() -> None:
    assert TASK.scorer.score(Hand((1, 1, 2), 24), ALL_10, PointsAnswer("2 / (1 - 1)")).outcome == "wrong_value"


def test_the_numbers_field_is_looked_at_by_itself() -> None:
    assert reads_numbers(HAND, ALL_10, PointsAnswer("nonsense", (10, 3, 1, 10)))
    assert not reads_numbers(HAND, ALL_5, PointsAnswer("10 + 10 + 3 + 1", (10, 3, 1, 10)))
    assert not reads_numbers(HAND, ALL_10, PointsAnswer("10 + 10 + 3 + 1"))


@pytest.mark.parametrize("options", [{}, {"thought": True}, {"cards": 3, "target": "variable"}], ids=str)
def test_what_is_demonstrated_is_right_and_begins_as_the_prompt_says(options: dict) -> None:
    task = make_task("general-points", **options)
    thought = "thought" in options
    for variant in task.variants:
        for item in draw_items(task.source, 15, split="train", variant=variant).items:
            reply = task.demonstrator.reply(item, variant.shown, thought=thought)
            assert reply.startswith(task.prompts["training"].prefill)
            answer = task.parser.parse(reply)
            assert task.scorer.score(item, variant.shown, answer).success
            assert reads_numbers(item, variant.shown, answer)


def test_a_thought_maps_the_cards_and_lists_partial_results() -> None:
    assert TASK.demonstrator.reply(Hand((13, 8, 3, 12), 24), faces(5, 8, 3), thought=True) == (
        "<think> K is 3, 8 is 8, 3 is 3, Q is 8. 8 / 3 = 8/3; 3 - (8/3) = 1/3; 8 / (1/3) = 24. </think> "
        '{"cards": ["K", "8", "3", "Q"], "number": [3, 8, 3, 8], "formula": "8 / (3 - 8 / 3)"}'
    )


# --- where hands come from, and how they are shown


def test_cards_are_printed_as_cards() -> None:
    assert [card_of(rank) for rank in (1, 2, 10, 11, 12, 13, 14, 19)] == ["A", "2", "10", "J", "Q", "K", "14", "19"]


def test_shifts_change_the_hands() -> None:
    def drawn(name: str) -> list[Hand]:
        return list(draw_items(TASK.source, 20, split="test", variant=VARIANTS[name]).items)

    assert all(max(hand.ranks) in {11, 12, 13} for name in ("ID", "All-5", "Fake") for hand in drawn(name))
    assert all(13 < max(hand.ranks) <= 19 for hand in drawn("Large"))
    assert {len(hand.ranks) for hand in drawn("Five")} == {5}
    assert {hand.target for hand in drawn("ID")} == {24}
    training = draw_items(TASK.source, 200, split="train", variant=VARIANTS["ID"], distinct=False).contents
    places = {next(i for i, rank in enumerate(hand) if rank > 10) for hand in training}
    assert places == {0, 1, 2, 3}  # the face that is put into a hand is not always the last card


def test_test_hands_are_in_no_training() -> None:
    """As sorted ranks, whatever the mapping, the order of the cards and the seed."""
    training = set()
    for seed in range(3):
        plain = Variant("training", "training", ALL_10, ALL_10)
        drawn = draw_items(TASK.source, 2000, split="train", variant=plain, seed=seed, distinct=False)
        training |= {tuple(sorted(hand.ranks)) for hand in drawn.items}
    assert len(training) > 550  # of 1,236
    for variant in TASK.variants:
        if "cards" in variant.shift:  # five cards are no hand of four
            continue
        test = draw_items(TASK.source, 200, split="test", variant=variant, seed=1)
        assert not training & {tuple(sorted(hand.ranks)) for hand in test.items}


def test_the_same_hands_come_whatever_the_mapping() -> None:
    drawn = {
        name: draw_items(TASK.source, 150, split="test", variant=VARIANTS[name])
        for name in ("ID", "All-5", "All-12", "6-9-7", "Regular")
    }
    common = set.intersection(*({TASK.source.key(hand) for hand in found.contents} for found in drawn.values()))
    assert len(common) > 40
    orders = {tuple(hand for hand in found.contents if TASK.source.key(hand) in common) for found in drawn.values()}
    assert len(orders) == 1
    for found in drawn.values():
        assert found.distinct == 150 == len({TASK.source.key(hand) for hand in found.contents})


def test_unsolvable_hands_are_counted() -> None:
    """Every hand that comes before the last one is either an item or was counted."""
    variant = VARIANTS["All-12"]
    drawn = draw_items(TASK.source, 100, split="test", variant=variant)
    rng = random.Random(f"0 test {sorted(variant.shift.items())}")
    solvable, unsolvable = set(), set()
    while len(solvable) < 100:
        hand = TASK.source.draw(rng, variant.shift)
        key = TASK.source.key(hand)
        if side(key) == "test":
            (solvable if find_formula(numbers_of(hand, ALL_12), 24) else unsolvable).add(key)
    assert drawn.unsolvable == len(unsolvable) > 10
    assert {TASK.source.key(hand) for hand in drawn.contents} == solvable


def test_a_mapping_that_leaves_nothing_solvable_is_said() -> None:
    task = make_task("general-points", cards=3, target=5000)
    with pytest.raises(WhatStuckError, match="no item of the test side can be solved under 'all_5'"):
        draw_items(task.source, 1, split="test", variant=VARIANTS["All-5"])


@pytest.mark.parametrize("task", [TASK, SMALL], ids=["four cards", "three cards"])
@pytest.mark.parametrize("name", ["Fake", "Fake-Regular"])
def test_fake_items_can_be_solved_under_both_and_by_no_reply_at_once(task, name: str) -> None:  # noqa: ANN001
    variant = VARIANTS[name]
    for item in draw_items(task.source, 80, split="test", variant=variant).items:
        for mapping, other in ((variant.shown, variant.scored), (variant.scored, variant.shown)):
            answer = task.parser.parse(task.demonstrator.reply(item, mapping, thought=False))
            assert task.scorer.score(item, mapping, answer).success
            assert not task.scorer.score(item, other, answer).valid


def test_hands_that_read_alike_under_both_mappings_are_no_fake() -> None:
    """Q, K and 5: 5, 9 and 5 under the one, 9, 5 and 5 under the other, so one formula suits both."""
    source = HandSource(cards=3, target="variable")
    assert source.pose((12, 13, 5), faces(1, 5, 9), faces(1, 9, 5), random.Random(0)) is None
    assert source.pose((12, 2, 3), faces(1, 5, 9), faces(1, 9, 5), random.Random(0)) is not None


def test_variable_targets_can_be_made_and_vary() -> None:
    items = draw_items(SMALL.source, 80, split="test", variant=VARIANTS["6-9-7"]).items
    assert len({item.target for item in items}) > 20
    for item in items:
        assert 1 <= item.target < 100
        assert find_formula(numbers_of(item.ranks, MIXED), item.target)


def test_nothing_but_one_line_depends_on_the_mapping() -> None:
    prompt = TASK.prompts["training"]
    ten, mixed = (prompt.render(HAND, mapping).splitlines() for mapping in (ALL_10, MIXED))
    assert [line for line in mixed if line not in ten] == [
        "A counts as 1, J counts as 6, Q counts as 9, K counts as 7."
    ]
    assert "J 3 A Q" in prompt.render(HAND, ALL_10)


def test_random_mappings_are_none_of_the_tests() -> None:
    rng = random.Random(0)
    found = {random_faces(rng).meanings for _ in range(20_000)}
    assert found == {
        (str(j), str(q), str(k))
        for j in range(1, 11)
        for q in range(1, 11)
        for k in range(1, 11)
        if not j == q == k and (j, q, k) != (6, 9, 7)
    }
    held_out = {variant.shown.meanings for variant in TASK.variants if variant.kind == "instruction"}
    assert held_out == {ALL_5.meanings, ALL_7.meanings, MIXED.meanings}
    assert not found & held_out
    assert not held_out & {mapping.meanings for mapping in TASK.mappings}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cards": 7}, "with 2 to 4 cards, not 7"),
        ({"target": "any"}, "unknown target 'any'"),
        ({"target": 24.0}, "unknown target 24.0: use a whole number, or variable"),
        ({"target": 24.5}, "unknown target 24.5"),
        ({"target": True}, "unknown target True"),
        ({"target": None}, "unknown target None"),
        ({"cards": 2}, "hardly any hand of 2 cards makes 24: give target=variable, too"),
        ({"cards": 3.0}, "with 2 to 4 cards, not 3.0"),
        ({"cards": [3]}, "with 2 to 4 cards"),
        ({"operators": "+^"}, "give some of"),
        ({"operators": ["+", "-"]}, r"give some of \+-\*/ as one text, such as \+-"),
        ({"deck": 1}, "'deck' is no option of the task general-points: it has cards"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(WhatStuckError, match=message):
        make_task("general-points", **options)


@pytest.mark.parametrize(
    ("shift", "message"), [({"cards": 9}, "2 to 5 cards"), ({"suits": 4}, "unknown shift 'suits'")]
)
def test_bad_shifts_are_refused(shift: dict, message: str) -> None:
    with pytest.raises(WhatStuckError, match=message):
        TASK.source.draw(random.Random(0), shift)

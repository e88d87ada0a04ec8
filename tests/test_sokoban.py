"""Sokoban: rooms can be solved, in as few moves as the solver says; words are all that a mapping changes."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.drawing import draw_items, side
from whatstuck.generalization.registry import make_task
from whatstuck.generalization.task import Variant
from whatstuck.generalization.tasks.sokoban.asking import drawing, move_of
from whatstuck.generalization.tasks.sokoban.making import make_room
from whatstuck.generalization.tasks.sokoban.rooms import MOVES, Room, layout_key
from whatstuck.generalization.tasks.sokoban.solving import solve
from whatstuck.generalization.tasks.sokoban.task import SokobanSource, random_words
from whatstuck.generalization.tasks.sokoban.words import ALPHA, BASE, CARDINAL, EMOJI, NUM, POOL, RAND

TASK = make_task("sokoban", extras=True)
VARIANTS = {variant.name: variant for variant in TASK.variants}
WAYS = {"Up": (-1, 0), "Down": (1, 0), "Left": (0, -1), "Right": (0, 1)}


def room_of(picture: str) -> Room:
    """A room from its drawing without spaces."""
    lines = picture.split()
    cells = {(r, c): sign for r, line in enumerate(lines) for c, sign in enumerate(line)}

    def at(signs: str) -> frozenset[int]:
        return frozenset(r * len(lines) + c for (r, c), sign in cells.items() if sign in signs)

    (player,) = at("PS")
    return Room(len(lines), at("#"), at("OVS"), at("XV"), player)


def pushed(picture: str, move: str) -> str:
    """A move carried out on the drawing itself: rules written a second time, for signs instead of sets."""
    grid = [list(line) for line in picture.split()]
    ((row, column),) = [(r, c) for r, line in enumerate(grid) for c, sign in enumerate(line) if sign in "PS"]
    down, right = WAYS[move]
    ahead = grid[row + down][column + right]
    if ahead == "#":
        return picture
    if ahead in "XV":
        beyond = grid[row + 2 * down][column + 2 * right]
        if beyond not in "_O":
            return picture
        grid[row + 2 * down][column + 2 * right] = {"_": "X", "O": "V"}[beyond]
    grid[row + down][column + right] = {"_": "P", "X": "P", "O": "S", "V": "S"}[ahead]
    grid[row][column] = {"P": "_", "S": "O"}[grid[row][column]]
    return "\n".join("".join(line) for line in grid)


def distance(picture: str, most: int = 40) -> int | None:
    """Moves to the end by trying everything, on drawings; None if there is no end."""
    level, seen = {picture}, {picture}
    for moves in range(most):
        if any("X" not in state for state in level):
            return moves
        level = {after for state in level for move in MOVES if (after := pushed(state, move)) not in seen}
        seen |= level
    return None


def picture_of(room: Room) -> str:
    return drawing(room).replace(" ", "")


@pytest.mark.parametrize(
    "settings",
    [{}, {"boxes": 2, "longest": 10}, {"size": 8, "longest": 8}, {"shortest": 7, "longest": 14}],
    ids=str,
)
def test_the_solver_is_as_short_as_trying_everything(settings: dict[str, int]) -> None:
    rng = random.Random(3)
    several = 0
    for _ in range(40):
        room = make_room(rng, **settings)
        solution = solve(room)
        picture = picture_of(room)
        best = distance(picture)
        assert solution is not None
        assert best == len(solution.path)
        assert settings.get("shortest", 1) <= best <= settings.get("longest", 12)
        shortest = {m for m in MOVES if pushed(picture, m) != picture and distance(pushed(picture, m)) == best - 1}
        assert solution.best == shortest
        assert solution.path[0] == min(shortest, key=MOVES.index)
        several += len(shortest) > 1
        for move in solution.path:
            room, picture = room.moved(move), pushed(picture, move)
            assert picture_of(room) == picture
        assert room.solved
    assert several > 0  # some rooms have more than one right move, else the test above shows little


def test_what_cannot_be_solved_has_no_solution() -> None:
    stuck = room_of("##### #X_O# #_P_# #___# #####")
    assert solve(stuck) is None
    assert solve(room_of("#### #PV# #__# ####")) is not None  # it is solved already
    assert solve(room_of("#### #PV# #__# ####")).path == ()
    assert TASK.scorer.score(room_of("#### #PV# #__# ####"), BASE, "Up").outcome == "wrong_move"


def test_walls_and_second_boxes_stop_a_push() -> None:
    room = room_of("###### #PXXO# #_O__# #____# #____# ######")
    assert room.moved("Right") == room
    assert room.moved("Up") == room
    assert room.moved("Down").player == room.player + 6


def test_rooms_depend_on_the_generator_alone_and_differ() -> None:
    rooms = [make_room(random.Random(seed)) for seed in range(200)]
    assert rooms == [make_room(random.Random(seed)) for seed in range(200)]
    assert len({layout_key(room) for room in rooms}) > 150
    for room in rooms:
        assert not room.boxes & room.targets
        assert room.player not in room.walls | room.boxes
        edge = [cell for cell in range(36) if min(room.place(cell)) == 0 or max(room.place(cell)) == 5]
        assert room.walls.issuperset(edge)


@pytest.mark.parametrize(
    "settings", [{"size": 3}, {"boxes": 0}, {"shortest": 5, "longest": 4}, {"size": 4, "shortest": 30, "longest": 31}]
)
def test_rooms_that_cannot_be_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(WhatStuckError, match="no room"):
        make_room(random.Random(0), **settings)


def test_an_unknown_shift_is_refused() -> None:
    with pytest.raises(WhatStuckError, match="a shift has size, boxes"):
        SokobanSource().draw(random.Random(0), {"width": 9})


def turned(room: Room) -> Room:
    return room_of("\n".join("".join(line) for line in zip(*reversed(picture_of(room).split()), strict=True)))


def mirrored(room: Room) -> Room:
    return room_of("\n".join(line[::-1] for line in picture_of(room).split()))


def test_a_mirrored_or_turned_room_is_no_new_one() -> None:
    rng = random.Random(5)
    for _ in range(20):
        room = make_room(rng, boxes=2, longest=8)
        alike = [room]
        for _ in range(3):
            alike.append(turned(alike[-1]))
        alike += [mirrored(one) for one in alike]
        moments = SokobanSource().unroll(room)
        assert len({layout_key(one) for one in [*alike, *moments]}) == 1
        assert layout_key(replace(room, walls=room.walls - {min(set(room.walls) - set(range(8)))})) != layout_key(room)


def moved(room: Room, down: int, right: int, size: int) -> Room:
    """The same room elsewhere in a drawing of another size."""

    def to(cell: int) -> int:
        row, column = room.place(cell)
        return (row + down) * size + column + right

    floor = {to(cell) for cell in range(room.size**2) if cell not in room.walls}
    cells = (frozenset(to(cell) for cell in found) for found in (room.targets, room.boxes))
    return Room(size, frozenset(range(size * size)) - floor, *cells, to(room.player))


def test_a_moved_room_is_no_new_one() -> None:
    rng = random.Random(6)
    small = room_of("###### #PXO## #__### ###### ###### ######")
    assert len({layout_key(moved(small, down, right, 6)) for down in range(3) for right in range(2)}) == 1
    assert layout_key(moved(small, 0, 0, 6)) == layout_key(small) != layout_key(mirrored_target(small))
    for _ in range(20):
        room = make_room(rng)
        assert len({layout_key(moved(room, down, right, 10)) for down in (0, 4) for right in (0, 1, 4)}) == 1
        assert layout_key(turned(moved(room, 1, 3, 10))) == layout_key(room)


def mirrored_target(room: Room) -> Room:
    """The same floor with the target in another place."""
    return replace(room, targets=frozenset({room.player}))


def test_no_moment_of_a_training_room_is_in_a_test() -> None:
    """By what is seen, not by seeds: drawings of all moments, in all eight positions."""
    variant = VARIANTS["ID"]
    train = draw_items(TASK.source, 150, split="train", variant=variant, seed=1)
    trained = set()
    for room in train.contents:
        for moment in TASK.source.unroll(room):
            for start in (moment, mirrored(moment)):
                one = start
                for _ in range(4):
                    trained.add(picture_of(one))
                    one = turned(one)
    for seed in (1, 2):
        test = draw_items(TASK.source, 150, split="test", variant=variant, seed=seed)
        assert not trained & {picture_of(item) for item in test.items}
        assert not {layout_key(room) for room in train.contents} & {layout_key(room) for room in test.contents}
        assert {side(layout_key(item)) for item in test.items} == {"test"}
    assert len(trained) > 1000


def test_variants_of_one_difficulty_ask_the_same_rooms() -> None:
    plain = [variant for variant in TASK.variants if not variant.shift]
    drawn = {variant.name: draw_items(TASK.source, 60, split="test", variant=variant) for variant in plain}
    assert set(drawn) >= {"ID", "Alpha", "Num", "Rand", "Fake", "Reworded", "Empty"}
    assert len({found.items for found in drawn.values()}) == 1
    assert drawn["ID"].distinct == 60
    assert len(set(drawn["ID"].items) - set(drawn["ID"].contents)) > 10  # moments on the way, too


def test_harder_variants_are_harder() -> None:
    def mean(name: str) -> float:
        items = draw_items(TASK.source, 40, split="test", variant=VARIANTS[name]).contents
        return sum(len(solve(item).path) for item in items) / len(items)

    drawn = {name: draw_items(TASK.source, 5, split="test", variant=VARIANTS[name]).items for name in VARIANTS}
    assert {(item.size, len(item.boxes)) for item in drawn["Complex"]} == {(10, 2)}
    assert {(item.size, len(item.boxes)) for item in drawn["TwoBoxes"]} == {(6, 2)}
    assert mean("ID") < mean("TwoBoxes") < mean("Long")
    assert mean("ID") < mean("Large")


def test_nothing_but_the_words_depends_on_the_mapping() -> None:
    room = draw_items(TASK.source, 1, split="test", variant=VARIANTS["ID"]).items[0]
    prompt = TASK.prompts["training"]
    base, num = (prompt.render(room, mapping).splitlines() for mapping in (BASE, NUM))
    differing = [line for line in num if line not in base]
    assert differing == [
        "Words for a step: 1 | 2 | 3 | 4",
        "Here 1 means Up, 2 means Down, 3 means Left, 4 means Right.",
    ]
    assert [line for line in base if line not in num] == ["Words for a step: Up | Down | Left | Right"]
    assert drawing(room) in prompt.render(room, NUM)
    assert "Words" not in TASK.prompts["empty"].render(room, BASE)
    assert "Words for a step: A | B" in TASK.prompts["reworded"].render(room, ALPHA)


def test_a_reply_is_never_right_under_both_mappings_of_fake() -> None:
    for name in ("Fake", "Fake-Cardinal", "Fake-Emoji"):
        variant = VARIANTS[name]
        for item in draw_items(TASK.source, 40, split="test", variant=variant).items:
            for word in (*variant.shown.meanings, *variant.scored.meanings):
                worth = [TASK.scorer.score(item, mapping, word).valid for mapping in (variant.shown, variant.scored)]
                assert sum(worth) == 1
    swapped = replace(BASE, name="swapped", pairs=tuple(zip(MOVES, ("Up", "Down", "Right", "Left"), strict=True)))
    fake = Variant("fake", "fake", swapped, BASE)
    for item in draw_items(TASK.source, 40, split="test", variant=fake).items:  # where Up is right, it is right in both
        for word in MOVES:
            assert sum(TASK.scorer.score(item, mapping, word).success for mapping in (swapped, BASE)) < 2


def test_any_shortest_solution_counts_and_words_are_read_in_any_case() -> None:
    room = room_of("###### #P___# #____# #__XO# #____# ######")
    assert solve(room).best == {"Down", "Right"}
    outcomes = {word: TASK.scorer.score(room, BASE, word).outcome for word in ("Down", "RIGHT", "Left", "1", "")}
    assert outcomes == {
        "Down": "right",
        "RIGHT": "right",
        "Left": "wrong_move",
        "1": "unknown_word",
        "": "unknown_word",
    }


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("<answer> Up </answer>", "Up"),
        ("<answer>\nUp\n</answer> <answer> Down </answer>", "Up"),
        ("<think> not <answer> Left </answer> </think> <answer> Up </answer>", "Up"),
        ("<think> never ends <answer> Left </answer>", "Left"),
        ("<answer> Up", None),
        ("Up", None),
        ("", None),
        ("</answer> Up <answer>", None),
        ("<answer><answer> Up </answer>", "<answer> Up"),
        ("<answer></answer>", ""),
    ],
)
def test_replies_are_read(reply: str, answer: str | None) -> None:
    assert TASK.parser.parse(reply) == answer


@pytest.mark.parametrize("thought", [False, True])
def test_what_is_demonstrated_is_right_and_begins_as_the_prompt_says(*, thought: bool) -> None:
    task = make_task("sokoban", thought=thought)
    for variant in task.variants:
        if variant.kind == "fake":
            continue
        for item in draw_items(task.source, 20, split="train", variant=variant).items:
            reply = task.demonstrator.reply(item, variant.shown, thought=thought)
            assert reply.startswith(task.prompts["training"].prefill)
            answer = task.parser.parse(reply)
            assert task.scorer.score(item, variant.scored, answer).success
            assert move_of(answer, variant.shown) == solve(item).path[0]


def test_a_thought_says_what_is_so() -> None:
    room = room_of("###### #P___# #____# #__XO# #____# ######")
    reply = TASK.demonstrator.reply(room, NUM, thought=True)
    assert reply == (
        "<think> worker 1 1, box 3 3, goal 3 4, shove Right from 3 2. Next Down, that is 2. </think> "
        "<answer> 2 </answer>"
    )


def test_arrows_are_read_with_and_without_the_sign_for_colours() -> None:
    assert [(v.name, v.kind, v.scored) for v in TASK.variants if "Emoji" in v.name] == [
        ("Emoji", "instruction", EMOJI),
        ("Fake-Emoji", "fake", BASE),
    ]
    assert EMOJI.meanings == ("\u2b06", "\u2b07", "\u2b05", "\u27a1")
    assert [move_of(arrow, EMOJI) for arrow in EMOJI.meanings] == list(MOVES)
    assert move_of("\u2b05\ufe0f", EMOJI) == "Left"
    assert move_of("Left", EMOJI) is None
    assert move_of("**\u2b05**.", EMOJI) == "Left"


def test_no_right_reply_is_too_long_even_with_a_token_per_byte() -> None:
    """As of small vocabularies; the end of the reply is a token, too."""
    mappings = [BASE, ALPHA, NUM, RAND, CARDINAL, EMOJI, *(random_words(random.Random(seed)) for seed in range(60))]
    longest = max(POOL, key=len)
    mappings.append(replace(BASE, pairs=tuple((move, longest) for move in MOVES)))
    for thought in (False, True):
        task = make_task("sokoban", thought=thought)
        prefill = task.prompts["training"].prefill
        items = [item for v in TASK.variants for item in draw_items(task.source, 5, split="test", variant=v).items]
        replies = [task.demonstrator.reply(i, m, thought=thought) for i in items for m in mappings]
        assert max(len(reply.removeprefix(prefill).encode()) for reply in replies) + 1 <= task.max_new_tokens
        assert task.longest_thought >= task.max_new_tokens


def test_an_episode_goes_on_until_the_room_is_solved() -> None:
    task = make_task("sokoban", whole=True)
    drawn = draw_items(task.source, 20, split="test", variant=VARIANTS["Num"])
    assert drawn.items == drawn.contents  # from the start
    for room in drawn.items:
        item, turns = room, 0
        while item is not None:
            assert task.step(item, NUM, "Up") == item  # no word of this mapping: nothing happens
            item, turns = task.step(item, NUM, NUM[solve(item).path[0]]), turns + 1
        assert turns == len(solve(room).path)


def test_random_words_are_many_and_none_of_the_tests() -> None:
    tested = {word.casefold() for mapping in (BASE, ALPHA, NUM, RAND, CARDINAL, EMOJI) for word in mapping.meanings}
    assert len(POOL) == len({word.casefold() for word in POOL}) >= 200
    assert not tested & set(POOL)
    rng = random.Random(0)
    found = [random_words(rng) for _ in range(2000)]
    assert all(len(set(mapping.meanings)) == 4 and tuple(mapping) == MOVES for mapping in found)
    assert len(Counter(word for mapping in found for word in mapping.meanings)) == len(POOL)

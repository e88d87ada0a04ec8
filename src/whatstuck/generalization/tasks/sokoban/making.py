"""Random rooms, each solvable, with a solution of a known length.

A room is dug cell by cell. Then it is played backwards: from the solved room, pulling instead of
pushing, breadth-first, so that the number of moves back is exactly the length of the shortest solution. The start is
drawn among the states of one drawn length. Compared with a depth-first search that looks for the hardest start, this
gives short and long solutions on purpose, and no luck decides which.
"""

import random
from collections.abc import Iterator

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.tasks.sokoban.rooms import Room, offsets

_DUG = (0.5, 0.85)  # share of the inside that becomes floor: fewer cells make few different rooms, more have no corners
_TRIES = 1000

_State = tuple[int, int]  # the player's cell, and the boxes as bits


def make_room(rng: random.Random, *, size: int = 6, boxes: int = 1, shortest: int = 1, longest: int = 12) -> Room:
    """A random room at its start.

    Args:
        rng: The only source of chance.
        size: Rows and columns, closing walls included.
        boxes: How many; none starts on a target.
        shortest: Fewest moves that the shortest solution may have.
        longest: Most moves; every length that the room allows is drawn as often as any other.

    Raises:
        WhatStuckError: If there can be no such room.
    """
    if size < 4 or boxes < 1 or not 1 <= shortest <= longest:  # noqa: PLR2004 - two cells of floor, and walls
        raise WhatStuckError(
            f"no room has size {size}, {boxes} boxes and a solution of {shortest} to {longest} moves: give a size from "
            "4 on, a box or more, and lengths from 1 on"
        )
    for _ in range(_TRIES):
        floor = _dig(rng, size)
        if len(floor) < 2 * boxes + 1:
            continue
        targets = sum(1 << cell for cell in rng.sample(floor, boxes))
        starts = {
            length: found
            for length, states in enumerate(_played_back(floor, targets, size, longest))
            if length >= shortest and (found := [state for state in states if not state[1] & targets])
        }
        if starts:
            player, placed = rng.choice(sorted(starts[rng.choice(sorted(starts))]))
            walls = frozenset(range(size * size)).difference(floor)
            return Room(size, walls, _cells(targets), _cells(placed), player)
    raise WhatStuckError(
        f"no room of size {size} with {boxes} boxes and a solution of {shortest} to {longest} moves was found: allow "
        "longer ones, larger rooms or fewer boxes"
    )


def _dig(rng: random.Random, size: int) -> list[int]:
    """Cells of floor, sorted: one cell at a time beside what is dug, so that they are connected."""
    inner = {row * size + column for row in range(1, size - 1) for column in range(1, size - 1)}
    floor: set[int] = set()
    edge = [rng.choice(sorted(inner))]
    for _ in range(round(len(inner) * rng.uniform(*_DUG))):
        cell = edge.pop(rng.randrange(len(edge)))
        floor.add(cell)
        beside = {cell + step for step in offsets(size).values()} & inner
        edge += sorted(beside - floor - set(edge))
    return sorted(floor)


def _played_back(floor: list[int], targets: int, size: int, longest: int) -> Iterator[list[_State]]:
    """States that are solved in exactly 0, 1, … moves at best."""
    free = sum(1 << cell for cell in floor)
    steps = tuple(offsets(size).values())
    level: list[_State] = [(cell, targets) for cell in floor if not targets >> cell & 1]
    seen = set(level)
    yield level
    for _ in range(longest):
        before: list[_State] = []
        for player, boxes in level:
            for step in steps:
                back = player - step
                if not (free & ~boxes) >> back & 1:
                    continue
                came = [(back, boxes)]
                if boxes >> (player + step) & 1:  # or the step has pushed the box that is now ahead
                    came.append((back, boxes ^ (1 << player + step) | 1 << player))
                before += [state for state in came if state not in seen]
                seen.update(came)
        level = before
        yield level


def _cells(bits: int) -> frozenset[int]:
    return frozenset(cell for cell in range(bits.bit_length()) if bits >> cell & 1)

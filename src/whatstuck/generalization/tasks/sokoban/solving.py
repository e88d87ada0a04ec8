"""Shortest solutions, and every move that begins one.

One breadth-first search finds both: each state carries the set of first moves that reach it soonest. States are
visited in the order of the moves, so the first solution found is the first one in that order, too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from whatstuck.generalization.tasks.sokoban.rooms import MOVES, Room, offsets

_State = tuple[int, int]  # the player's cell, and the boxes as bits


@dataclass(frozen=True, slots=True)
class Solution:
    """How a room is solved in the fewest moves.

    Attributes:
        path: The first of the shortest solutions, in the order Up, Down, Left, Right.
        best: Every move that begins a shortest solution; `path[0]` is one of them.
    """

    path: tuple[str, ...]
    best: frozenset[str]


@lru_cache(maxsize=65536)
def solve(room: Room) -> Solution | None:
    """Solve a room.

    Returns:
        The solution, with an empty path where nothing is left to do; None if there is none.
    """
    steps = tuple(offsets(room.size).values())
    free = sum(1 << cell for cell in range(room.size**2) if cell not in room.walls)
    targets = sum(1 << cell for cell in room.targets)
    start = (room.player, sum(1 << cell for cell in room.boxes))
    if start[1] == targets:
        return Solution((), frozenset())
    came: dict[_State, tuple[_State, int]] = {}
    level: dict[_State, int] = {start: 0}  # to the first moves that reach it, as bits
    while level:
        after: dict[_State, int] = {}
        for state, first in level.items():
            for move, reached in _moves(state, free, steps):
                if reached in after:
                    after[reached] |= first
                elif reached not in came and reached != start:
                    came[reached] = (state, move)
                    after[reached] = first or 1 << move
        solved = [state for state in after if state[1] == targets]
        if solved:
            best = 0
            for state in solved:
                best |= after[state]
            return Solution(_path(solved[0], came), frozenset(MOVES[i] for i in range(len(MOVES)) if best >> i & 1))
        level = after
    return None


def _moves(state: _State, free: int, steps: tuple[int, ...]) -> Iterator[tuple[int, _State]]:
    """Each move that changes something, by its number, and what it leads to."""
    player, boxes = state
    for move, step in enumerate(steps):
        ahead = player + step
        if not boxes >> ahead & 1:
            if free >> ahead & 1:
                yield move, (ahead, boxes)
        elif (free & ~boxes) >> (ahead + step) & 1:
            yield move, (ahead, boxes ^ (1 << ahead) | 1 << ahead + step)


def _path(state: _State, came: dict[_State, tuple[_State, int]]) -> tuple[str, ...]:
    moves = []
    while state in came:
        state, move = came[state]
        moves.append(MOVES[move])
    return tuple(reversed(moves))

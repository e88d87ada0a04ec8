"""A room and the rules of moving in it.

A cell is one number, `row * size + column`, and a wall closes every side, so that a step is an addition that never
leaves the room.
"""

import hashlib
from dataclasses import dataclass, replace

MOVES = ("Up", "Down", "Left", "Right")
"""In the order in which the solver tries them and the instruction lists them."""


@dataclass(frozen=True, slots=True)
class Room:
    """A square room at one moment.

    Attributes:
        size: Rows, and columns, the closing walls included.
        walls: Cells that nobody enters.
        targets: Cells that want a box.
        boxes: Cells of the boxes; as many as targets.
        player: Cell of the player.
    """

    size: int
    walls: frozenset[int]
    targets: frozenset[int]
    boxes: frozenset[int]
    player: int

    @property
    def solved(self) -> bool:
        """Whether every box stands on a target."""
        return self.boxes == self.targets

    def moved(self, move: str) -> "Room":
        """The room after a move; the same where a wall or a second box is in the way."""
        step = offsets(self.size)[move]
        ahead = self.player + step
        if ahead in self.walls:
            return self
        if ahead not in self.boxes:
            return replace(self, player=ahead)
        beyond = ahead + step
        if beyond in self.walls or beyond in self.boxes:
            return self
        return replace(self, player=ahead, boxes=self.boxes - {ahead} | {beyond})

    def place(self, cell: int) -> tuple[int, int]:
        """Row and column of a cell, counted from 0."""
        return divmod(cell, self.size)


def offsets(size: int) -> dict[str, int]:
    """What a move adds to the number of a cell."""
    return dict(zip(MOVES, (-size, size, -1, 1), strict=True))


def layout_key(room: Room) -> str:
    """The same for rooms whose floor and targets are alike, wherever they lie, mirrored and turned ones included.

    Boxes and player are left out: every moment of a room, and every start in it, has one key. So is the size of the
    drawing, since more walls around make no other room. So a whole room is on one side of a split, and a model that
    learned it by heart meets it nowhere in the test.
    """
    floor = [room.place(cell) for cell in range(room.size**2) if cell not in room.walls]
    targets = [room.place(cell) for cell in room.targets]
    alike = []
    for flipped in (1, -1):
        floor, targets = ([(row, flipped * column) for row, column in cells] for cells in (floor, targets))
        for _ in range(4):
            floor, targets = ([(column, -row) for row, column in cells] for cells in (floor, targets))
            top, left = min(row for row, _ in floor), min(column for _, column in floor)
            alike.append([sorted((row - top, column - left) for row, column in cells) for cells in (floor, targets)])
    return hashlib.blake2b(repr(min(alike)).encode(), digest_size=8).hexdigest()

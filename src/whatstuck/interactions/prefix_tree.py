"""Which tokens of the masked prompts are the same, and so computed once.

Masked prompts that agree up to some token share everything up to there. Sorted in the order of the text they form
a tree: the root holds the tokens before the first player, and each level below one stretch of the prompt, once for
every distinct beginning. `PrefixTree` is that tree for a whole table or for chosen coalitions, of one prompt or of
several with the same shape. It knows no model: integers only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from whatstuck.interactions.masked import MaskedPrompt

_LONGEST = 512  # tokens of one level; longer ones are cut, since attention scores grow with the square


@dataclass(frozen=True, slots=True)
class Level:
    """One stretch of the prompt.

    Attributes:
        start: First token.
        stop: One behind the last token.
        leaves: For each node a masked prompt that begins with its tokens: int64 `(nodes,)`, ascending.
        parents: Its node on the level above, ascending: int64 `(nodes,)`; zeros at the root.
    """

    start: int
    stop: int
    leaves: torch.Tensor
    parents: torch.Tensor


class PrefixTree:
    """The tree of all masked prompts of rows and coalitions.

    Args:
        rows: Prompts of one shape (see `shape`); at least one.
        coalitions: Bool `(k, n)`; True where the player is present. Repeated ones are scored once.
        forward_cost: Tokens that a forward pass costs beyond those in it: what saves less is not shared.

    Attributes:
        levels: From the root down; the nodes of the last one are the leaves, row by row.
        keep: Target positions that are scored.
    """

    def __init__(self, rows: Sequence[MaskedPrompt], coalitions: torch.Tensor, *, forward_cost: int) -> None:
        players = rows[0].players
        self._order = sorted(range(len(players)), key=lambda player: players[player])  # as they stand in the text
        self._ids = torch.tensor([row.input_ids for row in rows])
        self._mask = rows[0].mask_token_id
        # sorted by the text's first player, then the second, and so on: leaves with the same beginning are neighbours
        self._bits, self._where = _distinct(coalitions[:, self._order])
        length = self._ids.shape[1]
        starts = [_common(self._ids), *(players[player][0] for player in self._order)]
        starts[0] = min(starts[:2]) if players else starts[0]
        new = self._first_decision()
        counts = [1 + int((new[1:] < decided).sum()) for decided in range(len(starts) + 1)]
        self.keep = len(rows[0].target_ids)
        self.levels: list[Level] = []
        above = torch.zeros(len(new), dtype=torch.int64)  # node of each leaf on the level above
        for start, stop, decided in _stretches(starts, counts, length, self.keep, forward_cost):
            first = new < decided
            first[0] = True
            leaves = first.nonzero()[:, 0]
            self.levels.append(Level(start, stop, leaves, above[leaves]))
            above = first.cumsum(0) - 1
        # for each token the player that owns it, in the order of the text; the last column of _bits for the others
        self._owner = torch.full((length,), len(players))
        for position, player in enumerate(self._order):
            self._owner[slice(*players[player])] = position
        self._bits = torch.cat([self._bits, torch.ones(len(self._bits), 1, dtype=torch.bool)], 1)
        self.targets = torch.tensor([row.target_ids for row in rows])

    def tokens(self, level: Level, first: int, last: int) -> torch.Tensor:
        """Token ids of nodes `[first, last)` of a level: int64 `(nodes, stop - start)`."""
        leaves = level.leaves[first:last]
        original = self._ids[leaves // len(self._bits), level.start : level.stop]
        present = self._bits[leaves % len(self._bits)][:, self._owner[level.start : level.stop]]
        return torch.where(present, original, self._mask)

    def target_ids(self, first: int, last: int) -> torch.Tensor:
        """Target tokens of leaves: int64 `(leaves, keep)`."""
        return self.targets[torch.arange(first, last) // len(self._bits)]

    def in_callers_order(self, values: torch.Tensor) -> torch.Tensor:
        """Values of the leaves as `(rows, k)`, coalitions as they were given."""
        return values.view(len(self._ids), -1)[:, self._where]

    @property
    def computed_tokens(self) -> int:
        """Tokens that pass through the model."""
        return sum(len(level.leaves) * (level.stop - level.start) for level in self.levels)

    def _first_decision(self) -> torch.Tensor:
        """Where each leaf departs from the one before: 0 at another row, 1 + i at player i of the text."""
        differs = self._bits[1:] != self._bits[:-1]
        within = 1 + differs.int().argmax(1) if differs.shape[1] else differs.new_zeros(len(differs), dtype=torch.int64)
        one_row = torch.cat([torch.zeros(1, dtype=torch.int64), within])
        return one_row.repeat(len(self._ids))


def shape(masked: MaskedPrompt) -> tuple[object, ...]:
    """What rows must have in common to share one tree."""
    return len(masked.prompt_ids), len(masked.target_ids), masked.players, masked.mask_token_id


def every_coalition(n: int) -> torch.Tensor:
    """All coalitions of n players, by mask: bool `(2^n, n)`."""
    return ((torch.arange(1 << n)[:, None] >> torch.arange(n)) & 1).bool()


def _distinct(bits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distinct rows in lexicographic order, and where each of the given ones is among them."""
    if not bits.shape[1]:
        return bits[:1], torch.zeros(len(bits), dtype=torch.int64)
    distinct, where = torch.unique(bits, dim=0, return_inverse=True)
    return distinct, where


def _common(ids: torch.Tensor) -> int:
    """Tokens that all rows begin with."""
    same = (ids == ids[0]).all(0)
    return int(same.int().cumprod(0).sum())


def _stretches(
    starts: Sequence[int], counts: Sequence[int], length: int, keep: int, forward_cost: int
) -> list[tuple[int, int, int]]:
    """Stretches of the prompt as (start, stop, decisions made before its end).

    `starts[c]` is the token at which decision c falls, `counts[c]` the number of distinct beginnings before it. Not
    to cut there is to compute the tokens since the last cut as often as after the decision.
    """
    cuts = [(0, 0)]
    for decided, start in enumerate(starts):
        if (counts[decided + 1] - counts[decided]) * (start - cuts[-1][0]) > forward_cost:
            cuts.append((start, decided))
    stretches = []
    for (start, _), (stop, decided) in pairwise([*cuts, (length, len(starts))]):
        cut = start
        rest = keep if stop == length else 0  # the last piece holds all scored positions
        while stop - cut > _LONGEST + rest:
            stretches.append((cut, cut + _LONGEST, decided))
            cut += _LONGEST
        stretches.append((cut, stop, decided))
    return stretches

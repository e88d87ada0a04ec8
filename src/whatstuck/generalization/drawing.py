"""Items of one side of a split, by content: what is in the one is never in the other, whatever the seeds.

Whether a content belongs to the test is a function of its key alone. So two calls, two machines and two difficulties
agree about it without knowing of each other.
"""

import hashlib
import random
from dataclasses import dataclass
from typing import Any, Generic

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.task import Content, Item, Listed, Source, Split, Variant

TEST_SHARE = 0.5
"""Share of contents that are for tests. Half, since small tasks have few: 235 hands of three cards have a face."""

_TRIES = 1000  # draws without a single new item, before it is said that there are none


@dataclass(frozen=True, slots=True)
class Drawn(Generic[Content, Item]):
    """Items with where they came from.

    Attributes:
        items: The items.
        contents: The content of each.
        unsolvable: Contents that were passed over, since no item under the mappings can be made of them.
        distinct: Different contents among the items.
    """

    items: tuple[Item, ...]
    contents: tuple[Content, ...]
    unsolvable: int
    distinct: int


def side(key: str, test_share: float = TEST_SHARE) -> Split:
    """Which side of the split a content is on."""
    number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
    return "test" if number < test_share * 2**64 else "train"


def draw_items(
    source: Source[Content, Item],
    count: int,
    *,
    split: Split,
    variant: Variant,
    seed: int = 0,
    distinct: bool = True,
    test_share: float = TEST_SHARE,
) -> Drawn[Content, Item]:
    """Draw items of one side.

    Args:
        source: Where they come from.
        count: How many.
        split: The side.
        variant: Its mappings and difficulty.
        seed: The same contents come in the same order for the same seed, split and shift, whatever the mappings, as
            long as they can be posed under them.
        distinct: Prefer contents that were not drawn yet; they come again only where there are no others.
        test_share: Share of contents that are for tests.

    Returns:
        The items; fewer than `count` only of a source that has no more (`Listed`). There, the side is what the source
        says, and no content comes twice.

    Raises:
        WhatStuckError: If no content of that side can be posed under the mappings.
    """
    if isinstance(source, Listed):
        return _draw_listed(source, count, split=split, variant=variant, seed=seed)
    shown, scored, shift = variant.shown, variant.scored, variant.shift
    contents_rng = random.Random(f"{seed} {split} {sorted(shift.items())}")
    items: list[Item] = []
    contents: list[Content] = []
    seen: set[str] = set()
    unsolvable: set[str] = set()
    tries, drawn, fresh_only = 0, 0, distinct
    while len(items) < count:
        content = source.draw(contents_rng, shift)
        drawn += 1
        key = source.key(content)
        new = key not in seen
        tries += 1
        if side(key, test_share) == split and (new or not fresh_only):
            # a generator of its own: another mapping that takes more random numbers must not change later contents
            item = source.pose(content, shown, scored, random.Random(f"{seed} {drawn}"))
            if item is None:
                unsolvable.add(key)
            else:
                tries = 0
                seen.add(key)
                items.append(item)
                contents.append(content)
        if tries >= _TRIES:
            if not items:
                raise WhatStuckError(
                    f"no item of the {split} side can be solved under {shown.name!r}"
                    + (f" and {scored.name!r}" if scored != shown else "")
                    + f" (shift: {dict(shift) or 'none'}): change the mapping or the shift"
                )
            tries, fresh_only = 0, False
    return Drawn(tuple(items), tuple(contents), len(unsolvable), len(seen))


def _draw_listed(source: Any, count: int, *, split: Split, variant: Variant, seed: int) -> Drawn[Any, Any]:
    """Contents of a list in an order by the seed, until there are enough of them."""
    shown, scored = variant.shown, variant.scored
    listed = list(source.contents(split, variant.shift))
    random.Random(f"{seed} {split} {sorted(variant.shift.items())}").shuffle(listed)
    items: list[Any] = []
    contents: list[Any] = []
    unsolvable: set[str] = set()
    for number, content in enumerate(listed):
        if len(items) == count:
            break
        item = source.pose(content, shown, scored, random.Random(f"{seed} {number}"))
        if item is None:
            unsolvable.add(source.key(content))
        else:
            items.append(item)
            contents.append(content)
    if not items:
        raise WhatStuckError(
            f"variant {variant.name!r} has no item on the {split} side: "
            + ("none of its rows can be decided under the mappings" if listed else "the task's file has no such rows")
        )
    return Drawn(tuple(items), tuple(contents), len(unsolvable), len({source.key(content) for content in contents}))

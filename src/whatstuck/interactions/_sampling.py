"""Which masks a game of many players is asked for.

Uniform masks of many players all keep about half of the prompt and say nothing about nearly whole or nearly empty
ones, so half of the masks have a size drawn uniformly instead. Each mask comes with its complement: in pairs, odd
and even orders cannot pass for each other.
"""

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]

_UNIFORM_SHARE = 0.5


def sample_masks(n: int, count: int, rng: np.random.Generator) -> Bools:
    """Different masks, the empty and the full one first: drawn as `other_masks` draws.

    Returns:
        Bool (count, n).
    """
    return np.concatenate([_edges(n), other_masks(n, count - 2, _edges(n), rng)])


def _edges(n: int) -> Bools:
    return np.array([[False] * n, [True] * n])


def other_masks(n: int, count: int, known: Bools, rng: np.random.Generator) -> Bools:
    """Masks of the mixture, each followed by its complement, that are different and not among the known ones.

    Half of them are uniform over all masks; the others have a size uniform over 0 to n and are uniform at that size.

    Returns:
        Bool (count, n). There must be so many.
    """
    seen = set(map(bytes, np.packbits(known, axis=1)))
    found: list[Bools] = []
    while len(found) < count:
        uniform = rng.random((count, n)) < 0.5  # noqa: PLR2004 - a fair coin
        ranks = rng.random((count, n)).argsort(axis=1)
        sized = ranks < rng.integers(0, n + 1, size=(count, 1))
        drawn = np.where(rng.random((count, 1)) < _UNIFORM_SHARE, uniform, sized)
        for mask in np.stack([drawn, ~drawn], axis=1).reshape(-1, n):
            key = bytes(np.packbits(mask))
            if key not in seen and len(found) < count:
                seen.add(key)
                found.append(mask)
    return np.array(found, dtype=bool).reshape(-1, n)

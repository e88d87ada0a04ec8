"""How much of the answer is given away: AdaBack's search for the least help that a sample needs (arXiv 2506.18110).

Where a reply is long, a model that cannot do the task never sees a reward. So the beginning of a right reply is
revealed, and only the rest must be found; with success less is revealed the next time. Each sample has an interval of
its own, halved like a binary search by noisy answers.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class _Span:
    low: float
    high: float
    visits: int = 0


class PrefixSampler:
    """Draws the share of the answer to reveal, and learns from the rewards.

    Of a sample with the interval [low, high], a share is drawn uniformly. A mean reward below the threshold raises
    `low` to the share; any other lowers `high` to it, and `low` to 0. Now and then nothing is revealed; failing without
    help says nothing about how much is needed, so `low` then stays. A sample that was not seen yet begins with the
    moving average of the intervals of others.

    The paper does not say how fast that average moves in what we could read; 0.9 is ours.

    Args:
        seed: Seed of the draws; a draw depends on it, the sample and the number of its visit alone.
        threshold: Mean reward of a group from which on it counts as a success; the paper finds 0.1 to 0.9 alike.
        unaided: How often nothing is revealed.
        memory: Weight of the old average.

    >>> sampler = PrefixSampler(seed=0, unaided=0.0)
    >>> sampler.learn("a", 0.5, reward=1.0)
    >>> sampler.span("a"), sampler.span("b")
    ((0.0, 0.5), (0.0, 0.95))
    """

    def __init__(self, *, seed: int, threshold: float = 0.5, unaided: float = 0.1, memory: float = 0.9) -> None:
        self._seed = seed
        self._threshold = threshold
        self._unaided = unaided
        self._memory = memory
        self._spans: dict[str, _Span] = {}
        self._average = (0.0, 1.0)

    def span(self, name: str) -> tuple[float, float]:
        """The interval of a sample, from 0 (nothing is revealed) to 1 (everything)."""
        span = self._spans.get(name)
        return self._average if span is None else (span.low, span.high)

    def draw(self, name: str) -> float:
        """The share to reveal now; the same until `learn` is called."""
        span = self._spans.get(name)
        rng = random.Random(f"{self._seed} {name} {0 if span is None else span.visits}")
        if rng.random() < self._unaided:
            return 0.0
        low, high = self.span(name)
        return rng.uniform(low, high)

    def learn(self, name: str, share: float, *, reward: float) -> None:
        """Take in how it went.

        Args:
            name: The sample.
            share: What was revealed.
            reward: The mean over the group.
        """
        span = self._spans.setdefault(name, _Span(*self._average))
        if reward < self._threshold:
            span.low = max(span.low, share)
        else:
            span.low, span.high = 0.0, share
        span.visits += 1
        old, new = self._memory, 1 - self._memory
        low, high = self._average
        self._average = (old * low + new * span.low, old * high + new * span.high)

    def state(self) -> dict[str, Any]:
        """What it takes to go on, as JSON values."""
        spans = {name: [span.low, span.high, span.visits] for name, span in self._spans.items()}
        return {"average": list(self._average), "spans": spans}

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        low, high = state["average"]
        self._average = (low, high)
        self._spans = {name: _Span(float(a), float(b), int(visits)) for name, (a, b, visits) in state["spans"].items()}

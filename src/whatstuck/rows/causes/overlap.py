"""Prompts that share what sets them apart from the others: about the same thing, however they ask it.

This is for choosing few-shot examples. An example that asks the same in other words gives the answer away, or a wrong
one, and then the base model is not asked what it knows. Which rows ask the same (`questions.py`) is too strict for
that: here a prompt that is left out in vain costs nothing, for another one takes its place. Two prompts of one form
must not count as near, though, since these are the best examples. So words weigh by how few prompts have them: what
asks for the capital of something is shared by many, and Borduria by few.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from functools import lru_cache

from whatstuck.rows.causes.slots import content_words, slots_of

_SHARE = 0.5  # of the weight of the shorter prompt


class Overlap:
    """Which of these texts are near each other.

    Args:
        texts: All of them.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        different = {_words(text) for text in texts}  # a question that is asked often makes its subject no commonplace
        self._spread = Counter(word for words in different for word in words)
        self._count = max(len(different), 1)

    def near(self, first: str, second: str) -> bool:
        """Whether two texts share half of the weight of the one with less weight.

        A text without a word that sets it apart is near to all.
        """
        one, other = _words(first), _words(second)
        return self._weight(one & other) >= _SHARE * min(self._weight(one), self._weight(other))

    def _weight(self, words: Collection[str]) -> float:
        """Sum of (1 / (texts with the word) - 1 / (all texts))²: rare words decide, one that all have never does."""
        return sum((1 / max(self._spread[word], 1) - 1 / self._count) ** 2 for word in words)


@lru_cache(maxsize=1 << 16)
def _words(text: str) -> frozenset[str]:
    slots = slots_of(text)
    return frozenset(content_words(slots)) or frozenset(slots.words)

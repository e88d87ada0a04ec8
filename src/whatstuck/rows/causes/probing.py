"""What the base model knew about a row before any fine-tuning (SLiCK, Gekhman et al. 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Knowledge = Literal["highly_known", "maybe_known", "weakly_known", "unknown"]


@dataclass(frozen=True, slots=True)
class BaseAnswers:
    """What the base model answers to a row.

    Attributes:
        row_id: The row.
        knowledge: Category after Gekhman et al. 2024: greedy answers always, sometimes right; only drawn ones; none.
        greedy_rate: Share of prompts whose greedy answer is right.
        rate: Share of drawn answers that are right.
        shares: Normalized answer to its share among all drawn answers, right ones included.
        wrong: The most frequent wrong answer, normalized; empty if there is none.
        wrong_share: Its share.
        entropy: Entropy of the shares, divided by the logarithm of the number of draws: 0 always the same, 1 never.
        draws: Number of drawn answers.
    """

    row_id: str
    knowledge: Knowledge
    greedy_rate: float
    rate: float
    shares: Mapping[str, float]
    wrong: str
    wrong_share: float
    entropy: float
    draws: int

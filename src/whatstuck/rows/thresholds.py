"""Every number that decides about a row, in one place, with where it comes from.

"design" is our own choice, to be judged by `benchmarks/planted_causes.py`; 2604.10079 is the paper on incomplete
learning.
"""

from pydantic import BaseModel, ConfigDict, Field

PAPER_CHOICE = 1 - 0.5 ** (1 / 5)
"""Success rate, 0.129, below which five draws are more likely all wrong than not (the rule of 2604.10079 §3.1.3)."""


class Thresholds(BaseModel):
    """Numbers behind verdicts and causes.

    Attributes:
        screen_accuracy: A row below this share of right tokens is asked (design).
        screen_mads: So is one whose loss is this many median absolute deviations above the median (design).
        screen_likely: So is one whose whole answer, if it is short, has less than this probability (design).
        audit_share: Share of the others that is asked too, to estimate what the screen misses; 0: none (design).
        audit_least: Rows of that sample at least, as far as there are so many (design).
        first_samples: Answers drawn first; the paper's own rule looks at these (2604.10079 §3.1.3).
        samples: Answers in all where at most one of the first is right; 0 of 16 has an upper 95 % bound below 0.2.
        temperature: Of the finished model's answers (2604.10079 gives none; design).
        learned_rate: Success rate from which on a row whose greedy answer is right is learned (design).
        longest_answer: Tokens of an answer that is generated; longer ones are asked as a choice (design).
        longest_verifiable: The same where the checker judges other wordings than the gold one: numbers, contained
            texts, labels, or a judge of the user's (design).
        options: Options of a choice (2604.10079 §3.1.1).
        choice_unlearned: Probability of the right option of a choice up to which a row is unlearned (`PAPER_CHOICE`).
        choice_known: Probability of the right option, corrected for chance, from which on the base model tells it from
            others; from 0 to there it cannot be said (design).
        base_prompts: Few-shot prompts that the base model is asked with (Gekhman et al. 2024 use 10).
        base_shots: Examples in each (Gekhman et al. 2024).
        base_samples: Answers drawn per prompt, beside the greedy one (Gekhman et al. 2024 use 16).
        base_temperature: Of them (Gekhman et al. 2024).
        base_learned: Learned rows that the base model is asked about too, to see whether not knowing matters (design).
        committed: Share of the base model's answers that agree on one wrong answer: a belief (design).
        committed_right: The base model's success rate may be at most this for a belief (design).
        similarity: Cosine of two prompts that may ask the same (design; depends on the embedding).
        similarity_characters: The same for character n-grams (`benchmarks/similar_prompts.py`).
        opposing: Share of the votes on a question from which on opposing ones are a conflict where no wrong answer of
            the model speaks for or against it; from one half on they always are (design).
        lift: How many times more often than other rows of its kind a row must get the base model's answer, for that to
            be a belief about this row (design).
        early: Share of the training before which a row was last seen, for it to count as forgotten (design).
        drop: Fall of the probability of the answer from its best to its end, for it to count as forgotten (design).
        checkpoints: Checkpoints that it takes to see forgetting (design).
        falling: Relative fall of a row's loss over the last part of the training: still being learned (design).
        unfinished: Relative fall of the median loss over the end of the training (behind the last checkpoint in its
            first four fifths) from which on a training that left most rows wrong was too short as a whole (design).
        few_exposures: Share of the median number of exposures below which a row was seen rarely (design).
        attributable: Share of failures among rows with a trait that the trait must account for, compared with rows
            without it, to be named as their reason: one half is twice the risk (design).
        long_quantile: Rows above this quantile of length count as long (design).
        rare_group: Rows of their kind (same form of prompt) below which the kind is rare (design).
        ambiguous: Difference of two scores below which the primary cause is not clear (design).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    screen_accuracy: float = Field(default=0.9, ge=0, le=1)
    screen_mads: float = Field(default=2.0, ge=0)
    screen_likely: float = Field(default=0.8, ge=0, le=1)
    audit_share: float = Field(default=0.05, ge=0, le=1)
    audit_least: int = Field(default=30, ge=0)
    first_samples: int = Field(default=5, ge=1)
    samples: int = Field(default=16, ge=1)
    temperature: float = Field(default=0.7, gt=0)
    learned_rate: float = Field(default=0.8, ge=0, le=1)
    longest_answer: int = Field(default=32, ge=1)
    longest_verifiable: int = Field(default=512, ge=1)
    options: int = Field(default=4, ge=2, le=8)
    choice_unlearned: float = Field(default=PAPER_CHOICE, ge=0, le=1)
    choice_known: float = Field(default=0.2, gt=0, le=1)
    base_prompts: int = Field(default=4, ge=1)
    base_shots: int = Field(default=4, ge=0)
    base_samples: int = Field(default=8, ge=1)
    base_temperature: float = Field(default=0.5, gt=0)
    base_learned: int = Field(default=100, ge=0)
    committed: float = Field(default=0.6, ge=0, le=1)
    committed_right: float = Field(default=0.2, ge=0, le=1)
    similarity: float = Field(default=0.85, ge=0, le=1)
    similarity_characters: float = Field(default=0.5, ge=0, le=1)
    opposing: float = Field(default=0.25, ge=0, le=1)
    lift: float = Field(default=2.0, ge=1)
    early: float = Field(default=0.5, ge=0, le=1)
    drop: float = Field(default=0.1, ge=0, le=1)
    checkpoints: int = Field(default=4, ge=2)
    falling: float = Field(default=0.02, ge=0)
    unfinished: float = Field(default=0.1, ge=0, le=1)
    few_exposures: float = Field(default=0.5, ge=0, le=1)
    attributable: float = Field(default=0.5, ge=0, le=1)
    long_quantile: float = Field(default=0.8, ge=0, le=1)
    rare_group: int = Field(default=5, ge=0)
    ambiguous: float = Field(default=0.15, ge=0, le=1)

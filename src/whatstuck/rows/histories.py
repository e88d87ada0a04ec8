"""What became of every training row while the model learned: right or wrong, gained and lost, how sure, how often seen.

One statistic per idea of the literature, all from the tables of `trajectories/`. The trap is step 0. It is the base
model, before any fine-tuning: a row that is right there was not learned, and one that is lost from there was not
forgotten training data. So only the step from the base to the first checkpoint may count as learning; everything else
is about the checkpoints of the fine-tuning alone, and what the base did stands beside it (`right_before`).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from whatstuck.dynamics.bootstrap import RowBootstrap, divide
from whatstuck.errors import WhatStuckError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

_NUMBERS = ("nll", "token_accuracy", "mean_margin")
_LOST_AGAIN = 0.25  # share of a fall
_TINY = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """One row over the checkpoints. Arrays have one entry per step.

    Attributes:
        row_id: The row.
        tokens: Supervised tokens.
        steps: Steps of the checkpoints, ascending; step 0 is the base model.
        nll: Mean per supervised token, nats.
        token_accuracy: Share of supervised tokens that are the most likely ones.
        margins: Mean margin of the supervised tokens, logits.
        correct: All supervised tokens are the most likely ones.
        right_before: Whether the base model had the row right; None where there is no step 0.
        forgetting_events: Right at a checkpoint of the fine-tuning, wrong at the next (Toneva et al. 2019).
        learning_events: Wrong at a checkpoint, the base included, right at the next.
        first_learned_step: First checkpoint of the fine-tuning at which it is right; None if there is none.
        last_learned_step: The last such checkpoint.
        confidence: Mean of p = exp(-nll) over the checkpoints of the fine-tuning (Swayamdipta et al. 2020, with the
            geometric mean of the tokens' probabilities as p).
        variability: Standard deviation of the same.
        correctness: Number of checkpoints of the fine-tuning at which it is right.
        mean_margin: Mean of `margins` over the checkpoints of the fine-tuning (AUM, Pleiss et al. 2020).
        last_exposure_step: When it was last learned, as the last checkpoint knows it; None where that is not known.
        exposures: How often it was learned; None where that is not known.
    """

    row_id: str
    tokens: int
    steps: Ints
    nll: Floats
    token_accuracy: Floats
    margins: Floats
    correct: Bools
    right_before: bool | None
    forgetting_events: int
    learning_events: int
    first_learned_step: int | None
    last_learned_step: int | None
    confidence: float
    variability: float
    correctness: int
    mean_margin: float
    last_exposure_step: int | None
    exposures: int | None

    @property
    def probability(self) -> Floats:
        """Geometric mean of the probabilities of the supervised tokens, exp(-nll), per step."""
        return np.exp(-self.nll)

    @property
    def tuned(self) -> Bools:
        """Which steps belong to the fine-tuning: all but step 0."""
        return self.steps > 0

    @property
    def never_learned(self) -> bool:
        """Right at no checkpoint of the fine-tuning."""
        return self.correctness == 0

    def since(self, share: float) -> int | None:
        """Index of the last checkpoint at or before a share of the training.

        None where it is the last one, or lies so early (before half of that share) that it says little about what comes
        after. A share of 0 is the base, or the first checkpoint where there is none.
        """
        before = np.flatnonzero(self.steps <= share * self.steps[-1])
        at = int(before[-1]) if before.size else 0
        early = share > 0 and (not before.size or self.steps[at] < share / 2 * self.steps[-1])
        return None if early or at == len(self.steps) - 1 else at

    def fall(self, share: float) -> float:
        """Relative fall of the loss from the checkpoint at a share of the training (`since`) to its end.

        Returns:
            1 - (loss at the end) / (loss then): above 0 it fell. 0 where more than a quarter of what was gained is lost
            again, for then it does not go on falling; NaN where there is no such checkpoint.
        """
        start = self.since(share)
        if start is None or not np.isfinite(self.nll).all():
            return math.nan
        first, lowest, end = float(self.nll[start]), float(self.nll[start:].min()), float(self.nll[-1])
        if lowest < end < first and end - lowest > _LOST_AGAIN * (first - lowest):
            return 0.0
        return 1 - end / max(first, _TINY)


def histories(tables: Mapping[int, pa.Table]) -> dict[str, History]:
    """Histories of all rows that have a supervised token.

    Args:
        tables: Step to its table of `rows.trajectories.SCHEMA`. All hold the same rows, in any order.

    Returns:
        Row id to history, in the order of the last table. Averages over no checkpoint are NaN.

    Raises:
        WhatStuckError: If there is no table, two rows have one id, or tables hold different rows.
    """
    if not tables:
        raise WhatStuckError("no checkpoint has numbers of single rows: evaluate the rows at a checkpoint first")
    steps = sorted(tables)
    ids: list[str] = tables[steps[-1]]["row_id"].to_pylist()
    orders = {step: _order(tables[step], ids, step) for step in steps}

    def stack(name: str) -> Floats:
        """A column at all steps, `(rows, steps)`; null is NaN."""
        columns = [tables[step][name].cast(pa.float64()).to_numpy()[orders[step]] for step in steps]
        return np.stack(columns, axis=1).astype(np.float64)

    nll, accuracy, margins = map(stack, _NUMBERS)
    correct = np.nan_to_num(stack("correct")) == 1
    tuned = np.array(steps) > 0
    numbers = _summaries(np.array(steps), nll, margins, correct, tuned)
    last = tables[steps[-1]]
    tokens = last["tokens"].to_pylist()
    seen, times = last["last_exposure_step"].to_pylist(), last["exposures"].to_pylist()
    found: dict[str, History] = {}
    at = np.array(steps, dtype=np.int64)
    for i, row_id in enumerate(ids):
        if not tokens[i]:
            continue
        found[row_id] = History(
            row_id=row_id,
            tokens=tokens[i],
            steps=at,
            nll=nll[i],
            token_accuracy=accuracy[i],
            margins=margins[i],
            correct=correct[i],
            right_before=bool(correct[i, 0]) if steps[0] == 0 else None,
            last_exposure_step=seen[i],
            exposures=times[i],
            **{name: column[i] for name, column in numbers.items()},
        )
    return found


def _order(table: pa.Table, ids: list[str], step: int) -> Ints:
    """Where each of the ids stands in a table."""
    own: list[str] = table["row_id"].to_pylist()
    if len(set(own)) != len(own):
        raise WhatStuckError(f"two rows of step {step} have one id: give each row its own")
    if own == ids:
        return np.arange(len(ids))
    if set(own) != set(ids):
        raise WhatStuckError(
            f"step {step} has other rows than the last checkpoint: evaluate all steps on the same rows"
        )
    place = {row_id: i for i, row_id in enumerate(own)}
    return np.array([place[row_id] for row_id in ids])


def _summaries(steps: Ints, nll: Floats, margins: Floats, correct: Bools, tuned: Bools) -> dict[str, list[Any]]:
    """The statistics of `History` that have one number per row, each as a list."""
    right = correct[:, tuned]
    at = steps[tuned]
    ever: list[bool] = np.any(right, axis=1).tolist()
    count = right.shape[1]
    first = at[right.argmax(1)].tolist() if count else [None] * len(nll)
    last = at[count - 1 - right[:, ::-1].argmax(1)].tolist() if count else first
    probability = np.exp(-nll[:, tuned])
    empty = np.full(len(nll), np.nan)
    return {
        "forgetting_events": (right[:, :-1] & ~right[:, 1:]).sum(1).tolist(),
        "learning_events": (~correct[:, :-1] & correct[:, 1:]).sum(1).tolist(),
        "first_learned_step": [step if some else None for step, some in zip(first, ever, strict=True)],
        "last_learned_step": [step if some else None for step, some in zip(last, ever, strict=True)],
        "confidence": (probability.mean(1) if count else empty).tolist(),
        "variability": (probability.std(1) if count else empty).tolist(),
        "correctness": right.sum(1).tolist(),
        "mean_margin": (margins[:, tuned].mean(1) if count else empty).tolist(),
    }


@dataclass(frozen=True, slots=True)
class RecencySlope:
    """How much the time of the last exposure decides about a row at the end.

    Attributes:
        slope: Change of p = exp(-nll) at the end per whole training that a row was seen later (ordinary least
            squares); above 0, what was seen early has faded. NaN where it is not known.
        low: Lower end of its 95 % bootstrap interval over rows.
        high: Upper end.
        rows: Number of rows it rests on.
    """

    slope: float
    low: float
    high: float
    rows: int


def recency_slope(rows: Iterable[History], *, seed: int = 0) -> RecencySlope:
    """Slope of the final probability on the last exposure step, as a share of the last step.

    A shuffled training of whole epochs shows every row in its last epoch, so the slope says something about that epoch
    only. It is no proof: in a file that is ordered by difficulty, late rows differ from early ones for another reason.
    Where forgetting is the reason, a training in reversed order turns the sign.

    Args:
        rows: Histories; those without a known exposure are left out.
        seed: Seed of the bootstrap.
    """
    known = [row for row in rows if row.last_exposure_step is not None and math.isfinite(row.nll[-1])]
    if not known:
        return RecencySlope(math.nan, math.nan, math.nan, 0)
    when = np.array([row.last_exposure_step for row in known], dtype=np.float64) / float(known[0].steps[-1] or 1)
    final = np.exp(-np.array([row.nll[-1] for row in known]))
    moments = np.stack([when, final, when * when, when * final], axis=1)
    bootstrap = RowBootstrap(len(known), seed=seed)
    slope = _slope(moments.mean(0, keepdims=True))
    low, high = bootstrap.spread(_slope(bootstrap.weights @ moments / len(known)))
    return RecencySlope(float(slope[0, 0]), float(low[0]), float(high[0]), len(known))


def _slope(means: Floats) -> Floats:
    """Least squares from the means of x, y, xx and xy, `(draws, 4)`, as `(draws, 1)`; NaN without any spread of x."""
    x, y, xx, xy = means.T
    spread = xx - x * x
    return divide((xy - x * y)[:, None], np.where(spread > _TINY * np.maximum(xx, 1), spread, 0)[:, None])

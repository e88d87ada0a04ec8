"""How well planted causes are named and unlearned rows found: confusion matrix, macro-F1, precision and recall.

Rows of one entity fail together, so every interval is a bootstrap over entities. A row that the diagnosis calls learned
has no cause; that is an answer of its own, and always a wrong one for a row that did not stick.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from whatstuck.dynamics.bootstrap import RowBootstrap, divide
from whatstuck.rows.causes.names import PRECEDENCE, Cause

Floats = npt.NDArray[np.float64]

CLASSES: tuple[Cause, ...] = (*PRECEDENCE, "unexplained")
LEARNED = "learned"
"""What is said of a row that was not found."""
ANSWERS = (*CLASSES, LEARNED)


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Named:
    """One row whose cause is known.

    Attributes:
        entity: Its cluster.
        truth: The cause that was planted, and confirmed.
        said: The cause that is named, or `LEARNED`.
    """

    entity: str
    truth: Cause
    said: str


def confusion(rows: Iterable[Named]) -> Floats:
    """Counts `(len(CLASSES), len(ANSWERS))`: rows are truths, columns what is said."""
    found = np.zeros((len(CLASSES), len(ANSWERS)))
    for row in rows:
        found[CLASSES.index(row.truth), ANSWERS.index(row.said)] += 1
    return found


def macro_f1(counts: Floats) -> Floats:
    """Mean over classes of F1; classes of which there is no row are left out, and without any it is NaN.

    Args:
        counts: Confusion matrices `(..., len(CLASSES), len(ANSWERS))`.

    Returns:
        Shape `(...)`.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    truth, said = counts.sum(-1), counts[..., : len(CLASSES)].sum(-2)
    there = truth > 0
    total = np.where(there, divide(2 * hits, truth + said), 0.0).sum(-1)
    return np.asarray(divide(total, there.sum(-1).astype(np.float64)))


def score(rows: Sequence[Named], *, seed: int = 0) -> Estimate:
    """Macro-F1 with its interval over entities; NaN without rows."""
    entities = list(dict.fromkeys(row.entity for row in rows))
    if not entities:
        return Estimate(np.nan, np.nan, np.nan)
    counts = np.stack([confusion(row for row in rows if row.entity == entity) for entity in entities])
    bootstrap = RowBootstrap(len(entities), seed=seed)
    drawn = macro_f1(np.einsum("be,ecs->bcs", bootstrap.weights, counts))
    low, high = bootstrap.spread(drawn[:, None])
    return Estimate(float(macro_f1(counts.sum(0))), float(low[0]), float(high[0]))


def majority(rows: Sequence[Named]) -> list[Named]:
    """The same rows, all called what most of them are."""
    if not rows:
        return []
    most = Counter(row.truth for row in rows).most_common(1)[0][0]
    return [Named(row.entity, row.truth, most) for row in rows]


def share(hits: Sequence[bool], among: Sequence[bool], entities: Sequence[str], *, seed: int = 0) -> Estimate:
    """Share of the rows `among` that are `hits` too, with its interval over entities."""
    place = {entity: index for index, entity in enumerate(dict.fromkeys(entities))}
    if not place:
        return Estimate(np.nan, np.nan, np.nan)
    sums = np.zeros((2, len(place)))
    for hit, one, entity in zip(hits, among, entities, strict=True):
        sums[:, place[entity]] += (hit and one, one)
    values = RowBootstrap(len(place), seed=seed).ratio(sums[0][:, None], sums[1][:, None])
    return Estimate(*(float(np.squeeze(value)) for value in values))


def table_of(counts: Floats) -> str:
    """A confusion matrix as a Markdown table."""
    lines = [f"| planted \\ named | {' | '.join(ANSWERS)} | rows |", "|---" * (len(ANSWERS) + 2) + "|"]
    for name, row in zip(CLASSES, counts, strict=True):
        lines.append(f"| {name} | {' | '.join(f'{count:.0f}' for count in row)} | {row.sum():.0f} |")
    return "\n".join(lines)

"""What is usual among the rows of a training, so that a single one can be told from it.

A trait is a reason only where rows that have it fail more often than rows that do not: a base model that knows none of
the labels of a task says nothing about the few rows that were not learned. So traits are weighed by the attributable
share 1 - P(fails | without) / P(fails | with), which is one half where the trait doubles the risk. Rows that already
have another cause are left out of it.

The same holds for what the base model answers: one that says the same to every question of a kind believes nothing
about this row.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from whatstuck.rows.causes.probing import BaseAnswers
from whatstuck.rows.causes.slots import slots_of
from whatstuck.rows.histories import History
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.thresholds import Thresholds

FEWEST = 5
"""Rows on each side from which on two groups are compared."""
_FRAME_SHARE = 0.05  # words of this share of the prompts belong to their form
_FORMLESS = "*"
_LATE = 0.05  # share of the learned rows that are learned in the second half of a training that was still going on
_LATE_QUANTILE = 0.9
_END = 0.8  # share of the training from which on its end begins


@dataclass(frozen=True, slots=True)
class Cohort:
    """What is usual.

    Attributes:
        learned: Ids of learned rows.
        failed: Ids of rows that are not.
        exposures: Median number of exposures of learned rows; NaN where it is not known.
        long: Supervised tokens above which a row is long; NaN without histories.
        kinds: Form of the prompt per row.
        rare: Rows whose form of prompt is rare.
        late_nll: Loss below which most of the rows were that were learned in the second half of the training, when they
            were last wrong; NaN where hardly any was learned so late.
        unfinished: Relative fall of the median loss of all rows from the last checkpoint in the first four fifths of
            the training to its end. NaN where that lies too early, and where most rows are right at the end.
    """

    learned: frozenset[str]
    failed: frozenset[str]
    exposures: float
    long: float
    kinds: Mapping[str, str]
    rare: frozenset[str]
    late_nll: float
    unfinished: float

    def few(self, history: History | None, thresholds: Thresholds) -> bool | None:
        """Whether a row was seen rarely, compared with learned ones.

        None where exposures are not known, or most learned rows had none: the base model had them right, and nothing is
        rare compared with never.
        """
        if history is None or history.exposures is None or not self.exposures > 0:  # NaN, too
            return None
        return history.exposures <= thresholds.few_exposures * self.exposures

    def attributable(self, trait: Collection[str], among: Iterable[str]) -> float:
        """Share of the failures of rows with a trait that the trait accounts for.

        Args:
            trait: Ids of the rows that have it.
            among: Ids of the rows that are looked at; those neither learned nor failed are passed over.

        Returns:
            At most 1, below 0 where the trait protects; NaN with fewer than five rows on a side. Half a failure is
            added on each side, so that a side without any is not taken for certain.
        """
        sides = Counter(
            (row in trait, row in self.failed) for row in among if row in self.failed or row in self.learned
        )
        return _attributable(sides[True, True], sides[True, False], sides[False, True], sides[False, False])

    def attributable_unknown(self, bases: Mapping[str, BaseAnswers], among: Iterable[str]) -> float:
        """The same for rows that the base model does not know.

        Not all rows are asked, and learned ones less often. Each that is stands for as many of its verdict as were
        not, so the learned ones among `bases` must be a random sample.
        """
        among = [row for row in among if row in self.failed or row in self.learned]
        asked = [row for row in among if row in bases and bases[row].knowledge]  # None: it could not be said
        every, some = (Counter(row in self.failed for row in group) for group in (among, asked))
        sides = Counter((bases[row].knowledge == "unknown", row in self.failed) for row in asked)
        if some[False] < FEWEST or min(sides[side, True] + sides[side, False] for side in (True, False)) < FEWEST:
            return math.nan
        weight = {failed: every[failed] / some[failed] for failed in some}
        count = {side: weight.get(side[1], 0.0) * sides[side] for side in sides}
        order = ((True, True), (True, False), (False, True), (False, False))
        return _attributable(*(count.get(side, 0.0) for side in order))

    def usual_share(
        self, base: BaseAnswers, answer: str, bases: Mapping[str, BaseAnswers], alike: Collection[str]
    ) -> float:
        """How often the base model gives an answer to other rows of the kind, or else to all others.

        Of these, the rows that it does not know say what it answers when it does not know; what it answers to rows that
        it knows says nothing about that. They are taken where there are enough of them.

        Args:
            base: Its answers to the row.
            answer: The answer, normalized.
            bases: Its answers to all rows.
            alike: Rows that ask the same, and are no others.

        Returns:
            A mean share of answers; NaN with fewer than five other rows.
        """
        others = [
            other
            for row_id, other in bases.items()
            if row_id != base.row_id and row_id not in alike and other.form == base.form
        ]
        kind = self.kinds.get(base.row_id)
        known = kind not in {None, _FORMLESS}
        same = [other for other in others if self.kinds.get(other.row_id) == kind] if known else []
        among = same if len(same) >= FEWEST else others
        unknown = [other for other in among if other.knowledge == "unknown"]
        chosen = unknown if len(unknown) >= FEWEST else among
        if len(chosen) < FEWEST:
            return math.nan
        return sum(other.shares.get(answer, 0.0) for other in chosen) / len(chosen)


def cohort_of(
    rows: Sequence[TrainingRow],
    verdicts: Mapping[str, str | None],
    histories: Mapping[str, History],
    thresholds: Thresholds,
) -> Cohort:
    """What is usual among these rows.

    Args:
        rows: All training rows.
        verdicts: Row id to verdict; rows without one are neither learned nor failed.
        histories: Those of all rows.
        thresholds: What is long and what is rare.
    """
    learned = frozenset(row_id for row_id, verdict in verdicts.items() if verdict == "learned")
    failed = frozenset(row_id for row_id, verdict in verdicts.items() if verdict in {"unlearned", "unstable"})
    own = [histories[row_id] for row_id in learned if row_id in histories]
    seen = [history.exposures for history in own if history.exposures is not None]
    tokens = [history.tokens for history in histories.values()]
    kinds = forms([row.row.content for row in rows], thresholds.rare_group)
    counts = Counter(kinds)
    seldom = {kind for kind, count in counts.items() if count < thresholds.rare_group or kind == _FORMLESS}
    rare = {row.row_id for row, kind in zip(rows, kinds, strict=True) if kind in seldom}
    told_apart = len(rare) <= len(rows) / 2  # free text has no forms: then none is rare
    return Cohort(
        learned=learned,
        failed=failed,
        exposures=float(np.median(seen)) if seen else math.nan,
        long=float(np.quantile(tokens, thresholds.long_quantile)) if tokens else math.nan,
        kinds={row.row_id: kind for row, kind in zip(rows, kinds, strict=True)} if told_apart else {},
        rare=frozenset(rare) if told_apart else frozenset(),
        late_nll=_late(own),
        unfinished=_unfinished([histories[row.row_id] for row in rows if row.row_id in histories]),
    )


def forms(texts: Sequence[str], fewest: int) -> list[str]:
    """The form of each text: words that many texts have, everything else as a star.

    >>> forms([f"The colour of item {n} is" for n in range(9)], 3)[0]
    'the colour of item * is'
    """
    slots = [slots_of(text) for text in texts]
    spread = Counter(word for each in slots for word in set(each.words))
    least = max(fewest, _FRAME_SHARE * len(texts))
    found = []
    for each in slots:
        words: list[str] = []
        for word in each.words:
            kept = word if spread[word] >= least and word not in each.names and not word[0].isdigit() else _FORMLESS
            if kept != _FORMLESS or words[-1:] != [_FORMLESS]:
                words.append(kept)
        found.append(" ".join(words))
    return found


def _late(learned: Sequence[History]) -> float:
    """Loss that rows learned in the second half of the training had when they were last wrong."""
    losses = []
    for history in learned:
        wrong = np.flatnonzero(~history.correct)
        if wrong.size and history.correct[-1] and 2 * history.steps[wrong[-1]] >= history.steps[-1]:
            losses.append(float(history.nll[wrong[-1]]))
    if len(losses) < max(FEWEST, _LATE * len(learned)):
        return math.nan
    return float(np.quantile(losses, _LATE_QUANTILE))


def _unfinished(every: Sequence[History]) -> float:
    """Relative fall of the median loss at the end of a training in which most rows were not learned."""
    if not every or 2 * sum(bool(history.correct[-1]) for history in every) >= len(every):
        return math.nan
    begin = every[0].since(_END)
    losses = np.median([history.nll for history in every], axis=0)
    if begin is None or not np.isfinite(losses).all() or losses[begin] <= 0:
        return math.nan
    return float(1 - losses[-1] / losses[begin])


def _attributable(fails: float, holds: float, fails_without: float, holds_without: float) -> float:
    if min(fails + holds, fails_without + holds_without) < FEWEST:
        return math.nan
    risk = (fails + 0.5) / (fails + holds + 1)
    without = (fails_without + 0.5) / (fails_without + holds_without + 1)
    return 1 - without / risk

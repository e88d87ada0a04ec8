"""What probing may cost: rows, words and steps chosen to fit a share of the training time.

One table is timed on the untouched model, and a training step is guessed from a forward pass, because a step of the
training has not run yet and step 0 cannot be probed later. That settles rows and words for the whole run. When a few
steps have been measured, the number of late probes is settled too. Below a floor (4 rows, 6 words, the early steps)
nothing is left to see, so the floor is probed even where it costs more, and the log says how much more.
"""

import bisect
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from whatstuck.stopping.replay import LAST_EARLY

FLOOR_PLAYERS = 6
FLOOR_ROWS = 4
FLOOR_EVAL_ROWS = 32
EARLY = (0, 1, 2, 4, 8, LAST_EARLY)
"""The steps within which most of what training removes is gone; always probed."""
SETTLED_AFTER = 8
"""Training steps that are measured before the late probes are chosen."""
MOST_LATE = 24
_FEWEST_LATE = 4
_ROWS = (4, 6, 8, 12, 16, 24, 32)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is probed, and when.

    Attributes:
        players: Words per row.
        rows: Rows that are probed.
        eval_rows: Held-out rows scored for their loss.
        steps: Steps at which the model is probed.
        settled: Whether the late steps are chosen for good.
        notes: What was chosen, and why, for the log.
    """

    players: int
    rows: int
    eval_rows: int
    steps: tuple[int, ...]
    settled: bool
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For run.json."""
        return {**asdict(self), "steps": list(self.steps), "notes": list(self.notes)}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Plan":
        """As it was saved."""
        return cls(**{**saved, "steps": tuple(saved["steps"]), "notes": tuple(saved["notes"])})


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds, as measured on the untouched model.

    Attributes:
        table: Of one row, by number of players.
        evaluation: Of one held-out row.
        step: Of one training step, guessed from a forward pass.
    """

    table: Mapping[int, float]
    evaluation: float
    step: float

    def shared_by(self, processes: int) -> "Cost":
        """The same, where so many processes share the rows of a probe."""
        table = {players: seconds / processes for players, seconds in self.table.items()}
        return replace(self, table=table, evaluation=self.evaluation / processes)

    def probe(self, players: int, rows: int, eval_rows: int) -> float:
        """Of one probe."""
        return rows * self.table[players] + eval_rows * self.evaluation


def early_steps(max_steps: int) -> tuple[int, ...]:
    """The steps that are probed whatever it costs.

    >>> early_steps(100)
    (0, 1, 2, 4, 8, 16, 100)
    >>> early_steps(0)
    (0,)
    """
    return tuple(sorted({step for step in EARLY if step <= max_steps} | {max_steps}))


def spread(first: int, candidates: Sequence[int], count: int) -> tuple[int, ...]:
    """Up to `count` of the candidates after step `first`, evenly spaced, the last one among them.

    >>> spread(16, range(0, 101, 10), 3)
    (40, 70, 100)
    """
    later = candidates[bisect.bisect_right(candidates, first) :]
    if count >= len(later):
        return tuple(later)
    return tuple(later[-1 - round(index * len(later) / count)] for index in range(count))[::-1]


def fixed_plan(players: int, rows: int, eval_rows: int, steps: Sequence[int]) -> Plan:
    """A plan without a budget: what was asked for."""
    return Plan(players, rows, eval_rows, tuple(steps), settled=True)


def choose(
    cost: Cost,
    *,
    share: float,
    max_steps: int,
    players: int,
    rows: int,
    eval_rows: int,
    steps: Sequence[int] | None,
) -> Plan:
    """The most words and rows that fit the budget; the early steps only, until a few training steps were measured.

    Args:
        cost: What a probe costs.
        share: Probing may take this share of the training time.
        max_steps: Steps of the training.
        players: Words per row at most.
        rows: Rows at most.
        eval_rows: Held-out rows at most.
        steps: The steps, where the user named them.
    """
    levels = _levels(cost, players, rows, eval_rows)
    probes = len(steps) if steps is not None else len(early_steps(max_steps)) + _FEWEST_LATE
    budget = share * max_steps * cost.step
    best = next((level for level in reversed(levels) if probes * cost.probe(*level) <= budget), levels[0])
    words, chosen, held = best
    seconds = cost.probe(*best)
    note = (
        f"probing {chosen} rows with {words} words each, and {held} held-out rows: about {seconds:.2g} s a probe, and "
        f"a training step is guessed at {cost.step:.2g} s"
    )
    if probes * seconds > budget and max_steps:
        over = probes * seconds / (max_steps * cost.step)
        note += (
            f"; the least that shows anything is expected to take {over:.0%} of the training time, "
            f"more than the {share:.0%} asked for"
        )
    planned = tuple(steps) if steps is not None else early_steps(max_steps)
    settled = steps is not None or max_steps <= EARLY[-1]
    return Plan(words, chosen, held, planned, settled=settled, notes=(note,))


def settle(
    plan: Plan,
    *,
    share: float,
    max_steps: int,
    candidates: Sequence[int],
    probe_seconds: Sequence[float],
    step_seconds: Sequence[float],
) -> Plan:
    """Choose the late steps from what probes and training steps really took.

    Args:
        plan: The plan so far.
        share: Probing may take this share of the training time.
        max_steps: Steps of the training.
        candidates: Steps to choose from, ascending: where checkpoints are saved, for preference.
        probe_seconds: Of the probes so far.
        step_seconds: Of the training steps so far.
    """
    probe, step = statistics.median(probe_seconds), statistics.median(step_seconds)
    budget = share * max_steps * step
    promised = sum(probe_seconds) + probe * (len(plan.steps) - len(probe_seconds))
    count = max(0, min(MOST_LATE, int((budget - promised) / probe)))
    late = spread(EARLY[-1], candidates[: bisect.bisect_left(candidates, max_steps)], count)
    total = (promised + probe * len(late)) / (max_steps * step)
    note = (
        f"a training step takes {step:.2g} s and a probe {probe:.2g} s: {len(late)} late probes beside the early ones, "
        f"{total:.1%} of the training time"
    )
    if total > share:
        note += f", which exceeds the {share:.0%} asked for by {total - share:.1%}: the early steps alone take it"
    return replace(plan, steps=tuple(sorted({*plan.steps, *late})), settled=True, notes=(*plan.notes, note))


def _levels(cost: Cost, players: int, rows: int, eval_rows: int) -> list[tuple[int, int, int]]:
    """(players, rows, held-out rows) from the least to the most: rows first, then words, then rows."""
    known = sorted(cost.table)
    floor, most = known[0], max(n for n in known if n <= players)
    sizes = [size for size in _ROWS if size < rows] + [rows]
    few = [size for size in sizes if size <= 2 * FLOOR_ROWS]
    pairs = [(floor, size) for size in few or sizes[:1]]
    pairs += [(most, size) for size in sizes if size >= pairs[-1][1]] if most > floor else []
    pairs += [(floor, size) for size in sizes if size > pairs[-1][1]] if most == floor else []
    return [(n, size, min(eval_rows, max(FLOOR_EVAL_ROWS, 8 * size))) for n, size in pairs]

"""What of an arm's success survives in each variant, decided by intervals: kept, lost, partly, or it cannot be told.

An arm is looked at as it is at its last step, never at the step that is best on some variant: that would be chosen on
the very numbers that are reported (Table 1 of arXiv 2510.00237 is chosen so). A variant is compared with the training
wording at the same step. What the same replies would get right by chance is taken out first. The interval of the
quotient goes from the least of the one over the most of the other to the reverse, so it is wider than 95 %.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from whatstuck.rows.verdicts.intervals import Share

Record = Mapping[str, Any]
State = Literal["kept", "lost", "partly", "cannot tell", "not asked"]
Verdict = Literal[
    "follows instructions",
    "frozen",
    "loses both",
    "training wording only",
    "partly",
    "cannot do the task",
    "cannot tell",
    "not asked",
]

UNKNOWN = Share(math.nan, math.nan, math.nan)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Every number that decides.

    Attributes:
        able: Success above chance with the training wording below which an arm cannot do the task. What follows
            divides by it, and of a tenth too little can be lost to see it.
        kept: Share of the success with the training wording from which on a variant survives. The cured arms of
            Table 1 of arXiv 2510.00237 keep 0.91 and more; 0.85 of 300 items, where the training wording has all,
            just passes.
        lost: Share up to which it is lost. The frozen arms of that table keep 0 on most variants.
        wide: Width of an interval from which on it does not tell how much survives, though something does and
            something does not: half of 20 items, or five of six.
        ignores: Share that Fake must have to show that the old meaning is carried out: most of what the arm can do.
            The frozen arms of that table have 0.95 and more, our small models 0.8 and more.
        few_contents: Different contents below which a cell is called small. The interval tells how these few vary,
            not how much harder others are.
    """

    able: float = 0.1
    kept: float = 0.8
    lost: float = 0.2
    wide: float = 0.4
    ignores: float = 0.6
    few_contents: int = 100


THRESHOLDS = Thresholds()


@dataclass(frozen=True, slots=True)
class Cell:
    """One variant at the last step.

    Attributes:
        row: Its row of generalization.parquet.
        above: Success above chance, as a share of what there is above chance.
        survives: The same, divided by that of the training wording; NaN where the arm cannot do the task.
        state: What that amounts to.
    """

    row: Record
    above: Share
    survives: Share
    state: State


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm at its last step, and how it came there.

    Attributes:
        step: The last step.
        decoding: How the replies were made: greedy where there are such.
        able: `kept` if it can do the task with the training wording, `lost` if it cannot.
        fake: Whether what the instruction said in the training is carried out (`kept`) or not (`lost`).
        cells: By variant.
        history: All rows under this decoding, by step.
    """

    step: int
    decoding: str
    able: State
    fake: State
    cells: Mapping[str, Cell]
    history: Sequence[Record]

    def of(self, *kinds: str) -> dict[str, Cell]:
        """The variants of some kinds."""
        return {name: cell for name, cell in self.cells.items() if cell.row["kind"] in kinds}

    def together(self, kind: str) -> State:
        """What the variants of a kind amount to."""
        return _together(cell.state for cell in self.of(kind).values())

    @property
    def verdict(self) -> Verdict:
        """What is said of how it follows instructions."""
        if self.able != "kept":
            return "cannot do the task" if self.able == "lost" else "cannot tell"
        followed = self.together("instruction")
        if followed == "lost":
            names: dict[State, Verdict] = {"kept": "frozen", "lost": "loses both"}
            return names.get(self.fake, "training wording only")
        if followed == "kept":
            # no reply to Fake is right by both meanings: an arm with much of it ignores at least that instruction
            return "partly" if self.fake == "kept" else "follows instructions"
        return followed


def look(rows: Sequence[Record]) -> Arm:
    """Look at one arm.

    Args:
        rows: Its rows of generalization.parquet, at least one. NaN and None are both "not known".
    """
    decodings = [str(row["decoding"]) for row in rows]
    decoding = "greedy" if "greedy" in decodings else decodings[0]
    history = sorted((row for row in rows if row["decoding"] == decoding), key=lambda row: int(row["step"]))
    step = int(history[-1]["step"])
    last = [row for row in history if row["step"] == step]
    training = next((above_chance(row) for row in last if row["kind"] == "training"), UNKNOWN)
    able = _able(training)
    cells = {str(row["variant"]): _cell(row, training if able == "kept" else UNKNOWN) for row in last}
    fakes = [_fake(cell.survives) for cell in cells.values() if cell.row["kind"] == "fake"]
    return Arm(step, decoding, able, _together(fakes), cells, history)


def interval(row: Record, name: str) -> Share:
    """A share of a row with its interval: `success`, `validity` or `chance`."""
    low, high = ("low", "high") if name == "success" else (f"{name}_low", f"{name}_high")
    return Share(*(_number(row.get(column)) for column in (name, low, high)))


def above_chance(row: Record) -> Share:
    """Success above chance, as a share of what there is above chance (as Cohen's kappa, 1960).

    Chance that is not known is taken to be 0. The interval takes the least success with the most chance.
    """
    success, chance = interval(row, "success"), interval(row, "chance")
    if math.isnan(chance.value):
        return success
    return Share(
        _above(success.value, chance.value), _above(success.low, chance.high), _above(success.high, chance.low)
    )


def _above(success: float, chance: float) -> float:
    if math.isnan(success) or math.isnan(chance):
        return math.nan
    return max(-1.0, (success - chance) / max(1 - chance, 1e-9))  # all may be right by chance


def _able(training: Share) -> State:
    if training.low >= THRESHOLDS.able:
        return "kept"
    return "lost" if training.high < THRESHOLDS.able else "cannot tell"


def _cell(row: Record, training: Share) -> Cell:
    above = above_chance(row)
    if row["kind"] == "training":
        return Cell(row, above, UNKNOWN, _able(above))
    survives = quotient(above, training)
    return Cell(row, above, survives, _state(survives))


def quotient(one: Share, other: Share) -> Share:
    """One over the other, which is positive, with the widest interval that theirs allow."""
    low = one.low / (other.high if one.low >= 0 else other.low)
    high = one.high / (other.low if one.high >= 0 else other.high)
    return Share(one.value / other.value, low, high)


def _state(survives: Share) -> State:
    """Partly: something certainly survives and something certainly does not."""
    if survives.low >= THRESHOLDS.kept:
        return "kept"
    if survives.high <= THRESHOLDS.lost:
        return "lost"
    return _part(survives, 1.0)


def _part(survives: Share, most: float) -> State:
    narrow = survives.high - survives.low < THRESHOLDS.wide
    return "partly" if survives.low > 0 and survives.high < most and narrow else "cannot tell"


def _fake(survives: Share) -> State:
    if survives.low >= THRESHOLDS.ignores:
        return "kept"
    if survives.high <= THRESHOLDS.lost:
        return "lost"
    return _part(survives, THRESHOLDS.ignores)


def _together(states: Iterable[State]) -> State:
    """One word for several: partly if one is partly, or some survive and others do not, whatever the rest."""
    found = set(states)
    if len(found) <= 1:
        return found.pop() if found else "not asked"
    return "partly" if "partly" in found or {"kept", "lost"} <= found else "cannot tell"


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)

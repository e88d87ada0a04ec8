"""What of an arm's success survives in each variant, decided by intervals: kept, lost, partly, or it cannot be told.

An arm is looked at as it is at its last step, never at the step that is best on some variant: that would be chosen on
the very numbers that are reported (Table 1 of arXiv 2510.00237 is chosen so). A variant is compared with the training
wording at the same step. What the same replies would get right by chance is taken out first. The interval of the
quotient goes from the least of the one over the most of the other to the reverse, so it is wider than 95 %. Replies
whose check failed say nothing of the model: an interval holds whether they are right or wrong.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from whatstuck.rows.verdicts.intervals import Share, wilson

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
BEYOND = "beyond"
"""Kind of a harder variant whose instruction gives meanings beyond the range of the training's."""


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
        ignores: Share that Fake must have of the success with the training wording, or that must obey the old
            instruction of all replies, to show that the old meaning is carried out: most of what the arm can do.
            The frozen arms of that table have 0.95 and more, our small models 0.8 and more.
        least_contents: Different contents below which nothing is concluded from a cell: one alone would be worth more
            than a twentieth, and an interval over so few says little of others.
        few_contents: Different contents below which a cell is called small. The interval tells how these few vary,
            not how much harder others are.
    """

    able: float = 0.1
    kept: float = 0.8
    lost: float = 0.2
    wide: float = 0.4
    ignores: float = 0.6
    least_contents: int = 20
    few_contents: int = 100


THRESHOLDS = Thresholds()


@dataclass(frozen=True, slots=True)
class Cell:
    """One variant at the last step.

    Attributes:
        row: Its row of generalization.parquet.
        kind: What it asks about: that of its row, or `beyond`.
        above: Success above chance, as a share of what there is above chance, whatever failed checks hid.
        survives: The same, divided by that of the training wording; NaN where the arm cannot do the task.
        state: What that amounts to.
        old: Share of replies that obey the old instruction and not the one shown; NaN where no instruction is new.
    """

    row: Record
    kind: str
    above: Share
    survives: Share
    state: State
    old: Share = UNKNOWN


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm at its last step, and how it came there.

    Attributes:
        step: The last step.
        decoding: How the replies were made: greedy where there are such.
        able: `kept` if it can do the task with the training wording, `lost` if it cannot.
        fake: Whether what the instruction said in the training is carried out (`kept`) or not (`lost`), by Fake.
        obeys_old: Whether replies under new instructions obey the old one (`kept`) or not (`lost`).
        cells: By variant.
        history: All rows under this decoding, by step.
    """

    step: int
    decoding: str
    able: State
    fake: State
    obeys_old: State
    cells: Mapping[str, Cell]
    history: Sequence[Record]

    def of(self, *kinds: str) -> dict[str, Cell]:
        """The variants of some kinds."""
        return {name: cell for name, cell in self.cells.items() if cell.kind in kinds}

    def together(self, kind: str) -> State:
        """What the variants of a kind amount to."""
        return _together(cell.state for cell in self.of(kind).values())

    @property
    def frozen(self) -> list[str]:
        """Instruction variants that are lost each by itself, and whose replies obey the old instruction."""
        asked = self.of("instruction").items()
        return [name for name, cell in asked if cell.state == "lost" and _ignores(cell, cell.old) == "kept"]

    @property
    def verdict(self) -> Verdict:
        """What is said of how it follows instructions."""
        if self.able != "kept":
            return "cannot do the task" if self.able == "lost" else "cannot tell"
        followed = self.together("instruction")
        if followed == "lost":
            names: dict[State, Verdict] = {"kept": "frozen", "lost": "loses both"}
            return names.get(self.ignores, "training wording only")
        if followed == "kept":
            # no reply to Fake is right by both meanings: an arm with some of it ignores at least that instruction
            with_fake: dict[State, Verdict] = {"kept": "partly", "partly": "partly", "cannot tell": "cannot tell"}
            return with_fake.get(self.fake, "follows instructions")
        return followed

    @property
    def ignores(self) -> State:
        """Whether the old meaning is carried out: seen in Fake, or in what replies to new instructions obey.

        An answer that is right by the old meaning need not be there (a hand that was drawn for another one), and then
        Fake shows nothing; what replies obey shows no success.
        """
        either = [state for state in (self.fake, self.obeys_old) if state != "not asked"]
        order: tuple[State, ...] = ("kept", "partly", "cannot tell", "lost")
        return next((state for state in order if state in either), "not asked")


def beyond_range(variants: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Harder variants whose instruction gives other meanings than the training's.

    An arm that carries out the old meaning fails them whether or not it could do harder cases, so they do not tell.

    Args:
        variants: As run.json has them.
    """
    shown = [(str(one.get("kind")), str(one.get("name")), (one.get("shown") or {}).get("pairs")) for one in variants]
    usual = next((pairs for kind, _, pairs in shown if kind == "training"), None)
    return frozenset(name for kind, name, pairs in shown if kind == "harder" and usual and pairs and pairs != usual)


def look(rows: Sequence[Record], beyond: Collection[str] = ()) -> Arm:
    """Look at one arm.

    Args:
        rows: Its rows of generalization.parquet, at least one. NaN and None are both "not known".
        beyond: Harder variants that are looked at apart; see `beyond_range`.
    """
    decodings = [str(row["decoding"]) for row in rows]
    decoding = "greedy" if "greedy" in decodings else decodings[0]
    history = sorted((row for row in rows if row["decoding"] == decoding), key=lambda row: int(row["step"]))
    step = int(history[-1]["step"])
    last = [row for row in history if row["step"] == step]
    of_training = next((row for row in last if row["kind"] == "training"), None)
    training = UNKNOWN if of_training is None else above_chance(of_training)
    able = "cannot tell" if of_training is None else _able(of_training)
    cells = {}
    for row in last:
        name = str(row["variant"])
        kind = BEYOND if name in beyond else str(row["kind"])
        cells[name] = _cell(row, kind, training if able == "kept" else UNKNOWN)
    fakes = [_ignores(cell, cell.survives) for cell in cells.values() if cell.kind == "fake"]
    olds = [
        _ignores(cell, cell.old)
        for cell in cells.values()
        if cell.kind == "instruction" and not math.isnan(cell.old.value)
    ]
    return Arm(step, decoding, able, _together(fakes), _together(olds), cells, history)


def interval(row: Record, name: str) -> Share:
    """A share of a row with its interval: `success`, `validity`, `chance` or `old`; NaN where the row has none."""
    low, high = ("low", "high") if name == "success" else (f"{name}_low", f"{name}_high")
    return Share(*(_number(row.get(column)) for column in (name, low, high)))


def above_chance(row: Record) -> Share:
    """Success above chance, as a share of what there is above chance (as Cohen's kappa, 1960).

    Chance that is not known is taken to be 0. The interval takes the least success with the most chance. It goes from
    the low end with failed checks wrong, as the table counts them, to the high end with all of them right.
    """
    success, chance = _whatever_failed(row), interval(row, "chance")
    if math.isnan(chance.value):
        return success
    return Share(
        _above(success.value, chance.value), _above(success.low, chance.high), _above(success.high, chance.low)
    )


def _above(success: float, chance: float) -> float:
    if math.isnan(success) or math.isnan(chance):
        return math.nan
    return max(-1.0, (success - chance) / max(1 - chance, 1e-9))  # all may be right by chance


def _whatever_failed(row: Record) -> Share:
    """Success with an interval that holds whether replies whose check failed are right or wrong."""
    success = interval(row, "success")
    unknown = sum(_count(row, name) for name in ("failed", "timed_out")) / max(1, _count(row, "items"))
    if not unknown or math.isnan(success.value):
        return success
    contents = _count(row, "contents") or _count(row, "items")
    most = wilson(min(1.0, success.value + unknown) * contents, contents).high
    return Share(success.value, success.low, min(1.0, max(success.high + unknown, most)))


def _too_few(row: Record) -> bool:
    """Whether so few contents stand behind a cell that nothing is concluded from it."""
    return _count(row, "contents") < THRESHOLDS.least_contents


def _able(training: Record) -> State:
    above = above_chance(training)
    if _too_few(training):
        return "cannot tell"
    if above.low >= THRESHOLDS.able:
        return "kept"
    return "lost" if above.high < THRESHOLDS.able else "cannot tell"


def _cell(row: Record, kind: str, training: Share) -> Cell:
    above = above_chance(row)
    if kind == "training":
        return Cell(row, kind, above, UNKNOWN, _able(row))
    survives = quotient(above, training)
    state: State = "cannot tell" if _too_few(row) else _state(survives)
    return Cell(row, kind, above, survives, state, interval(row, "old"))


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


def _ignores(cell: Cell, share: Share) -> State:
    """Whether so large a share carries out the old meaning that the new instruction is ignored."""
    if _too_few(cell.row):
        return "cannot tell"
    if share.low >= THRESHOLDS.ignores:
        return "kept"
    if share.high <= THRESHOLDS.lost:
        return "lost"
    return _part(share, THRESHOLDS.ignores)


def _together(states: Iterable[State]) -> State:
    """One word for several: partly if one is partly, or some survive and others do not, whatever the rest."""
    found = set(states)
    if len(found) <= 1:
        return found.pop() if found else "not asked"
    return "partly" if "partly" in found or {"kept", "lost"} <= found else "cannot tell"


def _count(row: Record, name: str) -> int:
    return int(row.get(name) or 0)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)

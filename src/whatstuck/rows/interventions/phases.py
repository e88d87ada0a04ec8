"""What an arm is made of: phases of training, by ids of rows and texts. No model, no text, no file.

Whoever trains arms, needs these words only; `arms.py` says which arms test a cause.
"""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from whatstuck.errors import WhatStuckError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Order = Literal["shuffled", "given", "stretches"]
"""`shuffled` anew in every epoch; `given` as in the file; `stretches`: shuffled inside of each tenth of the file, so
that what comes early stays early."""

RERUN, MORE_COMPUTE, SHAM = "rerun", "more_compute", "sham"
CONTROLS = (RERUN, MORE_COMPUTE, SHAM)
"""Names of the arms that treat nothing."""
REMOVED = {"unlearned": "removed", "learned": "removed_learned"}
"""Role of a followed row, and that of the same row in an arm that takes it out of the training."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of training. Ids are those of rows, or of texts.

    Attributes:
        name: `before` (continued pretraining), `main` (the fine-tuning), `after` (it goes on).
        rows: What is trained, as the file has it; what stands there twice is trained twice as often.
        steps: Optimizer steps.
        order: See `Order`.
        beside: Others that are mixed in, shuffled.
        share: Share of the draws that come from `rows`; the rest from `beside`.
        apart: Groups of rows of which no two are in one step (Alg. 3 of the paper).
        resample: `forgotten`: rows that were right and are wrong are drawn more often until the next check (our form
            of Alg. 4); `random`: as many others are, chosen by chance.
        spared: Rows that `random` never chooses.
        constant: A small constant learning rate instead of the schedule.
        watched: `steps` are the most there may be: after every epoch over `rows` the loss of these is looked at, and
            the weights of the last epoch before it rose are taken (Eq. 7 of the paper).
        like: Name of the arm whose number of steps in this phase is taken, at most `steps`.
    """

    name: Literal["before", "main", "after"]
    rows: tuple[str, ...]
    steps: int
    order: Order = "shuffled"
    beside: tuple[str, ...] = ()
    share: float = 1.0
    apart: tuple[tuple[str, ...], ...] = ()
    resample: Literal["never", "forgotten", "random"] = "never"
    spared: tuple[str, ...] = ()
    constant: bool = False
    watched: tuple[str, ...] = ()
    like: str = ""


@dataclass(frozen=True, slots=True)
class Arm:
    """One training.

    Attributes:
        name: `rerun`, `more_compute`, `sham`, or the cause that is treated.
        phases: What is trained, one after the other, each from where the last one ended.
        removed: Rows that the arm takes out of the training. What it does to the rows that they opposed is right
            partly by construction.
        whole: Rows that are trained as they are asked, whatever the trainer made of them.
        note: What is done, in one sentence.
    """

    name: str
    phases: tuple[Phase, ...]
    removed: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Original:
    """The training whose rows did not stick, and what there is to change it with.

    Attributes:
        rows: Ids of the rows that were trained, in file order.
        steps: Its optimizer steps.
        batch: Rows per step.
        order: Its order.
        conflicts: Groups of rows that ask the same, as pairs of row and (normalized) answer, in file order.
        kept: Rows whose answer wins in their group; without one it is the most frequent answer, of equally frequent
            ones the first in the file.
        ill_fed: Rows that were not trained as they are asked: cut, masked, or left out.
        supporting: Ids of texts that hold what the rows lack.
        general: Ids of texts about anything.
        watched: Rows that were not trained, whose loss says how long to go on.
    """

    rows: tuple[str, ...]
    steps: int
    batch: int
    order: Order = "shuffled"
    conflicts: tuple[tuple[tuple[str, str], ...], ...] = ()
    kept: frozenset[str] = frozenset()
    ill_fed: tuple[str, ...] = ()
    supporting: tuple[str, ...] = ()
    general: tuple[str, ...] = ()
    watched: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.rows or self.steps < 1 or self.batch < 1:
            raise WhatStuckError("a training without rows or steps cannot be repeated: check what was trained")

    @property
    def epoch(self) -> int:
        """Steps of one epoch."""
        return math.ceil(len(self.rows) / self.batch)


@dataclass(frozen=True, slots=True)
class Options:
    """How treatments are made.

    Attributes:
        conflicts: `remove` the opposing votes, or `separate` them.
        supporting_share: Share of supporting texts in continued pretraining (Eq. 5 of the paper: 0.2).
        supporting_passes: How often each supporting text is seen.
        more_epochs: Epochs that the training may go on for.
    """

    conflicts: Literal["remove", "separate"] = "remove"
    supporting_share: float = 0.2
    supporting_passes: int = 2
    more_epochs: int = 3


class Runner(Protocol):
    """Trains arms; what trains them, and on what machine, is its own business."""

    def run(self, arm: Arm, seed: int) -> "AbstractContextManager[PreTrainedModel]":
        """The trained model in eval mode, good inside of the block only.

        An arm whose phase is `like` that of another one is run after it, with the same seeds.
        """
        ...

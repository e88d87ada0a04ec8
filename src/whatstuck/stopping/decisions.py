"""What a rule is and what it says.

A rule is a pure function of the metrics up to the present step. It holds no state, so a training that was killed and
resumed decides the same, and a finished run can be replayed under any rule.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from whatstuck.stopping.history import History

Action = Literal["continue", "keep", "stop"]
Kind = Literal["ours", "evaluation loss", "plain", "hindsight"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a rule says at a step.

    Attributes:
        action: `keep`: the present step is the best so far. `stop`: stop now and keep `keep_step`. Else `continue`.
        keep_step: The best step so far; None if the rule cannot tell.
        reason: One plain sentence, with numbers.
    """

    action: Action
    keep_step: int | None
    reason: str


class Rule(Protocol):
    """Says at every probe whether to go on.

    Attributes:
        name: Short, for tables.
        kind: `ours` (interaction signals), `evaluation loss` (what held-out rows say), `plain` (neither), or
            `hindsight`: looks at rows that never choose, so it is no rule for a training, only a bound.
    """

    @property
    def name(self) -> str:
        """Short, for tables."""
        ...

    @property
    def kind(self) -> Kind:
        """What the rule rests on."""
        ...

    def __call__(self, history: History) -> Decision:
        """Decide at the last step of the history."""
        ...


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a rule would have done to a training.

    Attributes:
        keep_step: The step it keeps when it stops or the training ends; None if it cannot tell.
        stop_step: The step where it stops; None if it never does.
        reason: Its sentence at that moment.
    """

    keep_step: int | None
    stop_step: int | None
    reason: str

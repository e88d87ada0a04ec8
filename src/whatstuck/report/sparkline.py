"""A row's trajectory as a small picture: its loss over checkpoints, where it was right, when it was last trained on.

Only path data is made here. A point is a stroke of no length with round ends, so that all points of a kind are one
short path, which a script can set without drawing anything.
"""

import math
from collections.abc import Sequence

from whatstuck.report.reading_rows import Moment
from whatstuck.report.svg import step_axis

WIDTH, HEIGHT = 120, 32  # of the picture's view box
_EDGE = 4
_MOST_POINTS = 16


class Sparkline:
    """Draws rows over the same checkpoints.

    Args:
        steps: Checkpoints, ascending.
    """

    def __init__(self, steps: Sequence[int]) -> None:
        self._steps = tuple(steps)
        self._place = step_axis(steps, width=WIDTH).place if steps else None

    def paths(self, moments: Sequence[Moment | None], seen: int | None) -> dict[str, str]:
        """Path data by name: `line`, `right`, `wrong`, `seen`; those that are empty are left out.

        Args:
            moments: The row at each checkpoint. Of very many, those at even distances are drawn, and the last.
            seen: Step at which the row was last trained on.
        """
        pairs = [
            (step, m) for step, m in zip(self._steps, moments, strict=False) if m is not None and m.nll is not None
        ]
        every = max(1, math.ceil(len(pairs) / _MOST_POINTS))
        pairs = [pair for index, pair in enumerate(pairs) if (len(pairs) - 1 - index) % every == 0]
        if not pairs:
            return {}
        top = max(moment.nll or 0.0 for _, moment in pairs) or 1.0
        points = [
            (self._x(step), round(HEIGHT - _EDGE - (moment.nll or 0.0) / top * (HEIGHT - 2 * _EDGE)), moment.right)
            for step, moment in pairs
        ]
        paths = {
            "line": "M" + "L".join(f"{x} {y}" for x, y, _ in points),
            "right": "".join(f"M{x} {y}h0" for x, y, right in points if right),
            "wrong": "".join(f"M{x} {y}h0" for x, y, right in points if right is False),
        }
        if seen is not None and self._steps[0] <= seen <= self._steps[-1]:
            paths["seen"] = f"M{self._x(seen)} 1v{HEIGHT - 2}"
        return {name: data for name, data in paths.items() if data}

    def _x(self, step: float) -> int:
        share = self._place(step) if self._place is not None else 0.5
        return round(_EDGE + share * (WIDTH - 2 * _EDGE))

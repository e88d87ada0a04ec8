"""What two runs can be compared on: the same rows with the same words masked, explained in the same way.

How closely an explanation fits (the misfit) follows from the output's range over all rows of a run. Two runs that
probed other rows as well would thus be explained to different misfits, and one checkpoint would differ from itself.
So where the rows differ, the shared ones are extracted again by themselves, from the value tables on disk.
"""

from collections import Counter

import numpy as np
import numpy.typing as npt
import torch

from whatstuck.dynamics.certainty import Ranges
from whatstuck.dynamics.explaining import dense
from whatstuck.dynamics.probing import effects_of, ranges_of
from whatstuck.dynamics.sides import Side
from whatstuck.interactions.extraction import extract_interactions

Floats = npt.NDArray[np.float64]


class Shared:
    """The rows that two runs share, and the interactions of these rows.

    Args:
        a: One run.
        b: The other.

    Attributes:
        row_ids: Ids of the shared rows, sorted.
        reasons: Why other rows are not shared, with their number.
        obstacle: Why no interactions can be compared, in one line; None where they can.
        again: Whether interactions are extracted again; if not, they are those on disk.
    """

    def __init__(self, a: Side, b: Side) -> None:
        self.a, self.b = a, b
        self.row_ids, self.reasons = _shared_rows(a, b)
        self.obstacle = self._obstacle()
        self.again = (
            self.obstacle is None
            and any(len(side.rows) > len(self.row_ids) for side in (a, b))
            and all(side.tables(step) is not None for side in (a, b) for step in {0, side.step})
        )

    def explained(self, side: Side, step: int, *, certainty: bool = True) -> tuple[Floats, Ranges | None]:
        """Interactions of a step, float64 `(rows, 2, 2^n)`, and their ranges where the run has ranges.

        Args:
            side: One of the two runs.
            step: A step that it has.
            certainty: Whether ranges are wanted.
        """
        values = self.values(side, step) if self.again else None
        if values is None:
            return self._stored(side, step)
        tables, setting = side.tables(step), side.setting
        reference = values if setting.scale == "step" else self.values(side, 0)
        ranged = certainty and setting.certainty
        found = extract_interactions(
            torch.from_numpy(values),
            **setting.options(scale_of(values if reference is None else reference)),
            certainty=ranged,
            noise_floor=tables.noise_floor if ranged and tables is not None else 0.0,
        )
        return dense(found, ranged=ranged)

    def values(self, side: Side, step: int) -> Floats | None:
        """Value tables `(rows, 2^n)` of the shared rows; None where the run holds none."""
        tables = side.tables(step)
        if tables is None:
            return None
        ids = list(side.rows)
        places = {ids[index]: place for place, index in enumerate(tables.row_index)}
        found: Floats = tables.values.numpy()[[places[row_id] for row_id in self.row_ids]]
        return found

    def _stored(self, side: Side, step: int) -> tuple[Floats, Ranges | None]:
        table = side.interactions(step, self.row_ids)
        positions = {row_id: index for index, row_id in enumerate(self.row_ids)}
        where = (side.setting.name, positions, len(self.row_ids), len(side.rows[self.row_ids[0]]["players"]))
        return effects_of(table, *where), ranges_of(table, *where)

    def _obstacle(self) -> str | None:
        a, b = self.a, self.b
        names = [side.setting.name for side in (a, b)]
        whole = [bool(side.section["settings"].get("whole_target")) for side in (a, b)]
        if names[0] != names[1]:
            return f"The interactions were extracted in different ways and cannot be compared: {names[0]}; {names[1]}."
        if whole[0] != whole[1]:
            return "The interactions cannot be compared: one run scores whole answers, the other their first token."
        if not self.row_ids:
            counts = [next((len(row["players"]) for row in side.rows.values()), 0) for side in (a, b)]
            if counts[0] != counts[1]:
                return f"No row is shared: one run masks {counts[0]} words of each prompt, the other {counts[1]}."
            why = ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common())
            return (
                f"No row is shared ({why}): probe the same data file with the same number of words and the same seed."
            )
        for side in (a, b):
            if not side.has(side.step):
                return f"The interactions of step {side.step} of {side.name} are not in its folder."
        return None


def scale_of(values: Floats) -> float:
    """Mean |v(N) - v(empty)| over rows of value tables `(rows, 2^n)`: the range of the output, in log-odds."""
    return float(np.abs(values[:, -1] - values[:, 0]).mean())


def _shared_rows(a: Side, b: Side) -> tuple[list[str], Counter[str]]:
    """Two models render a prompt differently, so rows are held together by their id and the text of their words."""
    shared, reasons = [], Counter[str]()
    for row_id in sorted(a.rows.keys() | b.rows.keys()):
        if row_id not in a.rows or row_id not in b.rows:
            reasons["probed in one run only"] += 1
            continue
        first, second = a.rows[row_id], b.rows[row_id]
        words, others = ([player["text"] for player in row["players"]] for row in (first, second))
        if len(words) != len(others):
            reasons["another number of words masked"] += 1
        elif words != others:
            reasons["other words masked"] += 1
        elif first["target_text"].strip() != second["target_text"].strip():
            reasons["another answer"] += 1
        else:
            shared.append(row_id)
    return shared, reasons

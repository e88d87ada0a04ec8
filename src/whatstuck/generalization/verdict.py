"""The verdict on every arm of a task: frozen, follows instructions, survives other wording, transfers to harder cases.

Whether it cannot be told is a verdict too. `survival` holds the numbers that decide, `verdict_words` says them.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.survival import BEYOND, THRESHOLDS, Arm, Cell, Record, State, interval, look
from whatstuck.generalization.verdict_words import caveats, sentences
from whatstuck.rows.verdicts.intervals import Share

_YES_OR_NO: Mapping[State, str] = {"kept": "yes", "lost": "no"}


def judge(rows: Sequence[Record], *, beyond: Collection[str] = ()) -> dict[str, Any]:
    """Judge every arm of one task, each at its last step.

    Args:
        rows: Rows of generalization.parquet (`schemas.GENERALIZATION`); NaN and None are both "not known". Greedy
            replies decide where there are any.
        beyond: Harder variants that give other meanings than the training's (`survival.beyond_range`): they do not
            count for `transfer`.

    Returns:
        What run.json holds, and what goes through JSON unchanged: what is not known is None. By arm in `arms`:

        - `step`, `decoding`: what it was judged by;
        - `verdict`: `follows instructions`; `frozen` (the training wording only, and the old meaning is carried out
          under a new instruction), `loses both` (neither the new nor the old meaning), `training wording only`
          (neither Fake nor what replies obey tells which); `partly`; `cannot do the task`; `cannot tell`; `not asked`;
        - `fake`, `old`, `wording`, `transfer`, `beyond`: whether the old meaning is carried out in Fake, whether
          replies to new instructions obey the old one instead, whether other wordings are followed, whether harder
          cases are solved under the training's meanings, whether meanings beyond the range of the training are
          followed: `yes`, `partly`, `no`, `cannot tell`, `not asked`;
        - `numbers`: by variant, `kind` (that of the row, or `beyond`), `state`, `success`, `above_chance`, `survives`
          (its quotient to the training wording), `validity`, `chance`, `old` (each [value, low, high]), `items`,
          `contents`;
        - `sentences`: the same in words.

        Besides `sentences` of all arms, `caveats` (why not to read too much into it) and `thresholds`.

    Raises:
        WhatStuckError: If the rows are of several tasks.
    """
    tasks = sorted({str(row["task"]) for row in rows})
    if len(tasks) > 1:
        raise WhatStuckError(f"the rows are of several tasks ({', '.join(tasks)}): judge one task at a time")
    by_arm: dict[str, list[Record]] = {}
    for row in rows:
        by_arm.setdefault(str(row["arm"]), []).append(row)
    arms = {name: look(of_arm, beyond) for name, of_arm in by_arm.items()}
    said = {name: sentences(arm) for name, arm in arms.items()}
    several = len(arms) > 1
    return {
        "arms": {name: _entry(arm, said[name]) for name, arm in arms.items()},
        "sentences": [f"{name}: {one}" if several else one for name in arms for one in said[name]],
        "caveats": caveats(arms),
        "thresholds": asdict(THRESHOLDS),
    }


def _entry(arm: Arm, said: Sequence[str]) -> dict[str, Any]:
    return {
        "step": arm.step,
        "decoding": arm.decoding,
        "verdict": arm.verdict,
        "fake": _yes_or_no(arm.fake),
        "old": _yes_or_no(arm.obeys_old),
        "wording": _yes_or_no(arm.together("wording")),
        "transfer": _yes_or_no(arm.together("harder")),
        "beyond": _yes_or_no(arm.together(BEYOND)),
        "numbers": {name: _numbers(cell) for name, cell in arm.cells.items()},
        "sentences": list(said),
    }


def _yes_or_no(state: State) -> str:
    return _YES_OR_NO.get(state, state)


def _numbers(cell: Cell) -> dict[str, Any]:
    row = cell.row
    return {
        "kind": cell.kind,
        "state": cell.state,
        "success": _listed(interval(row, "success")),
        "above_chance": _listed(cell.above),
        "survives": _listed(cell.survives),
        "validity": _listed(interval(row, "validity")),
        "chance": _listed(interval(row, "chance")),
        "old": _listed(cell.old),
        "items": row["items"],
        "contents": row["contents"],
    }


def _listed(share: Share) -> list[float | None]:
    return [None if math.isnan(value) else value for value in (share.value, share.low, share.high)]

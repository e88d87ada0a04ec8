"""What the statistics of one cause mean, in words and as the JSON that the page reads."""

import math
from collections.abc import Mapping
from typing import Any

from whatstuck.rows.interventions.effects import Effect, beats, strongest
from whatstuck.rows.interventions.panels import Triple
from whatstuck.rows.interventions.phases import CONTROLS, RERUN

Json = dict[str, Any]


def as_json(effect: Effect, notes: Mapping[str, str]) -> Json:
    """One entry of the section `interventions` of run.json.

    Args:
        effect: The statistics.
        notes: Arm to what it did.
    """
    control = strongest(effect, CONTROLS)
    return {
        "verdict": effect.verdict,
        "effect": triple(effect.effect),
        "specificity": triple(effect.specificity),
        "collateral": triple(effect.collateral),
        "removed": triple(effect.removed),
        "given_up": triple(effect.given_up),
        "arms": {
            name: {
                "recovery": triple(arm.recovery),
                "paraphrases": triple(arm.paraphrases),
                "collateral": triple(arm.collateral),
                "rows": arm.rows,
                "seeds": arm.seeds,
                "note": notes.get(name, ""),
            }
            for name, arm in effect.arms.items()
        },
        "comparisons": [
            {
                "arm": one.arm,
                "difference": triple(one.difference),
                "only_treated": one.only_treated,
                "only_other": one.only_other,
                "p_value": _number(one.p_value),
                "q_value": _number(one.q_value),
            }
            for one in effect.comparisons
        ],
        "p_value": None if control is None else _number(control.p_value),
        "q_value": None if control is None else _number(control.q_value),
        "rows_for_power": _number(effect.rows_for_power),
        "sentences": sentences(effect),
    }


def sentences(effect: Effect) -> list[str]:
    """The findings in words."""
    treated = effect.arms.get(effect.cause)
    if treated is None or not treated.rows:
        return ["No row of this cause is compared: the treatment takes all of them out of the training."]
    found = [
        f"The treatment recovers {_share(treated.recovery)} of {treated.rows} rows in {_count(treated.seeds)}.",
    ]
    control = strongest(effect, CONTROLS)
    if control is not None:
        found.append(
            f"The best control ({_words(control.arm)}) recovers {_share(effect.arms[control.arm].recovery)}: the "
            f"effect is {_points(effect.effect)} (q = {_p(control.q_value)})."
        )
    if math.isnan(effect.specificity[0]):
        found.append("No other cause's treatment was tried, so nothing says that it was this cause.")
    else:
        found.append(f"Against treatments of other causes it gains {_points(effect.specificity)}.")
    if not math.isnan(treated.paraphrases[0]):
        found.append(f"Asked in other words, {_share(treated.paraphrases)} of them are right.")
    if not math.isnan(effect.removed[0]):
        found.append(
            f"Rows that the treatment takes out of the training are compared in no arm; {_share(effect.removed)} of "
            "them are right after it. That their opponents recover is partly built in."
        )
    if not math.isnan(effect.given_up[0]):
        found.append(f"Of the learned rows that it takes out, it loses {_share(effect.given_up)}.")
    if not math.isnan(effect.collateral[0]):
        found.append(f"Rows that were learned and are lost: {_points(effect.collateral)} compared with a plain re-run.")
    beaten = control is not None and beats(effect.effect, control)
    alone = beaten and math.isnan(effect.specificity[0])
    found.append(_ALONE if alone else _VERDICTS[effect.verdict])
    if effect.verdict == "inconclusive" and not beaten and not math.isnan(effect.rows_for_power):
        found.append(
            f"An effect of this size takes about {int(effect.rows_for_power)} rows per arm to be seen with 80 % power."
        )
    if treated.seeds < 2:  # noqa: PLR2004 - one training says nothing about trainings
        found.append("One training per arm: the intervals do not know how much chance there is in a training.")
    return found


_ALONE = (
    "This is inconclusive all the same: the treatment beats every control, but no treatment "
    "of another cause was tried on these rows (`--others`)."
)
_VERDICTS = {
    "supported": "This supports the cause: the treatment beats the best control and other causes' treatments.",
    "contradicted": "This contradicts the cause: another arm recovers more.",
    "inconclusive": "This is inconclusive: the intervals do not tell the treatment from the others.",
}


def triple(value: Triple) -> list[float | None] | None:
    """Value, low and high as JSON: NaN is null, and null alone where nothing is known."""
    return None if math.isnan(value[0]) else [_number(part) for part in value]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _share(value: Triple) -> str:
    interval = "" if math.isnan(value[1]) else f" ({100 * value[1]:.0f} to {100 * value[2]:.0f} %)"
    return f"{100 * value[0]:.0f} %{interval}"


def _points(value: Triple) -> str:
    interval = "" if math.isnan(value[1]) else f" ({100 * value[1]:+.0f} to {100 * value[2]:+.0f})"
    return f"{100 * value[0]:+.0f} points{interval}"


def _p(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.2g}"


def _count(seeds: int) -> str:
    return "one training" if seeds == 1 else f"{seeds} trainings"


def _words(arm: str) -> str:
    return "a plain re-run" if arm == RERUN else arm.replace("_", " ")

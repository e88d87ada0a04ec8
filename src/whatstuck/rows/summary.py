"""What the rows of a run amount to: how many did not stick, by our rule and the paper's, and how sure that is."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from whatstuck.rows.causes.names import PRECEDENCE
from whatstuck.rows.histories import History
from whatstuck.rows.verdicts.intervals import Share
from whatstuck.rows.verdicts.rule import miss_rate, share_unlearned
from whatstuck.runs import Json

CONVERGED = 0.01
"""Relative change of the mean loss over the last epoch below which a training has converged (design)."""

_NEAR = 0.25  # epochs that a checkpoint may come after the beginning of the last one
_FAR = 2.0  # epochs before the end: from there, nothing is said of the last one


def summary_of(
    verdicts: Sequence[Mapping[str, Any]],
    causes: Sequence[Mapping[str, Any]],
    histories: Mapping[str, History],
    epochs: Mapping[int, float],
) -> Json:
    """The section `summary` of run.json; docs/run-folder.md describes it.

    Args:
        verdicts: Records of verdicts.parquet.
        causes: Records of unlearned.parquet.
        histories: By row id.
        epochs: Step to epoch, as far as known.
    """
    counts = Counter(record["verdict"] for record in verdicts)
    rest = sum(not record["asked_because"] for record in verdicts)
    known = [record for record in verdicts if record["verdict"] != "not_asked"]

    def share(holds: str) -> Share:
        judged = [r for r in known if holds != "paper" or r.get("paper_unlearned") is not None]
        asked = [r for r in judged if r["asked_because"] not in ("", "audit")]
        audited = [r for r in judged if r["asked_because"] == "audit"]
        return share_unlearned([_holds(r, holds) for r in asked], [_holds(r, holds) for r in audited], rest)

    not_learned = share("not_learned")
    paper = share("paper")
    missed = miss_rate([_holds(r, "not_learned") for r in known if r["asked_because"] == "audit"])
    change = _last_epoch(histories, epochs)
    return {
        "rows": len(verdicts),
        "learned": counts["learned"],
        "unstable": counts["unstable"],
        "unlearned": counts["unlearned"],
        "not_asked": counts["not_asked"],
        "share_unlearned": _listed(share("unlearned")),
        "share_not_learned": _listed(not_learned),
        "paper_share": _listed(paper),
        "miss_rate": _listed(missed),
        "causes": _counted(causes, "cause"),
        "paper_causes": _counted(causes, "paper_cause"),
        "not_measured": _not_measured(causes),
        "ambiguous": sum(bool(record["ambiguous"]) for record in causes),
        "converged": None if change is None else abs(change) < CONVERGED,
        "last_epoch_change": change,
        "statements": _statements(change),
    }


def _holds(record: Mapping[str, Any], what: str) -> bool:
    if what == "paper":
        return bool(record["paper_unlearned"])
    return bool(record["verdict"] == "unlearned" if what == "unlearned" else record["verdict"] != "learned")


def _listed(share: Share) -> list[float | None]:
    return [None if math.isnan(value) else value for value in (share.value, share.low, share.high)]


def _counted(records: Sequence[Mapping[str, Any]], column: str) -> dict[str, int]:
    found = Counter(record[column] for record in records)  # None: the base model was not asked
    return {name: found[name] for name in (*PRECEDENCE, "unexplained") if found[name]}


def _not_measured(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Causes that were measured for no row, with the sentence that says why."""
    found: dict[str, str] = {}
    for cause in PRECEDENCE:
        said = [entry for record in records for entry in record["evidence"] if entry["cause"] == cause]
        if said and all(entry["status"] == "not_measured" for entry in said):
            found[cause] = Counter(entry["sentence"] for entry in said).most_common(1)[0][0]
    return found


def _last_epoch(histories: Mapping[str, History], epochs: Mapping[int, float]) -> float | None:
    """Relative change of the mean loss per epoch, from the beginning of the last epoch or the checkpoint before it.

    None where it cannot be told: there is no checkpoint within the last two epochs, or none outside of the last one.
    """
    if not histories:
        return None
    steps = next(iter(histories.values())).steps.tolist()
    last = epochs.get(steps[-1])
    if last is None:
        return None
    before = [step for step in steps[:-1] if step in epochs and 1 - _NEAR <= last - epochs[step] <= _FAR]
    if not before:
        return None
    begin = min(before, key=lambda step: (abs(last - 1 - epochs[step]), step))
    losses = np.array([history.nll for history in histories.values()])
    first, end = float(losses[:, steps.index(begin)].mean()), float(losses[:, -1].mean())
    if not (first > 0 and math.isfinite(end)):
        return None
    between = last - epochs[begin]
    return (end - first) / first if abs(between - 1) <= _NEAR else (end / first) ** (1 / between) - 1


def _statements(change: float | None) -> list[str]:
    """Sentences that the numbers carry."""
    if change is None or abs(change) < CONVERGED:
        return []
    sentence = (
        f"The loss on these rows still changed by {change:+.1%} per epoch at the end: the training had not converged, "
        "so insufficient training cannot be told from having stopped too early."
    )
    return [sentence]

"""Rows, histories and answers made by hand, for tests of evidence and causes."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from whatstuck.datasets import Message, RenderedRow, Row
from whatstuck.dynamics.teacher_forcing import TokenRow
from whatstuck.rows.causes.probing import BaseAnswers
from whatstuck.rows.histories import History, histories
from whatstuck.rows.material import NotTrained, Problem, TrainingRow
from whatstuck.rows.trajectories import SCHEMA

STEPS = (0, 10, 20, 30, 40, 50, 60, 70, 80)


def row(
    row_id: str, prompt: str, answer: str, *, system: str = "", problem: Problem | None = None, ids: Any = None
) -> TrainingRow:
    messages = (*((Message("system", system),) if system else ()), Message("user", prompt))
    own = Row(row_id, messages, answer, 0, "train")
    tokens = tuple(map(ord, system + prompt)) if ids is None else tuple(ids)
    target = tuple(map(ord, answer))
    fed = TokenRow(tokens + target, tuple(range(len(tokens), len(tokens) + len(target))))
    failed = () if problem is None else (NotTrained(problem, f"It was {problem}."),)
    return TrainingRow(own, RenderedRow(prompt, answer, (0, len(prompt))), tokens, target, fed, failed)


def tables(rows: Mapping[str, Mapping[str, Any]], steps: Sequence[int] = STEPS) -> dict[int, pa.Table]:
    """Tables of trajectories: `nll` and `correct` are lists over the steps, the rest is constant."""
    found = {}
    for i, step in enumerate(steps):
        records = [
            {
                "row_id": row_id,
                "tokens": given.get("tokens", 2),
                "nll": given["nll"][i],
                "token_accuracy": float(given["correct"][i]),
                "smallest_margin": 0.0,
                "mean_margin": given.get("margins", [0.0] * len(steps))[i],
                "correct": given["correct"][i],
                "last_exposure_step": given.get("last"),
                "exposures": given.get("exposures"),
            }
            for row_id, given in rows.items()
        ]
        found[step] = pa.Table.from_pylist(records, schema=SCHEMA)
    return found


def history(row_id: str, correct: str, nll: Sequence[float] | None = None, **given: Any) -> History:
    """One history; `correct` is written as `--xx-`. By default a right answer has a loss of 0.1, a wrong one of 2."""
    hits = [letter == "x" for letter in correct]
    losses = list(nll) if nll is not None else [0.1 if hit else 2.0 for hit in hits]
    steps = given.pop("steps", STEPS[: len(hits)])
    return histories(tables({row_id: {"nll": losses, "correct": hits, **given}}, steps))[row_id]


def base(row_id: str, shares: Mapping[str, float], right: str = "", *, entropy: float = 0.5) -> BaseAnswers:
    """What a base model answers, from the shares of its answers."""
    rate = shares.get(right, 0.0)
    wrong = max((answer for answer in shares if answer != right), key=lambda answer: shares[answer], default="")
    return BaseAnswers(
        row_id=row_id,
        knowledge="unknown" if rate == 0 else "maybe_known",
        greedy_rate=rate,
        rate=rate,
        shares=dict(shares),
        wrong=wrong,
        wrong_share=shares.get(wrong, 0.0),
        entropy=entropy,
        draws=32,
    )


def verdict(row_id: str, kind: str = "unlearned", *, greedy: str | None = None, **more: Any) -> dict[str, Any]:
    share = more.pop("share", 1.0)
    rate = {"unlearned": 0.0, "unstable": 0.5, "learned": 1.0}[kind]
    return {
        "row_id": row_id,
        "source_index": 0,
        "verdict": kind,
        "rate": rate,
        "greedy": greedy,
        "top_wrong": greedy,
        "top_wrong_share": None if greedy is None else share,
        "nll": 1.0,
        **more,
    }

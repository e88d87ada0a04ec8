"""Probes of a cause that take minutes: no arm is trained, no checkpoint is left.

Each asks one question, and proves less than the arms do:

- replay: some steps on the rows and as many learned ones. Rows that come back at once were within reach, so that
  forgetting or too little training is likely, and missing knowledge is not.
- context: what supports a row is put before its prompt. Rows that are right then lack knowledge, not skill. Other
  rows' support is put there as a control.
- overfit: the steps that it takes the untouched model to fit a row alone, against those of rows that were learned.

Only the last block of the model is trained, in memory (`last_block.py`).
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from whatstuck.datasets import Message, Row
from whatstuck.dynamics.teacher_forcing import TokenRow, score_tokens
from whatstuck.models import CheckpointedModel, default_mask_token
from whatstuck.rows.interventions.gathering import Gathered
from whatstuck.rows.interventions.last_block import last_block, learn
from whatstuck.rows.interventions.training import Encoded
from whatstuck.rows.interventions.wordings import as_asked
from whatstuck.rows.material import TrainingRow
from whatstuck.rows.verdicts.answers import normalized
from whatstuck.rows.verdicts.asking import ask
from whatstuck.rows.verdicts.intervals import wilson
from whatstuck.rows.verdicts.rule import judge
from whatstuck.training._tokens import IGNORED

logger = logging.getLogger(__name__)

Json = dict[str, Any]

REPLAY_STEPS = 50
_ROWS = 16  # of each kind, in replay and overfit
_BATCH = 8
_RATE = 5e-4  # of AdamW, on the last block alone
_FIT_STEPS = 20
_NEIGHBOURS = 3


def quick_probes(gathered: Gathered) -> Json:
    """Run the three probes on the rows of a cause.

    Args:
        gathered: What an intervention works on.

    Returns:
        `replay`, `context` and `overfit`, each with its shares (value, low, high: Wilson), counts and a sentence; one
        that is not possible is None. Rows that the model cannot read with the end behind them are in none, and what
        cannot be asked in a probe is not counted in it.
    """
    material = gathered.material
    roles = gathered.interview.roles
    rows = [row for row in gathered.interview.rows if row.row_id in gathered.asked]
    targets = [row for row in rows if roles[row.row_id] == "unlearned"][:_ROWS]
    learned = [row for row in rows if roles[row.row_id] == "learned"]
    if not targets:
        return {"replay": None, "context": None, "overfit": None}
    models = CheckpointedModel(material.base, device=material.device)
    with models.at(material.checkpoints[0]) as model:
        overfit = _overfit(model, gathered, targets, learned)
    with models.at(material.last) as model:
        context = _context(model, gathered, targets)
        replay = _replay(model, gathered, targets, learned[:_ROWS])
    return {"replay": replay, "context": context, "overfit": overfit}


def _replay(
    model: PreTrainedModel, gathered: Gathered, targets: Sequence[TrainingRow], learned: Sequence[TrainingRow]
) -> Json:
    encoded = [gathered.asked[row.row_id] for row in (*targets, *learned[: len(targets)])]
    random = np.random.default_rng(gathered.settings.seed)
    before = _right(model, gathered, targets)
    with last_block(model) as parameters:
        optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=0.0)
        steps = _until_fitted(model, optimizer, encoded, random, gathered)
        after = _right(model, gathered, targets)
        kept = _right(model, gathered, learned)
    recovered = [now and not then for then, now in _both(before, after)]
    share, sentence = _shares(recovered), f"{sum(recovered)} of {len(recovered)} rows are back after {steps} steps"
    return {
        "steps": steps,
        "rows": len(recovered),
        "recovered": share,
        "learned_kept": _shares([right for right in kept if right is not None]),
        "sentence": f"{sentence} on them and as many learned rows: those were within reach.",
    }


def _until_fitted(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    rows: Sequence[Encoded],
    random: np.random.Generator,
    gathered: Gathered,
) -> int:
    """Train in shuffled batches until all rows are right, at most `REPLAY_STEPS` steps; the number of steps."""
    pad = default_mask_token(gathered.material.tokenizer)
    order: list[int] = []
    for step in range(1, REPLAY_STEPS + 1):
        if len(order) < min(_BATCH, len(rows)):
            order += random.permutation(len(rows)).tolist()
        batch, order = order[:_BATCH], order[_BATCH:]
        learn(model, optimizer, [rows[index] for index in batch], pad)
        if all(score.correct for score in score_tokens(model, [_tokens(row) for row in rows], pad)):
            return step
    return REPLAY_STEPS


def _context(model: PreTrainedModel, gathered: Gathered, targets: Sequence[TrainingRow]) -> Json | None:
    """Ask with a row's own support before it, and with another row's."""
    found = {row.row_id: text for row in targets if (text := _support(row, gathered))}
    rows = [row for row in targets if row.row_id in found]
    texts = [found[row.row_id] for row in rows]
    if len(set(texts)) < 2:  # noqa: PLR2004 - the control takes another row's
        return None
    others = [
        next(text for text in texts[index:] + texts[:index] if text != texts[index]) for index in range(len(rows))
    ]
    behind = [
        _right(model, gathered, [_behind(text, row, gathered) for text, row in zip(given, rows, strict=True)])
        for given in (texts, others)
    ]
    asked = _both(*behind)  # a text may be too long to stand before the prompt
    if not asked:
        return None
    own, other = [first for first, _ in asked], [second for _, second in asked]
    return {
        "rows": len(asked),
        "recovered": _shares(own),
        "control": _shares(other),
        "sentence": f"With support before the prompt {sum(own)} of {len(asked)} rows are right, "
        f"with another row's support {sum(other)}.",
    }


def _support(row: TrainingRow, gathered: Gathered) -> str:
    """The user's text for a row, else rows with the same answer and the most words in common."""
    for document in gathered.documents:
        if row.row_id in document.supports:
            return document.row.content + document.row.completion
    answer, words = normalized(row.row.completion), _words(row.row)
    same = [
        other.row
        for other in gathered.material.rows
        if other.row_id != row.row_id and normalized(other.row.completion) == answer and _words(other.row) != words
    ]
    nearest = sorted(same, key=lambda other: -len(words & _words(other)) / len(words | _words(other)))[:_NEIGHBOURS]
    return "\n\n".join(f"{other.content[other.content_start :].strip()}\n{other.completion}" for other in nearest)


def _words(row: Row) -> frozenset[str]:
    return frozenset(row.content[row.content_start :].casefold().split())


def _behind(text: str, row: TrainingRow, gathered: Gathered) -> TrainingRow:
    """A row with a text before its last user message."""
    messages = list(row.row.messages)
    messages[row.row.user_index] = Message("user", f"{text}\n\n{row.row.content}")
    worded = replace(row.row, messages=tuple(messages), players=None, content_start=0)
    return as_asked(worded, gathered.material.tokenizer, gathered.material.chat_template)


def _overfit(
    model: PreTrainedModel, gathered: Gathered, targets: Sequence[TrainingRow], learned: Sequence[TrainingRow]
) -> Json | None:
    """Steps that it takes the untouched model to fit each row alone.

    Rows that it had right already were not learned from this training: they are no measure. None without others.
    """
    pad = default_mask_token(gathered.material.tokenizer)
    scores = score_tokens(model, [_tokens(gathered.asked[row.row_id]) for row in learned], pad)
    cohort = [row for row, score in zip(learned, scores, strict=True) if not score.correct][:_ROWS]
    if not cohort:
        return None
    ours = [_steps_to_fit(model, gathered, row) for row in targets]
    theirs = np.array([_steps_to_fit(model, gathered, row) for row in cohort])
    ranks = [float((theirs < steps).mean() + (theirs == steps).mean() / 2) for steps in ours]
    slow = [rank > 0.9 for rank in ranks]  # noqa: PLR2004 - slower than nine of ten
    return {
        "rows": len(targets),
        "steps": ours,
        "learned_steps": theirs.tolist(),
        "percentiles": ranks,
        "slow": _shares(slow),
        "sentence": f"To fit one row alone takes the untouched model {np.median(ours):.0f} steps (median), a learned "
        f"one {np.median(theirs):.0f}; {sum(slow)} of {len(ours)} rows are slower than nine of ten learned ones.",
    }


def _steps_to_fit(model: PreTrainedModel, gathered: Gathered, row: TrainingRow) -> int:
    """Steps until a row is right, one more than are tried if it never is."""
    encoded = gathered.asked[row.row_id]
    pad = default_mask_token(gathered.material.tokenizer)
    with last_block(model) as parameters:
        optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=0.0)
        for step in range(_FIT_STEPS + 1):
            if score_tokens(model, [_tokens(encoded)], pad)[0].correct:
                return step
            learn(model, optimizer, [encoded], pad)
    return _FIT_STEPS + 1


def _right(model: PreTrainedModel, gathered: Gathered, rows: Sequence[TrainingRow]) -> list[bool | None]:
    """Rows that are learned by the verdict's own rule; None where they could not be asked."""
    interview = gathered.interview
    answers = ask(
        model,
        gathered.material.tokenizer,
        rows,
        interview.checker,
        interview.thresholds,
        seed=interview.seed,
        chat_template=interview.chat_template,
        others=interview.others,
    )
    verdicts = [judge(answer, interview.thresholds).verdict for answer in answers]
    return [None if verdict == "not_asked" else verdict == "learned" for verdict in verdicts]


def _both(first: Sequence[bool | None], second: Sequence[bool | None]) -> list[tuple[bool, bool]]:
    """Pairs of answers to the same row, where there are both."""
    pairs = zip(first, second, strict=True)
    return [(one, other) for one, other in pairs if one is not None and other is not None]


def _tokens(row: Encoded) -> TokenRow:
    learned = tuple(at for at, label in enumerate(row["labels"]) if label != IGNORED)
    return TokenRow(tuple(row["input_ids"]), learned)


def _shares(found: Sequence[bool]) -> list[float | None]:
    share = wilson(sum(found), len(found))
    return [share.value, share.low, share.high] if found else [None, None, None]

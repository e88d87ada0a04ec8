"""What to do about a row that did not stick: a sentence or two per cause, with the numbers of the row."""

from collections.abc import Sequence

from whatstuck.rows.causes.attribution import Attribution
from whatstuck.rows.causes.case import Evidence
from whatstuck.rows.causes.conflicts import Conflict
from whatstuck.rows.histories import History
from whatstuck.rows.material import TrainingRow

_FIXES = {
    "dropped": "Find the filter that drops it, or leave it out of the file.",
    "nothing_supervised": "Raise max_length, or shorten the prompt, so that its answer is trained.",
    "answer_cut": "Raise max_length, or shorten the row, so that its whole answer is trained.",
    "answer_masked": "Let the loss mask cover its answer.",
    "other_prompt": "Train and ask it with the same chat template.",
    "fails_its_checker": "Correct its answer, or the checker.",
    "too_long": "Shorten it, or use a model with a longer context.",
}


def advise(
    row: TrainingRow,
    attribution: Attribution,
    evidence: Sequence[Evidence],
    conflict: Conflict,
    history: History | None,
) -> str:
    """What to do about a row, and which experiment shows that it helps.

    Args:
        row: The row.
        attribution: Its cause.
        evidence: Its evidence.
        conflict: How it stands among rows that ask the same.
        history: Its history.
    """
    cause = attribution.cause
    if cause == "unexplained":
        missing = [each.cause for each in evidence if each.status == "not_measured"]
        if missing:
            return f"No cause was found, but {', '.join(missing)} could not be measured: see the evidence."
        return "No cause was found. Read the row, and what the model answers instead."
    numbers = next(each.numbers for each in evidence if each.cause == cause)
    if cause == "not_trained":
        fixes = dict.fromkeys(_FIXES.get(each.problem, "") for each in row.not_trained)
        text = " ".join(fixes) or "Find out why the trainer never shows it (sampler, number of steps)."
    elif cause == "data_conflict":
        text = _resolve(row, conflict)
    elif cause == "forgotten":
        last = "" if history is None or history.last_exposure_step is None else (
            f"It was last learned at step {history.last_exposure_step} of {int(history.steps[-1])}. "
        )  # fmt: skip
        text = f"{last}Shuffle the file, or show such rows again later in the training."
    elif cause == "base_conflict":
        text = (
            f"The base model believes {numbers['wrong']!r}. If it is wrong, add texts that say and "
            f"explain {_short(row.row.completion)} before the fine-tuning."
        )
    elif cause == "knowledge_missing":
        text = (
            "Train on texts that hold what it needs to know before the fine-tuning, or give them in the prompt. To "
            "leave it out may be better: rows that a model does not know teach it to make things up."
        )
    else:
        seen = "" if numbers["exposures"] is None else f"It was learned {numbers['exposures']} times. "
        if history is not None and history.correct[-1]:
            seen += "It is right as it is fed, though other answers are drawn. "
        text = f"{seen}Train longer, or show it and rows like it more often."
    return f"{text} To prove it: whatstuck intervene RUN --cause {cause}"


def _resolve(row: TrainingRow, conflict: Conflict) -> str:
    other = conflict.opponents[0] if conflict.opponents else None
    against = "another answer" if other is None else f"{_short(other.gold)} (row {other.row_id})"
    mine = (
        f"{conflict.own} of {conflict.votes} rows say {_short(row.row.completion)}, {conflict.opposing} say otherwise"
    )
    if conflict.same_tokens:
        return f"{mine}, such as {against}. Their texts become the same tokens: use a tokenizer that tells them apart."
    return f"{mine}, such as {against}. Keep one answer, or say in the prompts what makes the difference."


def _short(text: str, longest: int = 40) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= longest else f"{text[: longest - 1]}…")

"""Which rows a model can half do: difficulty-curated fine-tuning (DC-SFT, arXiv 2602.10815) as a step before training.

The loss stays cross-entropy; what changes is the data. Of each row some replies are drawn and judged. A row is easy
where all of them are right, hard where none is, medium in between. The paper keeps medium rows (`M`), or easy and
medium ones (`EM`), and finds that even a few hard rows cost more than they teach.
"""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whatstuck.datasets import Row, read_rows, render, target_ids, write_rows
from whatstuck.errors import WhatStuckError
from whatstuck.files import file_hash, whole
from whatstuck.models import CheckpointedModel, checkpoint_at, fingerprint, resolve_model, usable_device
from whatstuck.models.generating import seed_of
from whatstuck.progress import Task
from whatstuck.rows.thresholds import Thresholds
from whatstuck.rows.verdicts.answers import Checker, judges_wordings
from whatstuck.rows.verdicts.replies import Question, Reply, Respondent
from whatstuck.runs import Json, versions, write_json
from whatstuck.training.judges import CheckTimedOutError, TaskChecker, identity_of, judging

logger = logging.getLogger(__name__)

Level = Literal["easy", "medium", "hard", "unknown"]
_KEPT: dict[str, frozenset[str]] = {"M": frozenset({"medium"}), "EM": frozenset({"easy", "medium"})}


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How a row fares.

    Attributes:
        row_id: The row.
        samples: Replies that were judged; 0 where it could not be asked, or its check failed.
        right: How many of them are right.
        cut: How many replies were cut at the longest answer, judged or not.
        reason: Why it is unknown; empty if it is not.
    """

    row_id: str
    samples: int
    right: int
    cut: int = 0
    reason: str = ""

    @property
    def level(self) -> Level:
        """`easy`: all right; `hard`: none; `medium`: some; `unknown`: not judged."""
        if not self.samples:
            return "unknown"
        return "easy" if self.right == self.samples else "medium" if self.right else "hard"


def difficulties(  # noqa: PLR0913 - who is asked, what, how, and who judges
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    checker: Checker,
    *,
    samples: int = 8,
    temperature: float = 1.0,
    max_new_tokens: int | None = None,
    chat_template: str = "auto",
    seed: int = 0,
    progress: Task | None = None,
) -> list[Difficulty]:
    """Ask every row several times. What a row is depends on the model, the row and the seed, not on other rows.

    Args:
        model: A causal language model in eval mode.
        tokenizer: Its tokenizer.
        rows: The rows.
        checker: Whether a reply is right; it runs in this process. For an arm of a task: `judges.task_checker`.
        samples: Replies per row.
        temperature: Of the draws; the whole vocabulary takes part.
        max_new_tokens: Longest reply, give or take eight tokens. By default a little longer than the row's own; where
            the checker knows right answers in other words than the row's, twice as long as one of more than 32 tokens.
        chat_template: `auto` or `never`, as in the training.
        seed: Of the draws.
        progress: Is advanced by one per row.

    Returns:
        In the order of the rows.

    Raises:
        WhatStuckError: If the model gives NaN, or a row is none of the arm that a task's checker is for. A check that
            fails raises nothing: the row is unknown.
    """
    if isinstance(checker, TaskChecker):
        checker.check(rows)
    respondent = Respondent(model, tokenizer, chat_template)
    questions: dict[int, Question] = {}
    found: dict[int, Difficulty] = {}
    for index, row in enumerate(rows):
        rendered = render(row, tokenizer, chat_template=chat_template)
        prompt = tuple(tokenizer(rendered.prompt, add_special_tokens=False)["input_ids"])
        own = len(target_ids(rendered, tokenizer))
        if respondent.fits(prompt, max_new_tokens or own):
            length = max_new_tokens or _expected_tokens(own, checker)
            questions[index] = Question(row, prompt, length, seed_of(seed, row.row_id))
        else:
            found[index] = Difficulty(row.row_id, 0, 0, reason="longer than the context")
    if progress is not None:
        progress.advance(len(found))
    replies = respondent.replies(
        list(questions.values()), samples=samples, temperature=temperature, greedy=False, progress=progress
    )
    for index, reply in zip(questions, replies, strict=True):
        found[index] = _judged(rows[index], reply, checker)
    return [found[index] for index in range(len(rows))]


def curate(  # noqa: PLR0913 - the settings of a step of its own
    data: str | Path,
    out: str | Path,
    *,
    model: str,
    checkpoint: str | Path | None = None,
    checker: str | Checker = "auto",
    keep: Literal["M", "EM"] = "EM",
    samples: int = 8,
    temperature: float = 1.0,
    max_new_tokens: int | None = None,
    time_limit: float = 1.0,
    chat_template: str = "auto",
    device: str = "auto",
    seed: int = 0,
    **reading: Any,
) -> Json:
    """Write the rows that are worth training, as JSONL.

    Beside `NAME.jsonl` it writes `NAME.difficulty.jsonl` (what was found of every row) and `NAME.manifest.json`.

    Args:
        data: Rows in any shape that `train` reads; held-out rows among them are not asked, and written as they are.
        out: File to write; its name must end in `.jsonl`.
        model: The base: folder, GGUF file, or short name.
        checkpoint: The model to ask, after a short training on the same format ("cold start"); None: the base.
        checker: As for `whatstuck rows`: a name, or `module:function`, which then runs in a process of its own. Or a
            function of row and answer, which runs in this one; for an arm of a task: `judges.task_checker`.
        keep: `M`: medium rows; `EM`: easy and medium ones.
        samples: Replies per row.
        temperature: Of the draws.
        max_new_tokens: As for `difficulties`.
        time_limit: Seconds that a `module:function` has for one reply.
        chat_template: `auto` or `never`, as in the training.
        device: Where to compute.
        seed: Of the draws.
        **reading: `columns`, `labels`, `instruction`, `limit`, as for `train`.

    Returns:
        The manifest.

    Raises:
        WhatStuckError: If an argument, the model or the rows are bad, or no row is left.
    """
    if keep not in _KEPT:
        raise WhatStuckError(f"unknown keep {keep!r}: use M (medium rows) or EM (easy and medium rows)")
    if samples < 2:  # noqa: PLR2004 - one reply is either right or wrong, never mixed
        raise WhatStuckError("difficulty needs samples of 2 or more")
    out = Path(out)
    if out.suffix != ".jsonl":
        raise WhatStuckError(f"{out.name}: rows are written as JSONL: give a name that ends in .jsonl")
    every = read_rows(data, split="train", **reading)
    rows = [row for row in every if row.split == "train"]
    base = resolve_model(model).resolve()
    asked = None if checkpoint is None else checkpoint_at(Path(checkpoint), 0)
    loaded = CheckpointedModel(base, device=usable_device(device))
    with (
        judging(checker, time_limit=time_limit) as judge,
        loaded.at(asked) as answering,
        Task("difficulty", len(rows)) as progress,
    ):
        found = difficulties(
            answering,
            loaded.tokenizer,
            rows,
            judge,
            samples=samples,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            chat_template=chat_template,
            seed=seed,
            progress=progress,
        )
    kept = {one.row_id for one in found if one.level in _KEPT[keep]}
    counts = Counter(one.level for one in found)
    reasons = Counter(one.reason for one in found if one.reason)
    if not kept:
        unknown = f"{counts['unknown']} unknown" + "".join(f", {reason}" for reason, _ in reasons.most_common(1))
        raise WhatStuckError(
            f"no row is left of {len(rows)} ({counts['easy']} easy, {counts['hard']} hard, {unknown}): ask a "
            "checkpoint that has begun to learn the format, or keep other rows"
        )
    manifest: Json = {
        "format_version": 1,
        "rows": len(rows),
        "kept": len(kept),
        "heldout": len(every) - len(rows),
        **{level: counts[level] for level in ("easy", "medium", "hard", "unknown")},
        "unknown_because": dict(reasons),
        "cut_replies": sum(one.cut for one in found),
        "keep": keep,
        "samples": samples,
        "temperature": temperature,
        **identity_of(checker, judge),
        "seed": seed,
        "data": str(data),
        "data_sha256": file_hash(Path(data)) if Path(data).is_file() else None,
        "model": {"path": str(base), "fingerprint": fingerprint(base)},
        "checkpoint": None if asked is None else {"path": str(asked.path), "fingerprint": fingerprint(asked.path)},
        "versions": versions(),
    }
    write_rows([row for row in every if row.split != "train" or row.row_id in kept], out)
    with whole(out.with_suffix(".difficulty.jsonl")) as temporary, temporary.open("w", encoding="utf-8") as file:
        for one in found:
            record = {"row_id": one.row_id, "level": one.level} | asdict(one)
            file.write(json.dumps({name: value for name, value in record.items() if name != "reason" or value}) + "\n")
    write_json(out.with_suffix(".manifest.json"), manifest)
    logger.info("%d of %d rows kept: %s", len(kept), len(rows), dict(counts))
    return manifest


def _expected_tokens(own: int, checker: Checker) -> int:
    """As in `rows`: a right answer in other words than the row's may be longer, where that is long itself."""
    return 2 * own if judges_wordings(checker) and own > Thresholds().longest_answer else own


def _judged(row: Row, reply: Reply, checker: Checker) -> Difficulty:
    """A check that fails says nothing of the row, so the row is unknown, not hard."""
    try:
        right = sum(bool(checker(row, said)) for said in reply.drawn)
    except Exception as error:  # noqa: BLE001 - a checker may be of anybody's making
        late = isinstance(error, CheckTimedOutError | TimeoutError)
        reason = "its check took too long" if late else "its check failed"
        logger.warning("row %s: %s: %s", row.row_id, reason, error)
        return Difficulty(row.row_id, 0, 0, reply.cut, reason)
    return Difficulty(row.row_id, len(reply.drawn), right, reply.cut)

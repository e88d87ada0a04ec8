"""The rows that did not stick as JSONL that data tools read: one flat record a row, always with the same names.

| tool | how | names it uses |
|---|---|---|
| Argilla | `dataset.records.log(records)` | `id`; fields `prompt`, `label`, `answer`; question `cause`; metadata |
| cleanlab | `Datalab(data=records, label_name="label")` | `label`; `id` and `source_index` lead back to the file |
| data-juicer | `dataset_path: unlearned.jsonl` | `text`, `query`, `response`, `meta`, `stats` |

Argilla takes what the dataset's settings name, a value for a question as a suggestion, and passes over the rest with a
warning; `meta` and `stats` repeat for
data-juicer, nested, what stands beside them flat. A tool that counts labels sees only rows that did not stick: for
label issues in the whole file, join on `source_index`.
"""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from whatstuck.errors import WhatStuckError
from whatstuck.files import whole
from whatstuck.rows.causes.names import NUMERALS
from whatstuck.runs import read_table

FILE_NAME = "unlearned.jsonl"

_META = (
    "verdict",
    "cause",
    "cause_numeral",
    "secondary",
    "paper_cause",
    "ambiguous",
    "conflict_group",
    "asked_because",
    "source_index",
)
_STATS = (
    "margin",
    "rate",
    "rate_low",
    "rate_high",
    "nll",
    "token_accuracy",
    "tokens",
    "forgetting_events",
    "confidence",
    "variability",
    "exposures",
    "last_exposure_step",
    "top_wrong_share",
)
_TEXTS = ("text", "query", "response", "prompt", "label", "answer", "top_wrong", "evidence", "neighbours", "advice")


def export_jsonl(run_folder: str | Path, path: str | Path | None = None, *, text: bool = True) -> Path:
    """Write the rows that did not stick, the most severe first.

    Every record has the same names in the same order; what is not known is null.

    Args:
        run_folder: The folder that `whatstuck rows --out` wrote.
        path: The file to write; `unlearned.jsonl` in the run folder if none is given.
        text: Whether to write texts. Without, rows are known by their place in the training file: ids may be a user's
            own text too.

    Returns:
        The file.

    Raises:
        WhatStuckError: If the run has no finished `rows`, or the file cannot be written.
    """
    folder = Path(run_folder)
    target = folder / FILE_NAME if path is None else Path(path)
    records = _records(read_table(folder / "unlearned.parquet"), read_table(folder / "verdicts.parquet"), text=text)
    if target.is_dir():
        raise WhatStuckError(f"{target} is a folder: give a file, such as {target / FILE_NAME}")
    try:
        with whole(target) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)
    except OSError as error:
        raise WhatStuckError(f"{target} cannot be written ({error.strerror}): choose another path") from error
    return target


def _records(unlearned: pa.Table, verdicts: pa.Table, *, text: bool) -> list[dict[str, Any]]:
    where = pc.index_in(unlearned["row_id"], value_set=verdicts["row_id"].combine_chunks())
    if where.null_count:
        raise WhatStuckError("unlearned.parquet names rows that verdicts.parquet lacks: run `whatstuck rows` again")
    pairs = zip(verdicts.take(where).to_pylist(), unlearned.to_pylist(), strict=True)
    return [_record({**verdict, **cause}, text=text) for verdict, cause in pairs]


def _record(row: dict[str, Any], *, text: bool) -> dict[str, Any]:
    prompt, gold, place = row["prompt"] or "", row["gold"] or "", row["source_index"]
    known = row | {
        "cause_numeral": NUMERALS.get(row["cause"]),
        "secondary": ", ".join(row["secondary"] or ()),
        "text": f"{prompt}\n{gold}",
        "query": prompt,
        "response": gold,
        "label": gold,
        "answer": row["greedy"],
        "evidence": "\n".join(
            f"{entry['cause']}: {entry['status']}. {entry['sentence'] or ''}".strip() for entry in row["evidence"] or ()
        ),
        "neighbours": "\n".join(
            f"{neighbour['gold']} ({neighbour['row_id']})" for neighbour in row["neighbours"] or ()
        ),
    }
    if not text:
        known |= dict.fromkeys((*_TEXTS, "conflict_group"))
        known["row_id"] = f"row {place}"
    meta, stats = ({name: _plain(known[name]) for name in names} for names in (_META, _STATS))
    return {
        "id": known["row_id"],
        **{name: known[name] for name in _TEXTS},
        **meta,
        **stats,
        "meta": meta,
        "stats": stats,
    }


def _plain(value: Any) -> Any:
    """NaN and infinity are no JSON."""
    return None if isinstance(value, float) and not math.isfinite(value) else value

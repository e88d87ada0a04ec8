"""What `rows` and `intervene` left in a run folder, as plain data; the counterpart of `reading` for `track`.

A training file can have very many rows. What is counted is counted over all of them, in Arrow; what is shown one by
one is read for the most severe rows only. A folder may hold checkpoints of an earlier call or of a training besides:
only those that the section `rows` lists are read.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from whatstuck.errors import WhatStuckError
from whatstuck.report.files import read_columns
from whatstuck.report.metrics import Stat, known
from whatstuck.report.naming import model_parts
from whatstuck.report.reading import whole_number
from whatstuck.rows.causes.names import NUMERALS
from whatstuck.rows.schemas import UNLEARNED, VERDICTS

MOST_ROWS = 20_000  # rows that the page can hold
NOT_ASKED = "not_asked"  # the verdict on a row that could not be asked, and the column that says why

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Moment:
    """One row at one checkpoint: loss in nats per token, and whether every token was right."""

    nll: float | None
    right: bool | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows that did not stick have a cause: those of each verdict, and those with a test not measured."""

    unlearned: int
    unstable: int
    unmeasured: int

    @property
    def rows(self) -> int:
        """All of them."""
        return self.unlearned + self.unstable


@dataclass(frozen=True, slots=True)
class RowsRun:
    """A run folder as `rows` left it, read.

    Attributes:
        about: The section `rows` of run.json.
        found: Rows that did not stick, the most severe first: the columns of `VERDICTS` and `UNLEARNED`.
        causes: By cause, how many rows; of all rows, also where `found` holds fewer.
        paper_causes: The same by the label that the paper's printed order gives.
        paper_unknown: How many of them have no such label, for want of the untouched model's answers.
        judged: How many rows have a verdict that counts: all but those that could not be asked.
        not_asked: Rows that could not be asked: the columns of both tables, those of `UNLEARNED` null.
        reasons: By reason, how many rows could not be asked; the most frequent first.
        places: Place in the training file of every row that is shown or named as a neighbour.
        steps: Checkpoints with trajectories, ascending.
        moments: By row id of `found` and `not_asked`, the row at each of these steps; None where it was not evaluated.
        accuracy: By step, the share of all rows that are right.
        stayed: By step, the share of the finally unlearned rows that have been wrong at every step up to it.
        interventions: By cause, what its treatments did, as run.json has it.
    """

    name: str
    about: Mapping[str, Any]
    found: tuple[Record, ...]
    causes: Mapping[str, Counts]
    paper_causes: Mapping[str, int]
    paper_unknown: int
    judged: int
    not_asked: tuple[Record, ...]
    reasons: Mapping[str, int]
    places: Mapping[str, int]
    steps: tuple[int, ...]
    moments: Mapping[str, tuple[Moment | None, ...]]
    accuracy: Mapping[int, Stat]
    stayed: Mapping[int, Stat]
    interventions: Mapping[str, Mapping[str, Any]]

    @property
    def summary(self) -> Mapping[str, Any]:
        """What was counted; see docs/run-folder.md."""
        summary: Mapping[str, Any] = self.about["summary"]
        return summary

    @property
    def not_learned(self) -> int:
        """How many rows did not stick, unstable ones included."""
        return sum(counts.rows for counts in self.causes.values())

    @property
    def unlearned(self) -> int:
        """How many of them are never right."""
        return sum(counts.unlearned for counts in self.causes.values())

    @property
    def unasked(self) -> int:
        """How many rows could not be asked."""
        return sum(self.reasons.values())

    @property
    def model(self) -> str:
        """Name of the model under study, without the hash of a converted file."""
        return model_parts(str((self.about.get("model") or {}).get("name") or ""))[0]


def rows_finished(manifest: Mapping[str, Any]) -> bool:
    """Whether `rows` has come to its end; until then, its summary is null."""
    about = manifest.get("rows")
    return isinstance(about, dict) and isinstance(about.get("summary"), dict)


def read_rows_run(folder: Path, manifest: Mapping[str, Any]) -> RowsRun:
    """Read what `rows` left in a run folder.

    Args:
        folder: The run folder.
        manifest: Its run.json, with a section `rows`.

    Raises:
        WhatStuckError: If the section or a table is missing, unfinished or damaged.
    """
    about = manifest["rows"]
    if not rows_finished(manifest):
        raise WhatStuckError(
            f"{folder / 'run.json'} has no complete section `rows`: run `whatstuck rows` again with the same --out"
        )
    verdicts = read_columns(folder / "verdicts.parquet", VERDICTS.names)
    unlearned = read_columns(folder / "unlearned.parquet", UNLEARNED.names)
    shown = unlearned.slice(0, MOST_ROWS)
    found = _joined(verdicts, shown)
    named = {neighbour["row_id"] for record in found for neighbour in record["neighbours"] or ()}
    named |= set(shown["row_id"].to_pylist())
    passed_over = verdicts.filter(pc.equal(verdicts["verdict"], NOT_ASKED))
    not_asked = passed_over.slice(0, MOST_ROWS - len(shown))
    both = pa.chunked_array([*shown["row_id"].chunks, *not_asked["row_id"].chunks], pa.string())
    near = verdicts.select(["row_id", "source_index"]).filter(_is_in(verdicts["row_id"], list(named)))
    lost = unlearned.filter(pc.equal(unlearned["verdict"], "unlearned"))["row_id"]
    listed = {whole_number(entry.get("step")) for entry in about.get("checkpoints") or []}
    parts = {step: folder / "trajectories" / f"step-{step:06d}.parquet" for step in listed if step is not None}
    steps, moments, accuracy, stayed = _trajectories(parts, verdicts["row_id"], both, lost)
    return RowsRun(
        name=folder.resolve().name,
        about=about,
        found=found,
        causes=_counts(unlearned),
        paper_causes=_tally(unlearned["paper_cause"]),
        paper_unknown=unlearned["paper_cause"].null_count,
        judged=len(verdicts) - len(passed_over),
        not_asked=tuple(dict.fromkeys(UNLEARNED.names) | row for row in not_asked.to_pylist()),
        reasons=_reasons(passed_over["not_asked"]),
        places=dict(zip(near["row_id"].to_pylist(), near["source_index"].to_pylist(), strict=True)),
        steps=steps,
        moments=moments,
        accuracy=accuracy,
        stayed=stayed,
        interventions=_interventions(manifest),
    )


def share(count: int, total: int) -> Stat:
    """A share with its 95 % Wilson interval; not known without rows.

    >>> found = share(0, 16)
    >>> found.value, found.low, round(found.high, 3)
    (0.0, 0.0, 0.194)
    """
    if total == 0:
        return Stat(None)
    z = 1.959963984540054
    value, spread = count / total, z * z / total
    middle = (value + spread / 2) / (1 + spread)
    reach = math.sqrt(value * (1 - value) * spread + spread * spread / 4) / (1 + spread)
    return Stat(value, max(0.0, middle - reach), min(1.0, middle + reach))


def stat(triple: Any) -> Stat:
    """A list [value, low, high] of run.json; nothing is known where it is null."""
    value, low, high = triple or (None, None, None)
    return Stat(known(value), known(low), known(high))


def _joined(verdicts: pa.Table, shown: pa.Table) -> tuple[Record, ...]:
    """Both tables' columns by row, in the order of `shown`."""
    where = pc.index_in(shown["row_id"], value_set=verdicts["row_id"].combine_chunks())
    if where.null_count:
        raise WhatStuckError("unlearned.parquet names rows that verdicts.parquet lacks: run `whatstuck rows` again")
    both = zip(verdicts.take(where).to_pylist(), shown.to_pylist(), strict=True)
    return tuple({**verdict, **cause} for verdict, cause in both)


def _tally(column: pa.ChunkedArray) -> dict[str, int]:
    counted = pc.value_counts(column.combine_chunks()).to_pylist()
    return {str(entry["values"]): entry["counts"] for entry in counted if entry["values"]}


def _reasons(column: pa.ChunkedArray) -> dict[str, int]:
    return dict(Counter(why or "no reason is given" for why in column.to_pylist()).most_common())


def _counts(unlearned: pa.Table) -> dict[str, Counts]:
    """By cause; the tests that were not measured are those of its rows."""
    evidence = pc.list_flatten(unlearned["evidence"])
    parents = pc.list_parent_indices(unlearned["evidence"])
    unmeasured = pc.equal(pc.struct_field(evidence, "status"), "not_measured")
    lacking = set(parents.filter(unmeasured).to_pylist())
    found: dict[str, Counts] = {}
    pairs = zip(unlearned["cause"].to_pylist(), unlearned["verdict"].to_pylist(), strict=True)
    for index, (cause, verdict) in enumerate(pairs):
        before = found.get(cause, Counts(0, 0, 0))
        found[cause] = Counts(
            before.unlearned + (verdict == "unlearned"),
            before.unstable + (verdict != "unlearned"),
            before.unmeasured + (index in lacking),
        )
    return found


def _interventions(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Results by cause; whatever else the section holds, such as its settings, has other names."""
    section = manifest.get("interventions") or {}
    return {cause: section[cause] for cause in NUMERALS if isinstance(section.get(cause), dict)}


_Trajectories = tuple[
    tuple[int, ...], dict[str, tuple[Moment | None, ...]], dict[int, Stat], dict[int, Stat]
]  # steps, moments, accuracy, stayed


def _trajectories(
    parts: Mapping[int, Path], known_ids: pa.ChunkedArray, shown: pa.ChunkedArray, lost: pa.ChunkedArray
) -> _Trajectories:
    """Checkpoints one after another, so that only what is shown stays in memory; those left out for sharing are not."""
    files = {step: path for step, path in parts.items() if path.exists()}
    names = shown.to_pylist()
    moments: list[list[Moment | None]] = [[] for _ in names]
    accuracy: dict[int, Stat] = {}
    wrong: list[np.ndarray] = []  # per step, of every lost row: 1 wrong, 0 right, NaN not known
    for step in sorted(files):
        table = read_columns(files[step], ["row_id", "nll", "correct"])
        table = table.filter(_is_in(table["row_id"], known_ids))
        right = pc.sum(table["correct"].cast(pa.int64())).as_py() or 0
        accuracy[step] = share(right, len(table) - table["correct"].null_count)
        here = table.take(pc.index_in(shown, value_set=table["row_id"].combine_chunks()))
        pairs = zip(here["nll"].to_pylist(), here["correct"].to_pylist(), strict=True)
        for line, (nll, correct) in zip(moments, pairs, strict=True):
            line.append(None if nll is None and correct is None else Moment(known(nll), correct))
        last = table.take(pc.index_in(lost, value_set=table["row_id"].combine_chunks()))["correct"]
        wrong.append(1 - last.cast(pa.float64()).to_numpy())
    steps = tuple(sorted(files))
    return steps, dict(zip(names, map(tuple, moments), strict=True)), accuracy, _stayed(steps, wrong)


def _stayed(steps: tuple[int, ...], wrong: list[np.ndarray]) -> dict[int, Stat]:
    """Only rows that are known at every step count: a gap could hide that a row was right."""
    if not steps:
        return {}
    table = np.stack(wrong)
    table = table[:, ~np.isnan(table).any(axis=0)]
    still = np.minimum.accumulate(table, axis=0).sum(axis=1)
    return {step: share(int(count), table.shape[1]) for step, count in zip(steps, still, strict=True)}


def _is_in(column: pa.ChunkedArray, values: Any) -> pa.ChunkedArray:
    chunk = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else pa.array(values, pa.string())
    return pc.is_in(column, value_set=chunk)

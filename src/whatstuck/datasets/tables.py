"""From a file or folder to records: one dictionary per row, with the place to name when it is bad.

Text is decoded as a whole so that a wrong byte can be named by its line. Lines end at a line feed only:
`str.splitlines` would also cut at U+2028, which is legal inside JSON strings.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet

from whatstuck.errors import WhatStuckError

_HELDOUT_SPLITS = ("validation", "valid", "val", "dev", "eval", "test", "heldout")


class Table(NamedTuple):
    """The records of a file, read as they are asked for.

    Attributes:
        name: What to call the file in messages.
        records: Pairs of place (such as `line 17`) and record.
        class_names: Names of the label ids, where the file itself carries them.
    """

    name: str
    records: Iterator[tuple[str, Any]]
    class_names: list[str] | None = None


def open_table(path: Path, *, columns: Sequence[str] | None, split: str) -> Table:
    """Open a data file or a saved dataset folder.

    Args:
        path: JSONL, JSON, CSV, TSV or Parquet by its extension, or a folder written by `save_to_disk`.
        columns: Names of the columns of a CSV or TSV file that has no header line.
        split: Which split to take from a folder that holds several: `heldout` or `train`.

    Raises:
        WhatStuckError: If there is no such file, nothing in it is data, or it is broken.
    """
    if not path.exists():
        raise WhatStuckError(f"no such file: {path}")
    kind = "folder" if path.is_dir() else path.suffix.lower()
    if columns is not None and kind not in {".csv", ".tsv"}:
        raise WhatStuckError(f"{path.name}: columns are for CSV and TSV files without a header line: leave them out")
    match kind:
        case "folder":
            return _dataset_folder(path, split)
        case ".jsonl" | ".ndjson":
            return Table(path.name, _json_lines(path, _decode(path)))
        case ".json":
            return Table(path.name, _json(path, _decode(path)))
        case ".csv":
            return Table(path.name, _named(path, _csv_cells(path), columns))
        case ".tsv":
            return Table(path.name, _named(path, _tsv_cells(path, unquote=columns is None), columns))
        case ".parquet":
            return _parquet(path)
        case _:
            raise WhatStuckError(
                f"{path.name}: unknown kind of file {path.suffix!r}: use .jsonl, .json, .csv, .tsv, .parquet "
                "or a folder written by save_to_disk"
            )


def read_label_names(path: Path) -> list[str]:
    """Label names, one a line: the name on line k (from 0) is what label id k stands for.

    Raises:
        WhatStuckError: If the file is missing, empty or holds a blank line.
    """
    if not path.is_file():
        raise WhatStuckError(f"no such file: {path}")
    names = [line.strip() for line in _decode(path).rstrip().split("\n")]
    if not all(names):
        raise WhatStuckError(f"{path.name} line {names.index('') + 1}: empty: write one label name a line")
    return names


def _decode(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise WhatStuckError(f"{path.name} line {line}: not UTF-8 text: save the file as UTF-8") from error


def _parse_json(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise WhatStuckError(
            f"{path.name} line {line + error.lineno - 1}: broken JSON: {error.msg} (column {error.colno})"
        ) from error
    except RecursionError as error:
        raise WhatStuckError(f"{path.name} line {line}: broken JSON: nested too deeply") from error


def _json_lines(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"line {number}", _parse_json(path, line, number)


def _json(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    first = text.lstrip().split("\n", maxsplit=1)[0]
    if first.startswith("{") and first.rstrip().endswith("}") and "\n" in text.strip():
        yield from _json_lines(path, text)  # one object a line under the name .json: common, and unambiguous
        return
    if not text.strip():
        return
    value = _parse_json(path, text, 1)
    if isinstance(value, dict):
        lists = [key for key, item in value.items() if isinstance(item, list)]
        if len(lists) != 1:
            raise WhatStuckError(
                f"{path.name}: expected a list of rows, or an object with one list; lists found: "
                f"{', '.join(lists) or 'none'}"
            )
        value = value[lists[0]]
    if not isinstance(value, list):
        raise WhatStuckError(f"{path.name}: expected a list of rows, found {type(value).__name__}")
    for number, record in enumerate(value, start=1):
        yield f"row {number}", record


def _csv_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Cells and the line that a record begins on; a quoted cell may run over several lines."""
    # Each line keeps its line feed, so that one inside a quoted cell stays part of the text.
    reader = csv.reader((line + "\n" for line in _decode(path).split("\n")), strict=True)
    line = 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise WhatStuckError(f"{path.name} line {line}: broken CSV: {error}; is a quote left open?") from error


def _tsv_cells(path: Path, *, unquote: bool) -> Iterator[tuple[int, list[str]]]:
    """Cells between tabs, where a quote is a character like any other.

    Read as the start of a quoted cell, a bare quote would swallow the lines that follow. Under a header, a cell
    that is quoted as a whole is unquoted, because spreadsheets and pandas write those.
    """
    for number, line in enumerate(_decode(path).split("\n"), start=1):
        cells = line.rstrip("\r").split("\t")
        yield number, [_unquoted(cell) for cell in cells] if unquote else cells


def _unquoted(cell: str) -> str:
    inner = cell[1:-1]
    whole = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if whole else cell


def _named(
    path: Path, rows: Iterator[tuple[int, list[str]]], columns: Sequence[str] | None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Cells under the names of their columns, from the header line unless `columns` names them."""
    names = None if columns is None else list(columns)
    if names is not None and len(set(names)) < len(names):
        raise WhatStuckError(f"columns name one column twice: {', '.join(names)}")
    for line, cells in rows:
        if len(cells) <= 1 and not "".join(cells).strip():
            continue  # a blank line
        if names is None:
            names = [cell.strip() for cell in cells]
            if len(set(names)) < len(names):
                raise WhatStuckError(
                    f"{path.name} line {line}: the header names a column twice: {', '.join(names)}; "
                    "for a file without a header line give columns"
                )
            continue
        if cells == names:
            raise WhatStuckError(f"{path.name} line {line}: this is a header line: leave columns out")
        if len(cells) != len(names):
            raise WhatStuckError(
                f"{path.name} line {line}: {len(cells)} cells, expected {len(names)} ({', '.join(names)})"
            )
        yield f"line {line}", dict(zip(names, cells, strict=True))


def _parquet(path: Path) -> Table:
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise WhatStuckError(f"{path.name}: broken Parquet file: {str(error).splitlines()[0]}") from error
    records = _arrow_records(path.name, file.iter_batches(batch_size=1024))
    return Table(path.name, records, _class_names(file.schema_arrow))


def _dataset_folder(path: Path, split: str) -> Table:
    """A folder written by `save_to_disk`: its Arrow streams are read as they are, without the package."""
    if (path / "dataset_dict.json").is_file():
        path = _pick_split(path, split)
    if not (path / "state.json").is_file():
        raise WhatStuckError(
            f"{path}: no saved dataset in this folder (no state.json or dataset_dict.json): give a data file, "
            "or a folder written by save_to_disk"
        )
    state = _parse_json(path / "state.json", _decode(path / "state.json"), 1)
    files = [path / entry["filename"] for entry in state.get("_data_files") or []]
    if state.get("_indices_files"):
        raise WhatStuckError(f"{path}: its rows are picked by an index file: call flatten_indices() and save it again")
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        name = missing[0] if missing else "every data file"
        raise WhatStuckError(f"{path}: {name} is missing: save the dataset again")
    with pa.OSFile(str(files[0])) as source:
        class_names = _class_names(_open_stream(files[0], source).schema)
    return Table(path.name, _arrow_records(path.name, _stream_batches(files)), class_names)


def _pick_split(path: Path, split: str) -> Path:
    splits = _parse_json(path / "dataset_dict.json", _decode(path / "dataset_dict.json"), 1).get("splits", [])
    wanted = ("train",) if split == "train" else _HELDOUT_SPLITS
    found: list[str] = [name for name in splits if name in wanted]
    if len(found) != 1:
        raise WhatStuckError(
            f"{path} holds the splits {', '.join(splits) or 'none'}: give the folder of the one to read as {split} rows"
        )
    return path / found[0]


def _open_stream(file: Path, source: Any) -> Any:
    try:
        return pa.ipc.open_stream(source)
    except pa.ArrowInvalid as error:
        raise WhatStuckError(f"{file.name}: broken Arrow file: {str(error).splitlines()[0]}") from error


def _stream_batches(files: Sequence[Path]) -> Iterator[Any]:
    for file in files:
        with pa.memory_map(str(file)) as source:
            yield from _open_stream(file, source)


def _arrow_records(name: str, batches: Iterator[Any]) -> Iterator[tuple[str, Any]]:
    number = 0
    try:
        for batch in batches:
            for record in batch.to_pylist():
                number += 1
                yield f"row {number}", record
    except (pa.ArrowInvalid, OSError) as error:
        raise WhatStuckError(f"{name} after row {number}: broken file: {str(error).splitlines()[0]}") from error


def _class_names(schema: Any) -> list[str] | None:
    """Names of the classes of `label` or `labels`, which datasets keeps in the schema's metadata."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = metadata.get("info", {}).get("features") or {}
    feature = features.get("labels") or features.get("label") or {}
    feature = feature.get("feature", feature) if isinstance(feature, dict) else {}
    names: list[str] | None = feature.get("names")
    return names

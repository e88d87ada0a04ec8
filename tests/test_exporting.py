"""The export: every row that did not stick, flat, whole and loadable by the tools that it is for."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fake_rows import FakeRows
from fake_run import FakeRun
from whatstuck.errors import WhatStuckError
from whatstuck.results import load_run
from whatstuck.rows.causes.names import NUMERALS
from whatstuck.rows.exporting import export_jsonl
from whatstuck.rows.schemas import UNLEARNED, VERDICTS

WORD = "Zanzibar"
AWKWARD = f'{WORD} "quoted"\nשלום\u2028</script>'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    every = range(40)
    fake = FakeRows(prompts=dict.fromkeys(every, AWKWARD), gold=dict.fromkeys(every, WORD))
    return fake.write(tmp_path_factory.mktemp("run") / "demo")


def records_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def test_every_row_that_did_not_stick_is_a_line_in_the_order_of_the_table(folder: Path) -> None:
    path = export_jsonl(folder)
    assert path == folder / "unlearned.jsonl"
    records = records_of(path)
    unlearned = pq.read_table(folder / "unlearned.parquet").to_pylist()
    verdicts = {record["row_id"]: record for record in pq.read_table(folder / "verdicts.parquet").to_pylist()}
    assert [record["id"] for record in records] == [row["row_id"] for row in unlearned]
    for record, row in zip(records, unlearned, strict=True):
        verdict = verdicts[row["row_id"]]
        assert record["prompt"] == record["query"] == AWKWARD
        assert record["label"] == record["response"] == WORD
        assert record["text"] == f"{AWKWARD}\n{WORD}"
        assert record["answer"] == verdict["greedy"]
        assert record["cause_numeral"] == NUMERALS[row["cause"]]
        for name in ("cause", "verdict", "rate", "nll", "source_index"):
            assert record[name] == {**verdict, **row}[name]
        assert record["meta"]["cause"] == record["cause"]
        assert record["stats"]["nll"] == record["nll"]
        assert len(record["evidence"].split("\n")) == 6


def test_all_records_have_the_same_names_and_types(folder: Path) -> None:
    records = records_of(export_jsonl(folder))
    assert len({tuple(record) for record in records}) == 1
    kinds = {name: {type(record[name]) for record in records if record[name] is not None} for name in records[0]}
    assert all(len(found) <= 1 for found in kinds.values())
    nested = {name for name, found in kinds.items() if found & {dict, list}}
    assert nested == {"meta", "stats"}  # the rest is flat


def test_without_text_nothing_of_the_rows_is_left(folder: Path, tmp_path: Path) -> None:
    path = export_jsonl(folder, tmp_path / "bare.jsonl", text=False)
    content = path.read_text(encoding="utf-8")
    assert WORD not in content
    assert "row-0" not in content  # ids may be a user's own text
    records = records_of(path)
    assert all(record["id"] == f"row {record['source_index']}" for record in records)
    assert list(records[0]) == list(records_of(export_jsonl(folder))[0])
    assert all(record["cause"] in NUMERALS and record["advice"] is None for record in records)


def test_tools_load_it(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    path = export_jsonl(folder)
    # what cleanlab's Datalab and data-juicer do with a JSONL file
    table = datasets.Dataset.from_list(records_of(path))
    assert set(table.column_names) >= {"id", "text", "label", "meta", "stats"}
    assert table.features["meta"]["cause"].dtype == "string"
    assert len(table) == len(records_of(path))


def test_what_is_not_known_is_null(folder: Path, tmp_path: Path) -> None:
    table = pq.read_table(folder / "verdicts.parquet")
    rows = table.to_pylist()
    for row in rows:
        row |= {"nll": math.nan, "rate": math.inf, "greedy": None}
    pq.write_table(type(table).from_pylist(rows, schema=VERDICTS), tmp_path / "verdicts.parquet")
    (tmp_path / "unlearned.parquet").write_bytes((folder / "unlearned.parquet").read_bytes())
    for record in records_of(export_jsonl(tmp_path)):
        assert record["nll"] is record["rate"] is record["answer"] is record["stats"]["nll"] is None


def test_a_run_without_such_rows_gives_an_empty_file(tmp_path: Path) -> None:
    folder = FakeRows(learned=1.0).write(tmp_path / "run")
    assert export_jsonl(folder).read_text() == ""


def test_bad_targets_are_one_clear_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WhatStuckError, match="is missing"):
        export_jsonl(tmp_path)
    with pytest.raises(WhatStuckError, match="is a folder"):
        export_jsonl(folder, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(WhatStuckError, match="choose another path"):
        export_jsonl(folder, tmp_path / "file" / "inside.jsonl")


def test_tables_that_do_not_belong_together_are_refused(folder: Path, tmp_path: Path) -> None:
    few = pq.read_table(folder / "verdicts.parquet").slice(0, 1)
    pq.write_table(few, tmp_path / "verdicts.parquet")
    (tmp_path / "unlearned.parquet").write_bytes((folder / "unlearned.parquet").read_bytes())
    with pytest.raises(WhatStuckError, match="lacks"):
        export_jsonl(tmp_path)


def test_a_run_is_read_from_python(folder: Path, tmp_path: Path) -> None:
    run = load_run(folder)
    assert run.verdicts.schema.names == VERDICTS.names
    assert run.unlearned.schema.names == UNLEARNED.names
    assert len(run.trajectories(20)) == len(run.verdicts) == 40
    with pytest.raises(WhatStuckError, match=r"step 21 .* \[0, 20, 40, 80, 120, 160\]"):
        run.trajectories(21)
    with pytest.raises(WhatStuckError, match="holds no interventions"):
        _ = run.interventions
    for name in ("verdict", "steps"):
        with pytest.raises(WhatStuckError, match="was not made by `whatstuck track` but by `whatstuck rows`"):
            getattr(run, name)
    tracked = load_run(FakeRun().write(tmp_path / "track"))
    assert tracked.verdict["keep_step"] == 32
    with pytest.raises(WhatStuckError, match="was not made by `whatstuck rows` but by `whatstuck track`"):
        _ = tracked.unlearned

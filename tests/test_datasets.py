"""Rows from every file and shape that users have, and the line that is named when a file is bad."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whatstuck.datasets import Message, Row, read_rows, row_hash, write_rows
from whatstuck.errors import WhatStuckError

QUESTION = Message("user", "Which animal barks?")


def jsonl(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def one(path: Path, record: dict[str, Any]) -> Row:
    (row,) = read_rows(jsonl(path / "rows.jsonl", record))
    return row


SAME_ROW = {
    "messages": {
        "messages": [{"role": "user", "content": QUESTION.content}, {"role": "assistant", "content": "A dog"}]
    },
    "text parts": {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "Which animal "}, {"type": "text", "text": "barks?"}],
            },
            {"role": "assistant", "content": "A dog", "tool_calls": None},
            {"role": "user", "content": "And which one purrs?"},
        ]
    },
    "sharegpt": {
        "conversations": [{"from": "human", "value": QUESTION.content}, {"from": "gpt", "value": "A dog"}],
        "tools": None,
    },
    "prompt/completion": {"prompt": QUESTION.content, "completion": "A dog", "source": "zoo"},
    "TRL conversational": {
        "prompt": [{"role": "user", "content": QUESTION.content}],
        "completion": [{"role": "assistant", "content": "A dog"}],
    },
    "prompt messages, completion text": {
        "prompt": [{"role": "user", "content": QUESTION.content}],
        "completion": "A dog",
    },
    "alpaca": {"instruction": QUESTION.content, "input": "", "output": "A dog", "text": "### Instruction: …"},
    "question/answer": {"question": QUESTION.content, "answer": "A dog"},
    "text/label": {"text": QUESTION.content, "label": "A dog"},
    "end marker": {"prompt": QUESTION.content, "completion": "A dog<|im_end|>\n"},
}


@pytest.mark.parametrize("record", SAME_ROW.values(), ids=SAME_ROW.keys())
def test_shapes_that_say_the_same_give_the_same_row(tmp_path: Path, record: dict[str, Any]) -> None:
    row_id = row_hash((QUESTION,), "A dog")
    assert one(tmp_path, record) == Row(row_id, (QUESTION,), "A dog", 0, "heldout")


def test_alpaca_joins_its_parts_and_keeps_history_and_system(tmp_path: Path) -> None:
    row = one(
        tmp_path,
        {
            "instruction": "Translate.",
            "context": "ein Hund",
            "response": "a dog",
            "history": [["Hi", "Hello"]],
            "system": "Be short.",
            "category": "language",
        },
    )
    assert [(m.role, m.content) for m in row.messages] == [
        ("system", "Be short."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Translate.\nein Hund"),
    ]
    assert row.completion == "a dog"


def test_plain_text_ends_in_its_completion(tmp_path: Path) -> None:
    row = one(tmp_path, {"text": "Once upon a time</s>\n"})
    assert (row.content, row.completion, row.plain) == ("Once upon a", " time", True)
    assert one(tmp_path, {"text": "Question?\nYes"}).messages == (Message("user", "Question?\n"),)
    with pytest.raises(WhatStuckError, match="line 1: text needs at least two words"):
        one(tmp_path, {"text": " word "})


def test_row_id_depends_on_the_text_alone_and_duplicates_are_numbered(tmp_path: Path) -> None:
    first, second = {"prompt": "a b", "completion": "c"}, {"prompt": "a", "completion": "b c"}
    path = jsonl(tmp_path / "rows.jsonl", first, second, first, first, {**second, "id": 7}, {**first, "id": 7})
    ids = [row.row_id for row in read_rows(path, split="train")]
    assert ids == [ids[0], ids[1], f"{ids[0]}-2", f"{ids[0]}-3", "7", "7-2"]
    assert ids[0] != ids[1]
    assert ids[0] == "05a38519f53148e8" == row_hash((Message("user", "a b"),), "c")  # the same in every release


def test_instruction_stands_before_the_last_user_message(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "I lost my keys"},
        {"role": "assistant", "content": "sad"},
    ]
    path = jsonl(tmp_path / "rows.jsonl", {"messages": turns, "players": [[7, 9], [2, 6]]})
    (row,) = read_rows(path, instruction="Name the feeling.")
    assert row.messages[0].content == "Hi"
    assert row.content == "Name the feeling.\n\nI lost my keys"
    assert row.content[row.content_start :] == "I lost my keys"
    assert [row.content[a:b] for a, b in row.players or ()] == ["lost", "my"]
    assert read_rows(path, instruction=" ")[0].content_start == 0


class TestFiles:
    """The same two rows in every kind of file."""

    records = (
        {"prompt": 'Say "dog", then\na cat', "completion": "dog"},
        {"prompt": "Käse\u2028und", "completion": "Brot"},
    )
    expected = tuple((r["prompt"], r["completion"]) for r in records)

    def check(self, path: Path, **options: Any) -> None:
        rows = read_rows(path, **options)
        assert tuple((row.content, row.completion) for row in rows) == self.expected
        assert [row.source_index for row in rows] == [0, 1]

    def test_jsonl_with_byte_order_mark_blank_lines_and_dos_ends(self, tmp_path: Path) -> None:
        text = "\r\n\r\n".join(json.dumps(record, ensure_ascii=False) for record in self.records)
        (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
        self.check(tmp_path / "rows.jsonl")

    @pytest.mark.parametrize("wrap", [list, lambda rows: {"version": 1, "data": list(rows)}], ids=["list", "object"])
    def test_json(self, tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
        (tmp_path / "rows.json").write_text(json.dumps(wrap(self.records), indent=1), encoding="utf-8")
        self.check(tmp_path / "rows.json")

    def test_json_that_is_json_lines(self, tmp_path: Path) -> None:
        self.check(jsonl(tmp_path / "rows.json", *self.records))

    def test_csv(self, tmp_path: Path) -> None:
        text = 'prompt,completion\r\n"Say ""dog"", then\na cat",dog\r\n\r\nKäse\u2028und,Brot'
        (tmp_path / "rows.csv").write_bytes(text.encode())
        self.check(tmp_path / "rows.csv")

    def test_parquet(self, tmp_path: Path) -> None:
        table = pa.Table.from_pylist([{**record, "text": None} for record in self.records])
        pyarrow.parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=1)
        self.check(tmp_path / "rows.parquet")

    def test_saved_dataset_and_dictionary(self, tmp_path: Path) -> None:
        datasets = pytest.importorskip("datasets", reason="writing a dataset folder needs the trl extra")
        whole = datasets.Dataset.from_list(list(self.records))
        whole.save_to_disk(tmp_path / "one", num_shards=2)
        self.check(tmp_path / "one")
        other = datasets.Dataset.from_list([{"prompt": "x", "completion": "y"}])
        datasets.DatasetDict({"train": other, "test": whole}).save_to_disk(tmp_path / "two")
        self.check(tmp_path / "two")
        assert read_rows(tmp_path / "two", split="train")[0].completion == "y"
        datasets.DatasetDict({"train": other, "test": whole, "validation": other}).save_to_disk(tmp_path / "three")
        with pytest.raises(
            WhatStuckError, match="holds the splits train, test, validation: give the folder of the one"
        ):
            read_rows(tmp_path / "three")
        self.check(tmp_path / "three" / "test")
        (tmp_path / "one" / "data-00001-of-00002.arrow").unlink()
        with pytest.raises(WhatStuckError, match=r"data-00001-of-00002.arrow is missing"):
            read_rows(tmp_path / "one")

    def test_datasets_class_labels_are_named(self, tmp_path: Path) -> None:
        datasets = pytest.importorskip("datasets", reason="writing a dataset folder needs the trl extra")
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
        )
        data = datasets.Dataset.from_list([{"text": "Is it so?", "label": 1}], features=features)
        data.save_to_disk(tmp_path / "folder")
        assert read_rows(tmp_path / "folder")[0].completion == "yes"


class TestTables:
    """CSV and TSV without a header, and label ids."""

    @pytest.fixture
    def labels(self, tmp_path: Path) -> Path:
        path = tmp_path / "labels.txt"
        path.write_text("joy\nanger\nfear\n", encoding="utf-8")
        return path

    def test_headerless_tsv_takes_quotes_as_characters(self, tmp_path: Path, labels: Path) -> None:
        path = tmp_path / "rows.tsv"
        path.write_text('"Open quote\t0\ta1\nMine" too, "and mine"\t1,2\ta2\n"all"\t2\ta3\n', encoding="utf-8")
        rows = read_rows(path, columns=["text", "labels", "id"], labels=labels)
        assert [(r.content, r.completion, r.row_id) for r in rows] == [
            ('"Open quote', "joy", "a1"),
            ('Mine" too, "and mine"', "anger, fear", "a2"),
            ('"all"', "fear", "a3"),
        ]

    def test_headed_tsv_unquotes_whole_cells(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.tsv"
        path.write_text('text\tlabel\n"a ""b"" c"\tone\n"x" and "y"\ttwo\n', encoding="utf-8")
        assert [(r.content, r.completion) for r in read_rows(path)] == [('a "b" c', "one"), ('"x" and "y"', "two")]

    def test_headed_csv_with_label_ids_and_headerless_csv(self, tmp_path: Path, labels: Path) -> None:
        path = tmp_path / "rows.csv"
        path.write_text('text,label\n"Oh, no",2\nFine,0\n', encoding="utf-8")
        assert [row.completion for row in read_rows(path, labels=labels)] == ["fear", "joy"]
        assert [row.completion for row in read_rows(path)] == ["2", "0"]
        with pytest.raises(WhatStuckError, match="line 1: this is a header line: leave columns out"):
            read_rows(path, columns=["text", "label"])
        path.write_text('"Oh, no",2,"[[4, 6]]"\n', encoding="utf-8")
        (row,) = read_rows(path, columns=["text", "label", "players"], labels=labels)
        assert row.players == ((4, 6),)

    @pytest.mark.parametrize("cell", ["3", "-1", "joy", "1,,2", ""])
    def test_a_bad_label_id_names_its_line(self, tmp_path: Path, labels: Path, cell: str) -> None:
        path = tmp_path / "rows.tsv"
        path.write_text(f"fine\t0\nbad\t{cell}\n", encoding="utf-8")
        with pytest.raises(WhatStuckError, match=r"rows\.tsv line 2: label .* is none of the ids 0 to 2"):
            read_rows(path, columns=["text", "labels"], labels=labels)

    def test_label_file_problems(self, tmp_path: Path, labels: Path) -> None:
        path = jsonl(tmp_path / "rows.jsonl", {"question": "a", "answer": "b"})
        with pytest.raises(WhatStuckError, match="have no label"):
            read_rows(path, labels=labels)
        with pytest.raises(WhatStuckError, match="no such file"):
            read_rows(path, labels=tmp_path / "none.txt")
        labels.write_text("joy\n\nfear\n", encoding="utf-8")
        with pytest.raises(WhatStuckError, match=r"labels\.txt line 2: empty"):
            read_rows(path, labels=labels)


GOOD = {"prompt": "a b", "completion": "c"}
BAD_LINES = {
    "broken JSON": ('{"prompt": "a", ', "broken JSON"),
    "deep JSON": ("[" * 100_000, "broken JSON: nested too deeply"),
    "no object": ("[1]", "must be an object with named fields, found list"),
    "unknown keys": (
        '{"ask": 1, "reply": 2}',
        "no known shape, fields found: ask, reply; known shapes: messages; conv",
    ),
    "mixed shapes": (
        '{"question": "a", "answer": "b"}',
        "of the shape .question, answer., those before of .prompt, com",
    ),
    "empty completion": ('{"prompt": "a", "completion": " "}', "the completion is empty"),
    "only an end marker": ('{"prompt": "a", "completion": "</s>"}', "the completion is empty"),
    "empty prompt": ('{"prompt": "", "completion": "b"}', "the prompt .last user message. is empty"),
    "number as text": ('{"prompt": 5, "completion": "b"}', "prompt must be text, found int"),
    "null message": (
        '{"prompt": [{"role": "user"}], "completion": "b"}',
        "message 1 of prompt must be text, found None",
    ),
    "no message": ('{"prompt": ["a"], "completion": "b"}', "message 1 of prompt must be an object, found str"),
    "unknown role": ('{"prompt": [{"role": "king", "content": "a"}], "completion": "b"}', "unknown role 'king'"),
    "no answer": ('{"prompt": "a", "completion": [{"role": "user", "content": "b"}]}', "no assistant message"),
    "no user": ('{"prompt": [{"role": "system", "content": "b"}], "completion": "b"}', "no user message"),
    "surrogate": ('{"prompt": "\\ud83d", "completion": "b"}', "half of a surrogate pair"),
    "players type": ('{"prompt": "a b", "completion": "b", "players": "a"}', "players must be a list of"),
    "player type": ('{"prompt": "a b", "completion": "b", "players": [[0, 1.5]]}', "must be a span"),
    "player outside": ('{"prompt": "a b", "completion": "b", "players": [[2, 4]]}', "offsets run from 0 to 3"),
    "player of space": ('{"prompt": "a b", "completion": "b", "players": [[1, 2]]}', "is no text of the last user"),
    "players overlap": ('{"prompt": "abc", "completion": "b", "players": [[1, 3], [0, 2]]}', r"\[1, 3\] overlaps"),
    "no players": ('{"prompt": "a b", "completion": "b", "players": []}', "players is an empty list"),
    "bad start": ('{"prompt": "a b", "completion": "b", "content_start": 9}', "content_start 9 lies outside"),
    "bad id": ('{"prompt": "a b", "completion": "b", "row_id": [1]}', "row_id must be text or a whole number"),
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n\n{line}\nworse\n", encoding="utf-8")
    with pytest.raises(WhatStuckError, match=rf"\Arows\.jsonl line 3: .*{message}") as caught:
        read_rows(path)
    assert "\n" not in str(caught.value)
    assert len(read_rows(path, limit=1)) == 1


BAD_FILES = {
    "empty.jsonl": (b"\n\n", "there are no rows in it"),
    "empty.json": (b"", "there are no rows in it"),
    "header.csv": (b"text,label\n", "there are no rows in it"),
    "rows.xlsx": (b"PK", "unknown kind of file '.xlsx'"),
    "rows.json": (b'{\n"a": [1],\n"b": [2]}', r"rows\.json: expected a list of rows, .* lists found: a, b"),
    "word.json": (b'"a"', "expected a list of rows, found str"),
    "cut.json": (b'[{"a": 1},\n', r"cut\.json line 2: broken JSON"),
    "item.json": (b'[{"prompt": "a", "completion": "b"}, {"prompt": "a"}]', r"item\.json row 2: no known shape"),
    "latin.csv": (b"text,label\nfine,1\ncaf\xe9,2\n", r"latin\.csv line 3: not UTF-8"),
    "open.csv": (b'text,label\nfine,1\n"never closed,2\nx,3\n', r"open\.csv line 3: broken CSV: .* quote left open"),
    "short.csv": (b'text,label\n"two\nlines",1\nalone\n', r"short\.csv line 4: 1 cells, expected 2 \(text, label\)"),
    "twice.tsv": (b"text\ttext\na\tb\n", "the header names a column twice"),
    "rows.parquet": (b"PAR1", r"rows\.parquet: broken Parquet file"),
}


@pytest.mark.parametrize(("name", "data", "message"), [(k, *v) for k, v in BAD_FILES.items()], ids=BAD_FILES.keys())
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(WhatStuckError, match=message) as caught:
        read_rows(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_bad_calls(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", GOOD)
    for message, call in {
        "no such file": lambda: read_rows(tmp_path / "none.jsonl"),
        "no saved dataset in this folder": lambda: read_rows(tmp_path),
        "columns are for CSV and TSV": lambda: read_rows(path, columns=["text"]),
        "limit must be at least 1": lambda: read_rows(path, limit=0),
        "unknown split 'dev'": lambda: read_rows(path, split="dev"),
    }.items():
        with pytest.raises(WhatStuckError, match=message):
            call()


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
words = texts.filter(lambda text: text.strip() != "")


@st.composite
def any_row(draw: st.DrawFn) -> Row:
    before = draw(
        st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant", "tool"]), texts), max_size=3)
    )
    content, lead = draw(words), draw(st.sampled_from(["", "Name it.\n\n"]))
    start = len(lead) + len(content) - len(content.lstrip())
    players = ((start, start + 1),) if draw(st.booleans()) else None
    return Row(
        row_id=draw(st.uuids()).hex,
        messages=(*before, Message("user", lead + content)),
        completion=draw(words),
        source_index=draw(st.integers(0, 10**9)),
        split=draw(st.sampled_from(["heldout", "train"])),
        players=players,
        content_start=len(lead),
        plain=draw(st.booleans()),
    )


# tmp_path is shared by the examples: each writes the same file anew.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(rows=st.lists(any_row(), min_size=1, max_size=3, unique_by=lambda row: row.row_id))
def test_written_rows_are_read_back_equal(tmp_path: Path, rows: list[Row]) -> None:
    write_rows(rows, tmp_path / "rows.jsonl")
    assert read_rows(tmp_path / "rows.jsonl") == rows
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]  # nothing half-written stays


def test_write_refuses_shared_ids_and_other_formats(tmp_path: Path) -> None:
    row = Row("a", (QUESTION,), "A dog", 0, "heldout")
    with pytest.raises(WhatStuckError, match="two rows share a row_id"):
        write_rows([row, row], tmp_path / "rows.jsonl")
    with pytest.raises(WhatStuckError, match=r"name that ends in \.jsonl"):
        write_rows([row], tmp_path / "rows.csv")


def test_goemotions(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("goemotions")
    rows = read_rows(folder / "train.tsv", columns=["text", "labels", "id"], labels=folder / "labels.txt")
    assert len(rows) == len({row.row_id for row in rows}) == 43_410
    assert sum(row.completion == "neutral" for row in rows) == 12_823
    assert sum("," in row.completion for row in rows) == 6_541 + 561


def test_gsm8k_and_prompt_variants(shared_data: Callable[[str], Path]) -> None:
    assert len(read_rows(shared_data("gsm8k") / "test.jsonl")) == 1_319
    path = shared_data("prompt_variants") / "paws" / "paws_labeled_final_Concatenation.jsonl"
    assert {row.completion for row in read_rows(path)} == {"Yes", "No"}  # <|endoftext|> is taken off

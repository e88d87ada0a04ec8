"""The prompt-diverse training set: same rows, balanced wordings, a manifest, and nothing overwritten in silence."""

import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from whatstuck.datasets import read_rows
from whatstuck.errors import WhatStuckError
from whatstuck.generalization.diversify import DiversifySettings, diversify
from whatstuck.generalization.own import load_task

YAML = """\
answer: label
templates:
  plain: "{text} Say {pos} or {neg}."
  polite: "Please say {neg} or {pos}: {text}"
  bare: "{text}"
  kept: "Kept back: {text} ({pos}, {neg})"
mappings:
  words: {pos: good, neg: bad}
  letters: {pos: A, neg: B}
  secret: {pos: C, neg: D}
held_out: [kept, secret]
prefill: "I say"
"""
POOL = "words: [one, two, three, four, five, six]\n"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    data = tmp_path / "train.jsonl"
    rows = [{"text": f"Film {i}.", "label": "pos" if i % 4 else "neg"} for i in range(103)]
    data.write_text("\n".join(json.dumps(row) for row in [*rows, rows[0]]), encoding="utf-8")
    templates = tmp_path / "templates.yaml"
    templates.write_text(YAML, encoding="utf-8")
    return data, templates, tmp_path / "new" / "out.jsonl"


def test_the_same_rows_in_balanced_wordings(files: tuple[Path, Path, Path]) -> None:
    data, templates, out = files
    manifest = diversify(data, templates, out, seed=1)
    rows = read_rows(out)
    assert [row.source_index for row in rows] == list(range(104))
    assert all(f"Film {i}." in row.content for i, row in enumerate(rows[:103]))
    assert rows[103].row_id == f"{rows[0].row_id}-2"
    # five wordings: two templates say what labels mean, the bare one does not
    assert [(w["template"], w["mapping"]) for w in manifest["wordings"]] == [
        ("plain", "words"),
        ("polite", "letters"),
        ("plain", "letters"),
        ("polite", "words"),
        ("bare", "words"),
    ]
    assert sorted(w["rows"] for w in manifest["wordings"]) == [20, 21, 21, 21, 21]
    assert manifest["not_used"] == {"kept": "held out", "secret": "held out"}
    assert manifest == json.loads((out.parent / "out.manifest.json").read_text(encoding="utf-8"))
    assert manifest["contents"] == 103
    # the answer is the word of the mapping that the prompt shows
    labels = [json.loads(line)["label"] for line in data.read_text(encoding="utf-8").splitlines()]
    words = {"pos": "good", "neg": "bad"}
    letters = {"pos": "A", "neg": "B"}
    prompts = {
        "Film 1. Say good or bad.": words,
        "Film 1. Say A or B.": letters,
        "Please say B or A: Film 1.": letters,
        "Please say bad or good: Film 1.": words,
        "Film 1.": words,
    }
    seen = set()
    for i, (row, label) in enumerate(zip(rows[:103], labels, strict=False)):
        prompt = row.content.replace(f"Film {i}.", "Film 1.")
        assert row.completion == f"I say {prompts[prompt][label]}"
        seen.add((prompt, label))
    assert len(seen) == 10


def test_labels_are_balanced_within_wordings(files: tuple[Path, Path, Path]) -> None:
    data, templates, out = files
    diversify(data, templates, out, wordings=2)
    labels = [json.loads(line)["label"] for line in data.read_text(encoding="utf-8").splitlines()]
    shares = Counter(
        (row.content.startswith("Please"), label) for row, label in zip(read_rows(out), labels, strict=True)
    )
    assert abs(shares[True, "pos"] - shares[False, "pos"]) <= 1
    assert abs(shares[True, "neg"] - shares[False, "neg"]) <= 1


def test_fewer_wordings_are_a_part_of_more_and_one_is_the_training(files: tuple[Path, Path, Path]) -> None:
    data, templates, out = files
    wordings = [
        [(w["template"], w["mapping"]) for w in diversify(data, templates, out, wordings=k, dry_run=True)["wordings"]]
        for k in (1, 2, 4, "all")
    ]
    assert not out.exists()
    assert wordings[0] == [("plain", "words")]
    assert all(few == more[: len(few)] for few, more in itertools.pairwise(wordings))
    frozen, diverse = out.parent / "frozen.jsonl", out
    manifest = diversify(data, templates, frozen, wordings="1")
    assert manifest["not_used"]["letters"] == "beyond --wordings"
    diversify(data, templates, diverse, wordings="4")
    assert [row.row_id for row in read_rows(frozen)] == [row.row_id for row in read_rows(diverse)]
    assert read_rows(frozen)[1].content == "Film 1. Say good or bad."


def test_many_draws_words_for_every_row(files: tuple[Path, Path, Path]) -> None:
    data, templates, out = files
    templates.write_text(YAML + POOL, encoding="utf-8")
    manifest = diversify(data, templates, out, wordings="many")
    assert [(w["template"], w["mapping"]) for w in manifest["wordings"]] == [
        ("plain", None),
        ("polite", None),
        ("bare", "words"),
    ]
    assert manifest["not_used"]["letters"] == "words are drawn for every row"
    labels = [json.loads(line)["label"] for line in data.read_text(encoding="utf-8").splitlines()]
    drawn = Counter()
    for row, label in zip(read_rows(out), labels, strict=True):
        if ". Say " in row.content:
            pos, neg = row.content.split(". Say ")[1].rstrip(".").split(" or ")
            assert pos != neg
            assert row.completion == f"I say {pos if label == 'pos' else neg}"
            drawn[pos, neg] += 1
    assert len(drawn) > 15  # of 30 pairs


def test_the_task_of_the_same_file_knows_the_rows_that_were_trained(files: tuple[Path, Path, Path]) -> None:
    data, templates, out = files
    diversify(data, templates, out)
    task_file = out.parent / "task.yaml"
    test = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()][:3]
    test.append({"text": "Film 999.", "label": "pos"})
    (out.parent / "test.jsonl").write_text("\n".join(json.dumps(row) for row in test), encoding="utf-8")
    task_file.write_text(YAML + "data: test.jsonl\ntrain: out.jsonl\n", encoding="utf-8")
    task = load_task(task_file)
    assert task.notes == ("3 of 4 test rows are in out.jsonl, too, and are left out.",)
    assert task.source.unseen  # every row was compared


def test_rows_with_drawn_words_are_known_by_their_ids(files: tuple[Path, Path, Path]) -> None:
    """Their prompts hold words that no mapping names; harder rows are looked at as well."""
    data, templates, out = files
    templates.write_text(YAML + POOL, encoding="utf-8")
    diversify(data, templates, out, wordings="many")
    trained = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    rows = [*trained[:3], *({"text": f"New {i}.", "label": "pos"} for i in range(4))]
    (out.parent / "test.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    hard = [trained[0], trained[50], {"text": "A long new one.", "label": "neg"}]
    (out.parent / "hard.jsonl").write_text("\n".join(json.dumps(row) for row in hard), encoding="utf-8")
    task_file = out.parent / "task.yaml"
    text = YAML + POOL + "data: test.jsonl\ntrain: out.jsonl\nharder: hard.jsonl\n"
    task_file.write_text(text, encoding="utf-8")
    left_out = (
        "3 of 7 test rows are in out.jsonl, too, and are left out.",
        "2 of 3 rows of 'Harder' are in out.jsonl, too, and are left out.",
    )
    task = load_task(task_file)
    assert task.notes == left_out
    assert [row.texts["text"] for row in task.source.harder["Harder"]] == ["A long new one."]
    assert task.source.unseen
    # rows that were added by hand are none of the manifest
    made = out.read_text(encoding="utf-8")
    foreign = json.loads(made.splitlines()[0].replace("Film 0.", "Film 998."))
    out.write_text(made + json.dumps(foreign) + "\n", encoding="utf-8")
    assert not load_task(task_file).source.unseen
    out.write_text(made, encoding="utf-8")
    # without the manifest nobody knows what the ids are made of; those that match are still left out
    (out.parent / "out.manifest.json").unlink()
    task = load_task(task_file)
    assert not task.source.unseen
    unlike, *rest = task.notes
    assert rest == list(left_out)
    # words were drawn for some; and the template without text of its own fits whatever prompt
    assert unlike.startswith("Of 104 rows of out.jsonl, 104 cannot be compared with those of the test")
    (out.parent / "hard.jsonl").write_text(json.dumps(trained[9]), encoding="utf-8")
    with pytest.raises(WhatStuckError, match=r"every row of 'Harder' stands in out\.jsonl"):
        load_task(task_file)


def test_a_set_that_trains_what_will_be_asked_is_warned_of(
    files: tuple[Path, Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    data, templates, out = files
    diversify(data, templates, out, dry_run=True)
    assert caplog.text == ""
    templates.write_text(YAML.replace("held_out: [kept, secret]\n", ""), encoding="utf-8")
    diversify(data, templates, out, wordings=1, dry_run=True)  # the frozen training trains none of them
    assert caplog.text == ""
    diversify(data, templates, out, wordings=2, dry_run=True)
    assert "templates.yaml holds nothing out: generalize will ask polite, letters, which this set trains" in caplog.text


def test_settings_of_a_config_are_checked(files: tuple[Path, Path, Path]) -> None:
    data, templates, out = files
    given = {"data": data, "templates": templates, "out": out}
    assert DiversifySettings.read(**given, wordings=" 3 ").wordings == 3
    for wrong, message in (
        ({"templates": 5}, "--templates: .*got 5"),
        ({"seed": "x"}, "--seed: "),
        ({"seed": True}, "--seed: "),
        ({"wordigns": 2}, "'wordigns' is no setting of diversify: did you mean wordings"),
        ({"wordings": None}, "--wordings: "),
    ):
        with pytest.raises(WhatStuckError, match=message) as caught:
            DiversifySettings.read(**{**given, **wrong})
        assert "\n" not in str(caught.value)


def test_the_same_again_is_done_and_anything_else_stays(files: tuple[Path, Path, Path]) -> None:
    data, templates, out = files
    first = diversify(data, templates, out)
    content = out.read_bytes()
    assert diversify(data, templates, out) == first
    with pytest.raises(WhatStuckError, match="holds something else: give another --out"):
        diversify(data, templates, out, seed=1)
    assert out.read_bytes() == content
    (out.parent / "out.manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(WhatStuckError, match="says something else"):
        diversify(data, templates, out)
    assert sorted(path.name for path in out.parent.iterdir()) == ["out.jsonl", "out.manifest.json"]


@pytest.mark.parametrize(
    ("wordings", "message"),
    [
        ("many", "has none to draw from: name them under  words:"),
        (6, "has 5 wordings that may be trained .3 templates, 2 mappings.: give 1 to 5"),
        (0, "give 1 to 5"),
        (2.7, "must be all, many, or a number .got 2.7"),
        (None, "--wordings: .*must be all, many, or a number .got None"),
        ([1], r"must be all, many, or a number .got \[1\]"),
        (True, "must be all, many, or a number .got True"),
        ("several", "must be all, many, or a number .got 'several'"),
    ],
)
def test_wordings_that_there_are_not(files: tuple[Path, Path, Path], wordings: Any, message: str) -> None:
    data, templates, out = files
    with pytest.raises(WhatStuckError, match=message):
        diversify(data, templates, out, wordings=wordings)


def test_bad_rows_and_names(files: tuple[Path, Path, Path]) -> None:
    data, templates, out = files
    with pytest.raises(WhatStuckError, match=r"give a name that ends in \.jsonl"):
        diversify(data, templates, out.with_suffix(".csv"))
    with data.open("a", encoding="utf-8") as file:
        file.write('\n{"text": "x", "label": "neutral"}')
    with pytest.raises(WhatStuckError, match=r"train\.jsonl line 105: the label 'neutral' has no meaning"):
        diversify(data, templates, out)
    templates.write_text(YAML.replace("{text}", "{txt}"), encoding="utf-8")
    with pytest.raises(WhatStuckError, match=r"unknown slot \{txt\}: did you mean 'text'"):
        diversify(data, templates, out)
    assert not out.exists()


def test_the_verb(files: tuple[Path, Path, Path]) -> None:
    data, templates, out = files

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "whatstuck", "diversify", str(data), "--out", str(out), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    said = call("--templates", str(templates), "--wordings", "2", "--json")
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["wordings"] == [
        {"template": "plain", "mapping": "words", "rows": 52},
        {"template": "polite", "mapping": "letters", "rows": 52},
    ]
    assert len(read_rows(out)) == 104
    said = call()
    assert said.returncode == 2
    assert said.stderr == "whatstuck: --templates is missing: give it as a flag, or in --config\n"
    said = call("--templates", str(templates), "--dry-run")
    assert "polite with letters: 21" in said.stdout
    assert "- kept: not used (held out)" in said.stdout
    config = out.parent / "config.yaml"
    config.write_text("wordings: null\n", encoding="utf-8")
    said = call("--templates", str(templates), "--config", str(config))
    assert (said.returncode, said.stderr.count("\n")) == (2, 1)
    assert said.stderr.startswith("whatstuck: --wordings: ")

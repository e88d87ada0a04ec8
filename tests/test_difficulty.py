"""Difficulty-curated data: what is easy, medium and hard, and what is kept."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import helpers
from whatstuck.datasets import Row, read_rows
from whatstuck.errors import WhatStuckError
from whatstuck.training.difficulty import Difficulty, curate, difficulties


def first_letters(letters: str) -> Any:
    """A checker that is right about answers by their first letter."""
    return lambda _row, answer: answer[:1] in letters


@pytest.fixture(scope="module")
def asked(tiny_base: Path, tiny_rows: Path) -> tuple[Any, Any, list[Row]]:
    model = AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    return model, AutoTokenizer.from_pretrained(tiny_base), read_rows(tiny_rows, split="train", limit=12)


def test_levels_follow_from_the_counts() -> None:
    levels = [Difficulty("a", samples, right).level for samples, right in ((8, 8), (8, 1), (8, 7), (8, 0), (0, 0))]
    assert levels == ["easy", "medium", "medium", "hard", "unknown"]


def test_rows_are_judged_by_their_own_draws(asked: tuple[Any, Any, list[Row]]) -> None:
    model, tokenizer, rows = asked
    found = difficulties(model, tokenizer, rows, first_letters("gsaw"))  # all that this model ever says
    assert {one.level for one in found} == {"easy"}
    assert {one.level for one in difficulties(model, tokenizer, rows, first_letters("z"))} == {"hard"}
    mixed = difficulties(model, tokenizer, rows, first_letters("g"), seed=3)
    assert "medium" in {one.level for one in mixed}
    alone = difficulties(model, tokenizer, rows[4:5], first_letters("g"), seed=3)
    assert alone == mixed[4:5]
    assert difficulties(model, tokenizer, rows, first_letters("g"), seed=4) != mixed


def test_what_cannot_be_judged_is_unknown_not_hard(
    asked: tuple[Any, Any, list[Row]], caplog: pytest.LogCaptureFixture
) -> None:
    model, tokenizer, rows = asked

    def picky(row: Row, answer: str) -> bool:
        if row == rows[0]:
            raise RuntimeError("no idea")
        return bool(answer)

    with caplog.at_level(logging.WARNING, logger="whatstuck"):
        found = difficulties(model, tokenizer, rows[:2], picky, samples=2)
    assert [(one.level, one.reason) for one in found] == [("unknown", "its check failed"), ("easy", "")]
    assert "no idea" in caplog.text
    (long,) = difficulties(model, tokenizer, rows[:1], first_letters("g"), max_new_tokens=250)
    assert (long.level, long.reason) == ("unknown", "longer than the context")


@pytest.mark.parametrize(("keep", "levels"), [("M", {"medium"}), ("EM", {"easy", "medium"})])
def test_the_file_holds_the_rows_that_are_kept(
    tiny_base: Path, tiny_rows: Path, tiny_run: Path, tmp_path: Path, keep: Any, levels: set[str]
) -> None:
    out = tmp_path / "curated.jsonl"
    given = {"model": str(tiny_base), "checkpoint": tiny_run / "checkpoint-8", "limit": 24, "samples": 4}
    manifest = curate(tiny_rows, out, keep=keep, **given)
    lines = (tmp_path / "curated.difficulty.jsonl").read_text(encoding="utf-8").splitlines()
    found = {record["row_id"]: record for record in map(json.loads, lines)}
    every = read_rows(tiny_rows, split="train", limit=24)
    expected = [row.row_id for row in every if found[row.row_id]["level"] in levels]
    kept = read_rows(out)
    assert [row.row_id for row in kept] == expected
    assert {(row.messages, row.completion) for row in kept} < {(row.messages, row.completion) for row in every}
    assert manifest == json.loads((tmp_path / "curated.manifest.json").read_text(encoding="utf-8"))
    assert manifest["kept"] == len(kept) < manifest["rows"] == 24
    assert manifest["easy"] + manifest["medium"] + manifest["hard"] == 24
    assert all(0 < manifest[level] < 24 for level in ("medium", "hard"))
    assert manifest["checkpoint"]["fingerprint"] != manifest["model"]["fingerprint"]


def test_bad_arguments_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    data = helpers.write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "Why?", "completion": "zebra"}])
    given: dict[str, Any] = {"model": str(tiny_base)}
    for more, message in (
        ({"keep": "H"}, "unknown keep 'H': use M"),
        ({"samples": 1}, "samples of 2 or more"),
        ({"checker": "nonsense"}, "unknown checker 'nonsense'"),
        ({"samples": 2}, "no row is left of 1 .*1 hard"),
    ):
        with pytest.raises(WhatStuckError, match=message):
            curate(data, tmp_path / "out.jsonl", **given | more)
    with pytest.raises(WhatStuckError, match=r"ends in \.jsonl"):
        curate(data, tmp_path / "out.json", **given)
    assert not list(tmp_path.glob("out*"))

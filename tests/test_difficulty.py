"""Difficulty-curated data: what is easy, medium and hard, and what is kept."""

import copy
import json
import logging
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import helpers
from test_rl import moods, own_task
from whatstuck.datasets import Message, Row, read_rows, render, rows_from, target_ids
from whatstuck.errors import WhatStuckError
from whatstuck.files import file_hash
from whatstuck.generalization.arms import make_arm, write_arm
from whatstuck.generalization.own import load_task
from whatstuck.generalization.registry import make_task
from whatstuck.models.generating import Answers, Continuation
from whatstuck.rows.verdicts import replies
from whatstuck.rows.verdicts.answers import find_checker
from whatstuck.training import difficulty
from whatstuck.training.difficulty import Difficulty, curate, difficulties
from whatstuck.training.judges import CheckTimedOutError, GuardedChecker, task_checker


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

    def slow(*_: Any) -> bool:
        raise TimeoutError

    assert difficulties(model, tokenizer, rows[:1], slow, samples=2)[0].reason == "its check took too long"
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
    assert manifest["cut_replies"] == sum(record["cut"] for record in found.values())
    assert (manifest["checker"], manifest["checker_sha256"]) == ("auto", None)
    assert all(0 < manifest[level] < 24 for level in ("medium", "hard"))
    assert manifest["checkpoint"]["fingerprint"] != manifest["model"]["fingerprint"]


def test_heldout_rows_are_written_as_they_are(tiny_base: Path, tmp_path: Path) -> None:
    records: list[Any] = [
        {**row, "split": "heldout" if at % 3 else "train"} for at, row in enumerate(helpers.rows(9, seed=2))
    ]
    data = helpers.write_jsonl(tmp_path / "rows.jsonl", records)
    out = tmp_path / "out.jsonl"
    manifest = curate(
        data, out, model=str(tiny_base), samples=2, checker=first_letters("gsaw")
    )  # right whatever is said
    every = read_rows(data)
    assert [row.split for row in read_rows(out)] == [row.split for row in every]
    assert [row.row_id for row in read_rows(out)] == [row.row_id for row in every]
    assert [row.completion for row in read_rows(out)] == [row.completion for row in every]
    assert (manifest["rows"], manifest["kept"], manifest["heldout"]) == (3, 3, 6)
    first = every[0]

    def but_the_first(row: Row, answer: str) -> bool:
        return bool(answer) and row.row_id != first.row_id

    curate(data, out, model=str(tiny_base), samples=2, checker=but_the_first)
    assert [row.row_id for row in read_rows(out)] == [row.row_id for row in every[1:]]
    asked = (tmp_path / "out.difficulty.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["row_id"] for line in asked} == {row.row_id for row in every if row.split == "train"}


# --- how long replies may be


def test_replies_are_as_long_as_the_checker_can_judge(
    asked: tuple[Any, Any, list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer, _ = asked
    lengths = {}

    def watched(self: Any, questions: Any, **more: Any) -> Any:
        lengths[checker] = [question.answer_tokens for question in questions]
        return real(self, questions, **more)

    real = difficulty.Respondent.replies
    monkeypatch.setattr(difficulty.Respondent, "replies", watched)
    rows = rows_from([{"prompt": "Who?", "completion": "glad"}, {"prompt": "Who?", "completion": "glad " * 40}])
    own = [len(target_ids(render(row, tokenizer), tokenizer)) for row in rows]
    assert own[0] < 32 < own[1]
    for checker in ("exact", "auto", "contains", "number"):
        difficulties(model, tokenizer, rows, find_checker(checker), samples=2)
    assert lengths["exact"] == lengths["auto"] == own
    assert lengths["contains"] == lengths["number"] == [own[0], 2 * own[1]]
    checker = "given"
    difficulties(model, tokenizer, rows, find_checker("number"), samples=2, max_new_tokens=3)
    assert lengths["given"] == [3, 3]


def test_replies_that_were_cut_are_counted(asked: tuple[Any, Any, list[Row]], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer, rows = asked
    assert {one.cut for one in difficulties(model, tokenizer, rows[:4], find_checker("exact"), samples=4)} == {0}

    def said(text: str, stopped_by: int | None = None) -> Continuation:
        return Continuation(tuple(tokenizer(text, add_special_tokens=False)["input_ids"]), stopped_by)

    drawn = (
        said("glad", tokenizer.eos_token_id),
        said("glad glad"),
        said("glad. over and"),
        said("glad. over and out"),
    )
    monkeypatch.setattr(replies, "generate", lambda *_, **__: [Answers(None, drawn)])
    (found,) = difficulties(model, tokenizer, rows[:1], first_letters("g"), samples=4)
    assert (found.cut, found.right, found.samples) == (3, 4, 4)
    # an end of turn that is several tokens stops nothing, but is an end
    other = copy.deepcopy(tokenizer)
    other.chat_template = helpers.CHAT_TEMPLATE.replace("eos_token if", "'over and out' if")
    (found,) = difficulties(model, other, rows[:1], first_letters("g"), samples=4)
    assert found.cut == 2
    (found,) = difficulties(model, other, rows[:1], first_letters("q"), samples=4)
    assert (found.cut, found.level) == (2, "hard")


# --- judges


def test_a_task_judges_its_own_rows() -> None:
    task = make_task("sokoban")
    arm = make_arm(task, "diverse", 60, seed=3)
    checker = task_checker(task, arm)
    rows = rows_from(arm.rows, split="train")
    checker.check(rows)
    right = Counter()
    for row, (_, mapping) in zip(rows, arm.posed, strict=True):
        assert checker(row, row.completion)
        assert not checker(row, "no idea")
        right[sum(checker(row, f"<answer> {word} </answer>") for word in mapping.meanings)] += 1
    assert set(right) == {1, 2}  # some rooms have two shortest moves, of which the solver wrote one


def test_any_right_formula_is_right() -> None:
    task = make_task("micro-points")
    arm = make_arm(task, "frozen", 30, seed=1)
    checker = task_checker(task, arm)
    others = 0
    for row in rows_from(arm.rows):
        read, _, formula = row.completion.partition(" : ")
        first, sign, second, *rest = formula.split(" ")
        if sign == "+" and first != second:
            other = f"{read} : {second} + {first} {' '.join(rest)}"
            others += 1
            assert not find_checker("exact")(row, other)
            assert checker(row, other)
        assert not checker(row, f"{read} : {first} {sign} {second}")  # a card is left
    assert others


def test_rows_of_another_arm_are_refused_before_the_model_is_asked(
    asked: tuple[Any, Any, list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer, rows = asked
    task = moods()
    arm = make_arm(task, "frozen", 12, seed=1)
    checker = task_checker(task, arm)
    monkeypatch.setattr(difficulty.Respondent, "replies", lambda *_, **__: pytest.fail("the model was asked"))
    for others in (
        rows,
        rows_from(make_arm(task, "frozen", 12, seed=2).rows),
        rows_from(make_arm(task, "k2", 12, seed=1).rows),
    ):
        with pytest.raises(
            WhatStuckError, match="is no row of the task moods, arm frozen: make the checker of the arm"
        ):
            difficulties(model, tokenizer, others, checker)


def test_an_arm_is_curated_by_its_task(tiny_base: Path, tmp_path: Path) -> None:
    task, data = moods(), tmp_path / "arm.jsonl"
    made = write_arm(data, task, "frozen", 12, seed=1)
    arm = make_arm(task, "frozen", 12, seed=1)
    given: dict[str, Any] = {"model": str(tiny_base), "samples": 4, "instruction": "Say it."}
    manifest = curate(data, tmp_path / "out.jsonl", checker=task_checker(task, arm), **given)
    assert manifest["checker"] == "task moods, arm frozen"
    assert manifest["checker_sha256"] == made["rows_sha256"]
    assert manifest["unknown"] == 0 < manifest["kept"]
    by_text = curate(data, tmp_path / "text.jsonl", checker="exact", **given)
    levels = ("easy", "medium", "hard")
    assert [manifest[level] for level in levels] == [by_text[level] for level in levels]  # here, they judge alike


def test_a_users_task_whose_check_hangs_says_nothing_of_the_row(tmp_path: Path) -> None:
    judge = "import time\ndef judge(row, answer):\n    return answer != 'hang' or time.sleep(60)\n"
    task = load_task(own_task(tmp_path, judge))
    arm = make_arm(task, "frozen", 4)
    checker = task_checker(task, arm)
    row = rows_from(arm.rows)[0]
    assert checker(row, "glad")
    with pytest.raises(CheckTimedOutError, match="took too long"):
        checker(row, "hang")
    assert difficulty._judged(row, replies.Reply("", ("glad", "hang"), 1), checker) == Difficulty(
        row.row_id, 0, 0, 1, "its check took too long"
    )


JUDGE = """\
import time
def judge(row, answer):
    assert row.messages[-1].content == row.content
    if row.completion == "angry":
        time.sleep(60)
    if row.completion == "sad":
        raise ValueError("no idea")
    return answer[:1] in "gsaw"
"""


def test_a_users_function_that_hangs_is_ended(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(JUDGE, encoding="utf-8")
    data = helpers.write_jsonl(
        tmp_path / "rows.jsonl",
        [
            {"prompt": f"{row['prompt']}", "completion": mood}
            for row, mood in zip(helpers.rows(6, seed=3), ("glad", "angry", "sad") * 2, strict=True)
        ],
    )
    began = time.monotonic()
    name = f"{tmp_path / 'judge.py'}:judge"
    manifest = curate(data, tmp_path / "out.jsonl", model=str(tiny_base), checker=name, samples=2, time_limit=0.3)
    assert time.monotonic() - began < 30
    assert manifest["unknown_because"] == {"its check took too long": 2, "its check failed": 2}
    assert (manifest["easy"], manifest["unknown"]) == (2, 4)
    assert {row.completion for row in read_rows(tmp_path / "out.jsonl")} == {"glad"}
    assert manifest["checker"] == name
    first = manifest["checker_sha256"]
    (tmp_path / "judge.py").write_text(JUDGE + "# another version\n", encoding="utf-8")
    again = curate(data, tmp_path / "out.jsonl", model=str(tiny_base), checker=name, samples=2, time_limit=0.3, limit=1)
    assert first != again["checker_sha256"]
    (tmp_path / "judge.py").write_text(JUDGE + "raise RuntimeError('broken')\n", encoding="utf-8")
    with pytest.raises(WhatStuckError, match=r"cannot be loaded: .*broken"):
        curate(data, tmp_path / "out.jsonl", model=str(tiny_base), checker=name)
    hopeless = "def judge(row, answer):\n    return 'yes'\n"
    (tmp_path / "judge.py").write_text(hopeless, encoding="utf-8")
    with pytest.raises(WhatStuckError, match=r"no row is left of 6 .*6 unknown, its check failed"):
        curate(data, tmp_path / "out.jsonl", model=str(tiny_base), checker=name, samples=2)


def test_a_function_gets_the_very_row(tmp_path: Path) -> None:
    (tmp_path / "same.py").write_text("def judge(row, answer):\n    return repr(row) == answer\n", encoding="utf-8")
    checker = GuardedChecker(f"{tmp_path / 'same.py'}:judge", time_limit=1.0)
    messages = (Message("system", "Be brief."), Message("user", "Instruction. Why so?"))
    row = Row("a", messages, "Whatever", 3, "train", players=((13, 16), (17, 19)), content_start=13)
    assert checker(row, repr(row))
    assert not checker(row, repr(row) + " ")
    checker.close()


def test_a_function_that_is_given_is_named_with_its_file(tiny_base: Path, tmp_path: Path) -> None:
    data = helpers.write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "Why?", "completion": "zebra"}])
    given: dict[str, Any] = {"model": str(tiny_base), "samples": 2}

    class Lenient:
        def __call__(self, row: Row, *_: Any) -> bool:
            return row.completion == "zebra"

    manifest = curate(data, tmp_path / "out.jsonl", checker=Lenient(), **given)
    assert manifest["checker"].endswith("Lenient")
    assert manifest["checker_sha256"] == file_hash(Path(__file__))
    manifest = curate(data, tmp_path / "out.jsonl", checker=lambda *_: True, **given)
    assert manifest["checker"].endswith("<lambda>")
    assert manifest["checker_sha256"] == file_hash(Path(__file__))


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

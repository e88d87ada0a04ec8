"""Tasks of a user's own: a YAML file, its templates, mappings and checker, and everything that can be wrong in it."""

import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatstuck.datasets import rows_from
from whatstuck.errors import WhatStuckError
from whatstuck.generalization.diversify import diversify
from whatstuck.generalization.drawing import draw_items
from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.own import load_task, trying
from whatstuck.generalization.own.checking import guarded
from whatstuck.generalization.own.settings import TaskFile
from whatstuck.generalization.own.templates import Template
from whatstuck.generalization.task import Task

ROWS = [
    {"a": f"left {i}", "b": f"right {i}", "label": "yes" if i % 3 else "no", "level": str(i % 2)} for i in range(20)
]

NOTHING_HELD_OUT = "held_out names nothing: a training set of diversify may hold every template and mapping asked here."
BASE = """\
data: rows.jsonl
answer: label
templates:
  plain: "{a} / {b} : {yes} or {no}?"
  polite: "Please compare {b} with {a}. Say {no}, or {yes}."
  bare: "{a} = {b}?"
mappings:
  words: {yes: Yes, no: No}
  letters: {yes: A, no: B}
  swapped: {yes: No, no: Yes}
"""


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """Function that writes a task file and its rows, and loads it."""

    def write(text: str = BASE, rows: list[dict[str, Any]] | None = None, **files: str) -> Task[Any, Any, Any]:
        lines = (json.dumps(row) for row in (ROWS if rows is None else rows))
        (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
        for name, content in files.items():
            (tmp_path / name.replace("__", ".")).write_text(content, encoding="utf-8")
        (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
        return load_task(tmp_path / "mine.yaml")

    return write


def score(task: Task[Any, Any, Any], variant: str, reply: str, item: int = 0) -> tuple[bool, bool, str]:
    found = next(v for v in task.variants if v.name == variant)
    drawn = draw_items(task.source, 20, split="test", variant=found)
    answer = task.parser.parse(reply)
    assert answer is not None
    one = sorted(drawn.items, key=lambda row: int(row.texts["a"].split()[1]))[item]
    result = task.scorer.score(one, found.scored, answer)
    return result.valid, result.success, result.outcome


def test_a_file_becomes_a_task(make: Any) -> None:
    task = make()
    assert [(v.name, v.kind) for v in task.variants] == [
        ("training", "training"),
        ("polite", "wording"),
        ("bare", "wording"),
        ("letters", "instruction"),
        ("swapped", "instruction"),
        ("Fake", "fake"),
    ]
    row = draw_items(task.source, 1, split="test", variant=task.variants[0]).items[0]
    i = row.texts["a"].split()[1]
    assert task.prompts["training"].render(row, task.training) == f"left {i} / right {i} : Yes or No?"
    letters = task.mappings[1]
    assert task.prompts["polite"].render(row, letters) == f"Please compare right {i} with left {i}. Say B, or A."
    assert task.prompts["bare"].render(row, task.training) == f"left {i} = right {i}?"
    assert task.demonstrator is not None
    assert task.demonstrator.reply(row, letters, thought=False) == ("A" if row.label == "yes" else "B")
    assert task.max_new_tokens == len("Yes") + 8
    with pytest.raises(WhatStuckError, match="no thoughts"):
        task.demonstrator.reply(row, letters, thought=True)


def test_replies_are_scored_by_the_scored_mapping(make: Any) -> None:
    task = make()  # item 0 is `no`
    assert score(task, "training", " No.\nBecause") == (True, True, "right")
    assert score(task, "training", "yes") == (True, False, "wrong")
    assert score(task, "training", "No, they differ") == (False, False, "longer")
    assert score(task, "training", "yes they do") == (False, False, "longer")  # whichever answer it is
    assert score(task, "training", "Nothing differs") == (False, False, "other_word")
    assert score(task, "training", "They differ: no") == (False, False, "other_word")
    assert score(task, "letters", "No") == (False, False, "other_word")
    assert score(task, "letters", "b") == (True, True, "right")
    assert score(task, "swapped", "Yes") == (True, True, "right")
    assert task.parser.parse(" \n ") is task.parser.parse("") is None
    # Fake shows letters and scores the words of the training
    fake = task.variants[-1]
    assert (fake.shown.name, fake.scored.name) == ("letters", "words")
    assert score(task, "Fake", "No") == (True, True, "right")
    assert score(task, "Fake", "B") == (False, False, "other_word")


def test_no_reply_to_a_fake_item_is_right_under_both(make: Any) -> None:
    task = make(BASE.replace("letters: {yes: A, no: B}", "half: {yes: Yes, no: B}"))
    fake = task.variants[-1]
    drawn = draw_items(task.source, 20, split="test", variant=fake)
    assert {row.label for row in drawn.items} == {"no"}
    assert drawn.unsolvable == 13
    assert len(drawn.items) == 7


def test_the_same_rows_under_every_variant_and_never_twice(make: Any) -> None:
    task = make()
    drawn = [draw_items(task.source, 8, split="test", variant=v, seed=3) for v in task.variants]
    assert all([c.key for c in d.contents] == [c.key for c in drawn[0].contents] for d in drawn)
    everything = draw_items(task.source, 300, split="test", variant=task.variants[0])
    assert len(everything.items) == everything.distinct == 20
    assert draw_items(task.source, 8, split="test", variant=task.variants[0], seed=4).contents != drawn[0].contents
    with pytest.raises(WhatStuckError, match="no item on the train side"):
        draw_items(task.source, 8, split="train", variant=task.variants[0])


def test_held_out_names_alone_are_variants(make: Any) -> None:
    task = make(BASE + "held_out: [polite, swapped]\nwords: [one, two, three, four, five, A]\n")
    assert [v.name for v in task.variants] == ["training", "polite", "swapped", "Fake"]
    assert [mapping.name for mapping in task.mappings] == ["words", "letters"]
    drawn = {word for seed in range(50) for word in task.random_mapping(random.Random(seed)).meanings}
    assert drawn == {"one", "two", "three", "four", "five"}  # A is a word of a mapping


def test_nothing_held_out_is_said(make: Any) -> None:
    assert make().notes == (NOTHING_HELD_OUT,)
    assert make(BASE + "held_out: bare\n").notes == ()
    assert make("items: [{q: 1 + 1, answer: 2}]\ntemplates: {t: '{q} ='}\n").notes == ()  # nothing else is asked


def test_replies_may_be_as_long_as_right_ones(make: Any) -> None:
    rows = [{"q": f"count {i}", "long": "one two " * i, "answer": str(i)} for i in (1, 100)]
    text = "data: rows.jsonl\ntemplates: {t: '{q}'}\nreply: '{long}so {answer}'\nchecker: 'regex: so (.+)'\n"
    task = make(text, rows)
    assert 400 < task.max_new_tokens == task.longest_thought < 800  # a token of two bytes; they have 806
    note = (
        f"Replies are cut off after {task.max_new_tokens} tokens, and the longest right one has 806 bytes: give "
        "max_new_tokens if the tokenizer may make more tokens of it."
    )
    assert task.notes == (note,)
    given = make(text + "max_new_tokens: 2000\n", rows)
    assert (given.max_new_tokens, given.longest_thought, given.notes) == (2000, 2000, ())
    short = make(text + "max_new_tokens: 20\n", rows)
    assert (short.max_new_tokens, short.longest_thought) == (20, 256)
    harder = make(text + "harder: {answer: 100}\n", rows)
    assert harder.max_new_tokens == task.max_new_tokens  # harder ones count as well


def test_truth_values_and_numbers_stay_text(make: Any) -> None:
    rows = [{"a": True, "b": 1.5, "label": i % 2 == 0} for i in range(4)]
    text = "data: rows.jsonl\nanswer: label\ntemplates: {t: '{a} {b} {true} {false}'}\n"
    task = make(text + "mappings: {m: {true: yes, false: 07}}", rows)
    item = draw_items(task.source, 1, split="test", variant=task.variants[0]).items[0]
    assert task.prompts["training"].render(item, task.training) == "true 1.5 yes 07"


def test_harder_rows_are_a_variant_of_their_own(make: Any) -> None:
    task = make(BASE + "harder: {level: 1}\n")
    hard = next(v for v in task.variants if v.kind == "harder")
    of_hard = draw_items(task.source, 99, split="test", variant=hard).items
    of_easy = draw_items(task.source, 99, split="test", variant=task.variants[0]).items
    assert {row.texts["level"] for row in of_hard} == {"1"}
    assert {row.texts["level"] for row in of_easy} == {"0"}
    more = make(BASE + "harder: {long: long.csv, odd: {level: 1}}\n", long__csv="a,b,label\nx,y,yes\n")
    assert [v.name for v in more.variants if v.kind == "harder"] == ["long", "odd"]
    long = next(v for v in more.variants if v.name == "long")
    assert draw_items(more.source, 9, split="test", variant=long).items[0].texts["a"] == "x"


def test_trained_rows_are_left_out_and_counted(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    trained = "\n".join(json.dumps(row | {"a": row["a"].upper() + " "}) for row in ROWS[:5])
    with caplog.at_level(logging.WARNING):
        task = make(BASE + "train: train.jsonl\n", train__jsonl=trained)
    assert task.notes == ("5 of 20 test rows are in train.jsonl, too, and are left out.", NOTHING_HELD_OUT)
    assert task.notes[0] in caplog.text
    drawn = draw_items(task.source, 99, split="test", variant=task.variants[0])
    assert len(drawn.items) == 15
    assert len(draw_items(task.source, 5, split="train", variant=task.variants[0]).items) == 5
    # prompts that were made already, under another wording and mapping
    prompts = [{"prompt": "Please compare right 3 with left 3. Say B, or A.", "completion": "A"}]
    task = make(BASE + "train: train.jsonl\n", train__jsonl=json.dumps(prompts[0]))
    assert task.notes == ("1 of 20 test rows are in train.jsonl, too, and are left out.", NOTHING_HELD_OUT)
    other = {"prompt": "Is right 3 like left 3, one or two?", "completion": "one"}
    task = make(BASE + "train: train.jsonl\n", train__jsonl="\n".join(map(json.dumps, [*prompts, other])))
    assert task.notes[0].startswith("Of 2 rows of train.jsonl, 1 cannot be compared with those of the test: ")
    with pytest.raises(WhatStuckError, match=r"every row of the test stands in train\.jsonl"):
        make(BASE + "train: train.jsonl\n", rows=ROWS[:3], train__jsonl=trained)


def test_rows_in_the_file_itself_and_rows_of_chats(make: Any) -> None:
    task = make("items: [{q: 1 + 1, answer: 2}, {q: 2 + 2, answer: 4}]\ntemplates: {t: '{q} ='}\nchecker: number")
    item = draw_items(task.source, 1, split="test", variant=task.variants[0], seed=1).items[0]
    gold = {"1 + 1": "2", "2 + 2": "4"}[item.texts["q"]]
    assert task.scorer.score(item, task.training, f"It is 7, no, {gold}.0").outcome == "right"
    assert task.scorer.score(item, task.training, "It is 9").outcome == "wrong"
    assert task.scorer.score(item, task.training, "no idea").outcome == "no_answer"
    chat = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}]
    task = make("data: rows.jsonl\nanswer: completion\ntemplates: {t: 'Say: {prompt}'}", chat)
    item = draw_items(task.source, 1, split="test", variant=task.variants[0]).items[0]
    assert task.prompts["training"].render(item, task.training) == "Say: Hi"


def test_replies_that_go_on_behind_the_answer(make: Any) -> None:
    """Without words that are valid, the row's own answer is looked for; and a multiple of words is no answer."""
    texts = "items: [{q: a capital, answer: New York}]\ntemplates: {t: '{q}'}\n"
    task = make(texts)
    (row,) = draw_items(task.source, 9, split="test", variant=task.variants[0]).items
    replies = ("new york.", "New York, of course", "**New York** is", "New Yorkers", "Old York", "It is New York")
    assert [task.scorer.score(row, task.training, reply).outcome for reply in replies] == [
        "right",
        "longer",
        "longer",
        "wrong",
        "wrong",
        "wrong",
    ]
    assert task.scorer.score(row, task.training, replies[1]).valid  # as any answer is where there are no words
    one = make(texts.replace("New York", "1"))
    (item,) = draw_items(one.source, 9, split="test", variant=one.variants[0]).items
    said = [one.scorer.score(item, one.training, reply).outcome for reply in ("1, I think", "1.5", "1,500")]
    assert said == ["longer", "wrong", "wrong"]
    by_number = make(texts.replace("New York", "42") + "checker: number\n")
    assert by_number.scorer.score(row, task.training, "no number").outcome == "no_answer"
    task = make(
        BASE.replace("letters: {yes: A, no: B}", "letters: {yes: 是, no: 不是}").replace(
            "{yes: Yes, no: No}", "{yes: no, no: no one}"
        )
    )
    assert score(task, "letters", "不是的，左右不同")[2] == "longer"  # no spaces end its words
    assert score(task, "training", "no, not one")[2] == "longer"
    assert score(task, "training", "no one knows")[2] == "other_word"  # it begins with both


def test_a_prefill_is_no_part_of_the_answer(make: Any) -> None:
    task = make(BASE + "prefill: 'Answer:'\nreply: '{answer}, sure'\nchecker: {regex: '(?i)(yes|no)'}\n")
    row = draw_items(task.source, 1, split="test", variant=task.variants[0]).items[0]
    reply = task.demonstrator.reply(row, task.training, thought=False)
    assert reply == f"Answer: {task.training[row.label]}, sure"
    assert task.scorer.score(row, task.training, task.parser.parse(reply)).success
    assert task.notes == (NOTHING_HELD_OUT,)
    with pytest.raises(WhatStuckError, match=r"prefill: .*it ends in white space: take that off") as caught:
        make(BASE + "prefill: 'Answer: '\n")
    assert "\n" not in str(caught.value)


# --- checkers


def test_a_pattern_finds_the_answer(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    task = make(BASE + "checker: 'regex: answer is (\\w+)'\n")
    assert score(task, "training", "I think the answer is NO, so") == (True, True, "right")
    assert score(task, "training", "the answer is maybe") == (False, False, "other_word")
    assert score(task, "training", "no") == (False, False, "no_answer")
    # a note stands on pages that hold no text of rows: the reply is in the log alone
    assert task.notes[0] == (
        "The checker does not take the right reply to rows.jsonl line 1, as `reply` writes it (no_answer): if such a "
        "reply is right, nothing below is."
    )
    assert "does not take the reply 'No' to rows.jsonl line 1" in caplog.text


def test_a_pattern_that_never_ends_is_timed_out(make: Any) -> None:
    task = make(BASE + "checker: 'regex: ^(?:x+x+)+y|\\w+'\ntime_limit: 0.2\n")
    began = time.monotonic()
    assert score(task, "training", "x" * 60) == (False, False, "check_timed_out")  # C, which hears no signal of Python
    assert time.monotonic() - began < 10
    assert score(task, "training", "no") == (True, True, "right")  # another worker goes on
    assert task.scorer.guard.failures == {"no answer in 0.2 seconds": 1}


CHECKER = """\
import os, subprocess, sys, time
seen = []
def judge(row, answer):
    seen.append(answer)
    print("noise on stdout", answer)
    if answer == "raise": raise ValueError("first line\\nsecond line")
    if answer == "hang":
        while True: pass
    if answer == "sleep": time.sleep(60)
    if answer == "fork":  # a child that outlives it, and holds its pipes open
        subprocess.Popen(["sleep", "60"], close_fds=False)
        time.sleep(60)
    if answer == "leave":  # a child with all that is open, which leaves the group: it is not ended with it
        child = os.fork()
        if not child:
            os.setsid()
            time.sleep(20)
            os._exit(0)
        open("child.txt", "w").write(str(child))
    if answer == "exit": sys.exit(3)
    if answer == "die": os._exit(1)
    if answer == "silent": return None
    if answer == "count": return len(seen) == 1
    if answer == "read": return sys.stdin.read() == ""
    return answer == row["gold"] and row["b"].startswith("right")
"""


def test_a_function_of_the_users_own(make: Any) -> None:
    task = make(BASE + "checker: judge.py:judge\ntime_limit: 0.3\n", judge__py=CHECKER)
    outcomes = {
        reply: score(task, "training", reply)[2]
        for reply in ("No", "Yes", "raise", "silent", "exit", "read", "hang", "count", "die", "sleep", "fork", "No.")
    }
    assert outcomes == {
        "No": "right",
        "Yes": "wrong",
        "raise": "check_failed",
        "silent": "check_failed",
        "exit": "check_failed",
        "read": "right",
        "hang": "check_timed_out",
        "count": "right",  # the first one of a new worker
        "die": "check_failed",
        "sleep": "check_timed_out",
        "fork": "check_timed_out",
        "No.": "wrong",
    }
    assert task.scorer.guard.failures == {
        "ValueError: first line": 1,
        "it returned None, not True or False": 1,
        "SystemExit: 3": 1,
        "no answer in 0.3 seconds": 3,
        "the checker ended its process": 1,
    }
    assert score(task, "letters", "B") == (True, True, "right")


TRIED = """\
import os, time
def right(row, answer): return answer == row["gold"]
def one(answer): return True
def nothing(row, answer): answer == row["gold"]
def words(row, answer): return "yes"
def strict(row, answer): return answer == "Yes"
def of_words(row, answer): return answer.lower() == row["label"]
def third(row, answer): return row["a"] != "left 2"
def error(row, answer): return {"No": True}[answer]
def hang(row, answer): time.sleep(60)
def die(row, answer): os._exit(1)
"""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "one",
            r"'No' to rows.jsonl line 1 \(TypeError: one\(\) takes 1 positional argument but 2 were given\): mend it",
        ),
        ("nothing", r"'No' to rows.jsonl line 1 \(it returned None, not True or False\): mend it; it is called as"),
        ("words", r"'No' to rows.jsonl line 1 \(it returned 'yes', not True or False\): mend it"),
        ("error", r"'Yes' to rows.jsonl line 2 \(KeyError: 'Yes'\)"),
        ("hang", r"'No' to rows.jsonl line 1 \(no answer in 0.3 seconds\): mend it, or raise time_limit"),
        ("die", r"'No' to rows.jsonl line 1 \(the checker ended its process\)"),
    ],
)
def test_a_checker_that_fails_on_right_replies_ends_the_call(
    make: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, function: str, message: str
) -> None:
    monkeypatch.setattr(trying, "_FIRST", 0.0)
    text = BASE + f"held_out: [letters, bare]\ntime_limit: 0.3\nchecker: judge.py:{function}\n"
    with pytest.raises(WhatStuckError, match=rf"mine.yaml: the checker 'judge.py:{function}' .* {message}") as caught:
        make(text, judge__py=TRIED)
    assert "\n" not in str(caught.value)
    assert caplog.records == []  # it is said once


@pytest.mark.parametrize(("function", "line"), [("strict", 1), ("of_words", 1), ("third", 3)])
def test_a_refusal_of_right_replies_is_said(
    make: Any, caplog: pytest.LogCaptureFixture, function: str, line: int
) -> None:
    """What is right may be written otherwise, as where the answer holds tests for a program."""
    task = make(BASE + f"held_out: [letters, bare]\nchecker: judge.py:{function}\n", judge__py=TRIED)
    assert f"right reply to rows.jsonl line {line}, as `reply` writes it (it returned False)" in task.notes[0]
    assert "does not take the reply" in caplog.text


def test_a_checker_may_import_late(make: Any) -> None:
    late = "import time\nseen = []\ndef judge(row, answer):\n    time.sleep(0 if seen else 0.6)\n    seen.append(1)\n"
    task = make(BASE + "time_limit: 0.3\nchecker: judge.py:judge\n", judge__py=f"{late}    return True\n")
    assert score(task, "training", "No")[2] == "right"


def test_a_checker_by_entry_point_is_tried_too(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "site" / "judges-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: judges\nVersion: 1\n", encoding="utf-8")
    points = "[whatstuck.checkers]\none = judges:one\nright = judges:right\n"
    (about / "entry_points.txt").write_text(points, encoding="utf-8")
    (tmp_path / "site" / "judges.py").write_text(TRIED, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(WhatStuckError, match=r"the checker 'one' does not take .* line 1 \(TypeError: one\(\)"):
        make(BASE + "checker: one\n")
    assert make(BASE + "checker: right\n").notes == (NOTHING_HELD_OUT,)


def test_a_pattern_that_hangs_on_a_right_reply_ends_the_call(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trying, "_FIRST", 0.0)
    text = BASE + f"checker: 'regex: ^(?:x+x+)+y|\\w+$'\nreply: '{'x' * 50} {{answer}}'\ntime_limit: 0.2\n"
    with pytest.raises(WhatStuckError, match=r"to rows.jsonl line 1 \(no answer in 0.2 seconds\): mend it") as caught:
        make(text)
    assert len(str(caught.value)) < 250


@pytest.mark.skipif(os.name == "nt", reason="nothing forks there")
def test_a_child_that_holds_the_pipe_holds_up_nobody(make: Any, tmp_path: Path) -> None:
    task = make(BASE + "checker: judge.py:judge\n", judge__py=CHECKER)
    assert score(task, "training", "leave")[2] == "wrong"
    began = time.monotonic()
    task.scorer.guard.close()
    took = time.monotonic() - began
    os.kill(int((tmp_path / "child.txt").read_text(encoding="utf-8")), signal.SIGKILL)
    assert took < 10  # the child would sleep for 20
    assert score(task, "training", "No")[2] == "right"


# the clock is that of the checker, which stops it: nothing but a look at the parent ends such a worker
DISARMING = """\
import os, signal, time
from pathlib import Path
def judge(row, answer):
    signal.setitimer(signal.ITIMER_REAL, 0)
    Path("pid.txt").write_text(str(os.getpid()))
    time.sleep(60)
"""
SLOW_TO_LOAD = """\
import os, time
from pathlib import Path
Path("pid.txt").write_text(str(os.getpid()))
time.sleep(60)
"""


@pytest.mark.skipif(os.name == "nt", reason="processes have no parent there")
@pytest.mark.parametrize("code", [DISARMING, SLOW_TO_LOAD], ids=["disarming", "loading"])
def test_a_worker_ends_with_who_started_it(tmp_path: Path, code: str) -> None:
    (tmp_path / "slow.py").write_text(code, encoding="utf-8")
    ask = "from whatstuck.generalization.own.checking import guarded; guarded('slow.py:judge', time_limit=60)({}, 'x')"
    parent = subprocess.Popen([sys.executable, "-c", ask], cwd=tmp_path)
    told = tmp_path / "pid.txt"
    wait_for(lambda: told.is_file() and told.read_text(encoding="utf-8").isdigit())
    worker = int(told.read_text(encoding="utf-8"))
    assert is_running(worker)
    parent.kill()
    parent.wait()
    try:
        wait_for(lambda: not is_running(worker))
    finally:
        if is_running(worker):
            os.kill(worker, signal.SIGKILL)


@pytest.mark.skipif(os.name == "nt", reason="there is no such clock there")
def test_loading_is_timed_by_the_worker_itself(tmp_path: Path) -> None:
    """As where nobody is left to end it, and the import sits in C, where no thread runs."""
    (tmp_path / "slow.py").write_text("import re\nre.match('(?:x+x+)+y', 'x' * 60)\n", encoding="utf-8")
    settings = {"kind": "function", "what": "slow.py:judge", "folder": str(tmp_path), "time_limit": 1.0}
    code = "from whatstuck.generalization.own import worker; worker._GRACE = 0.5; worker.main()"
    asked = json.dumps({**settings, "loading": 0.5, "parent": os.getpid()}) + "\n"
    said = subprocess.run(
        [sys.executable, "-c", code], input=asked, capture_output=True, text=True, check=False, timeout=30
    )
    assert (said.returncode, said.stdout) == (-signal.SIGALRM, "")


def wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie, which nobody may have waited for."""
    command = [shutil.which("ps") or "ps", "-o", "stat=", "-p", str(pid)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return bool(said.strip()) and not said.strip().startswith("Z")


def test_one_worker_checks_many_rows(tmp_path: Path) -> None:
    (tmp_path / "fast.py").write_text("def check(row, answer): return row['n'] == int(answer)\n", encoding="utf-8")
    check = guarded("fast.py:check", folder=tmp_path)
    began = time.monotonic()
    assert all(check({"n": n}, str(n)).found is True for n in range(2000))
    assert time.monotonic() - began < 5  # about 0.1 s; a process each would take minutes
    check.close()
    assert check({"n": 1}, "2").found is False
    assert check({"n": 1}, "\ud800 x").failure == "check_failed"  # half a surrogate comes through, and int() refuses it
    check.close()


def test_a_worker_starts_without_torch() -> None:
    """It is started again after every check that hangs, and torch takes seconds to import."""
    code = "import sys, whatstuck.generalization.own.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_code_of_a_checker_is_part_of_a_task(make: Any) -> None:
    text = BASE + "checker: judge.py:judge\n"
    first, again = make(text, judge__py=CHECKER), make(text, judge__py=CHECKER)
    changed = make(text, judge__py=CHECKER + "# better\n")
    assert first.identity == again.identity != changed.identity
    assert make().identity != make(rows=ROWS[:-1]).identity


# --- bad files


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{a} / {b} :",
            "{a} / {bb} :",
            r"template 'plain' has an unknown slot \{bb\}: did you mean 'b'\?; the columns",
        ),
        ("compare {b} with {a}", "compare {b}", r"template 'polite' lacks the slot \{a\}, which 'plain' has"),
        (
            "Say {no}, or {yes}.",
            "Say {no}.",
            r"template 'polite' lacks the slot \{yes\}, which says what a label means",
        ),
        (
            " : {yes} or {no}?",
            "?",
            r"template 'plain' lacks the slots \{yes\}, \{no\}: no prompt would show the mapping",
        ),
        ("{a} = {b}?", "{a} = {b}? {label}", r"template 'bare' shows the right answer by \{label\}"),
        ("{a} = {b}?", "{a} = {b? ", r"template 'bare' has a lone '\{' in '\{a\} = \{b\?': write \{\{ for a brace"),
        ("{a} = {b}?", "{a} = {b} {}", "has a slot without a name"),
        ("{a} = {b}?", " ", "template 'bare' is empty"),
        ("letters: {yes: A, no: B}", "letters: {yes: A}", "mapping 'letters' gives the label 'no' no meaning"),
        ("letters: {yes: A, no: B}", "letters: {yes: A, no: }", "mapping 'letters' gives the label 'no' no meaning"),
        (
            "letters: {yes: A, no: B}",
            "letters: {yes: A, no: a.}",
            "'yes' and 'no' the same meaning .*no reply tells them",
        ),
        ("{yes: A, no: B}", "{yes: A, no: B, so: C}", "mapping 'letters' has the label 'so', which 'words' has not"),
        ("{yes: Yes, no: No}\n  letters: {yes: A, no: B}\n  swapped: {yes: No, no: Yes}", "{yep: Yes, no: No}", "slot"),
        ("answer: label", "answer: lable", "no column 'lable': did you mean 'label'"),
        ("answer: label", "anwser: label", "unknown key 'anwser': did you mean 'answer'"),
        ("answer: label", "training: plane", "the training template 'plane' is none of .*did you mean 'plain'"),
        ("answer: label", "answer: label\nchecker: exakt", "unknown checker 'exakt': did you mean 'exact'"),
        ("answer: label", "answer: label\nchecker: 'regex: (a'", "regular expression '.a' is wrong"),
        ("answer: label", "answer: label\nchecker: gone.py:f", "the checker 'gone.py:f' cannot be loaded"),
        ("answer: label", "answer: label\nchecker: json:dupms", "cannot be loaded: .*no function of json"),
        ("answer: label", "answer: label\nchecker: number", "line 1: the answer 'No' holds no number"),
        ("answer: label", "answer: label\ntime_limit: -1", "time_limit: Input should be greater than 0"),
        (
            "answer: label",
            "answer: label\nheld_out: [poltie]",
            "no template or mapping 'poltie': did you mean 'polite'",
        ),
        ("answer: label", "answer: label\nheld_out: plain", "'plain' is that of the training"),
        ("answer: label", "answer: label\nfake: bare", "fake must name a mapping"),
        ("answer: label", "answer: label\nreply: so", r"the reply lacks the slot \{answer\}"),
        ("answer: label", "answer: label\nwords: [p, q]", "words must hold at least 4 for 2 labels, .* there are 2"),
        ("answer: label", "answer: label\nharder: {level: 9}", "no row is 'Harder'"),
        ("answer: label", "answer: label\nharder: {depth: 9}", "the column 'depth', which no row has"),
        ("answer: label", "answer: label\nharder: gone.jsonl", "no such file"),
        ("answer: label", "answer: label\nprefill: 'x '", "yaml: prefill: it ends in white space"),
        (
            "letters: {yes: A, no: B}",
            "letters: [A, B]",
            r"mappings.letters: it must hold keys and values .got \[.A., .B.\]",
        ),
        ("answer: label", "answer: label\nharder: {a: [1]}", "harder.a: it must be text .got"),
        ("answer: label", "answer: label\ntrain: [a]", "train: it must be text .got"),
        ("  bare:", "  plain:", "'plain' stands twice"),
        ("  bare:", "  letters:", "two things have the name 'letters'"),
        ("  bare:", "  a/b:", "the name 'a/b' cannot be that of a file"),
        ("  bare:", "  ..:", "the name '..' cannot be that of a file"),
        ("  bare:", '  "a\\0b":', r"the name 'a.x00b' cannot be that of a file"),
        ("  letters:", f"  {'x' * 300}:", "the name 'xxxxxxxxxxxxxxxxxxxx...' is too long: .* at most 100 bytes"),
        ("answer: label", "answer: label\nharder: {le/vel: {level: 1}}", "the name 'le/vel' cannot be that of a file"),
        ("data: rows.jsonl\n", "", "give the rows of the test"),
        ("data: rows.jsonl", "data: gone.jsonl", "no such file"),
        ("templates:", "templates: [", "is no readable YAML"),
    ],
)
def test_one_line_says_what_is_wrong(make: Any, old: str, new: str, message: str) -> None:
    assert BASE.count(old) == 1
    with pytest.raises(WhatStuckError, match=message) as caught:
        make(BASE.replace(old, new))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "there are no rows in it"),
        ([*ROWS, {"a": "x", "b": "y", "label": "yess"}], "line 21: the label 'yess' has no meaning .*mean 'yes'"),
        ([*ROWS, {"a": "x", "label": "yes"}], "line 21: no column 'b'"),
        ([*ROWS, {"a": "x", "b": [], "label": "yes"}], "line 21: the column 'b' must be text or a number, found list"),
        ([*ROWS, {"a": "x", "b": None, "label": "yes"}], "line 21: the column 'b' .* found nothing"),
        ([{"a": "x", "b": "y", "label": "yes", "no": 1}], "'no' is a label and a column"),
        (["text"], "line 1: expected an object with columns, found str"),
    ],
)
def test_one_line_says_which_row_is_wrong(make: Any, rows: Any, message: str) -> None:
    with pytest.raises(WhatStuckError, match=message):
        make(rows=rows)


@given(st.text(min_size=1).filter(str.strip), st.text())
def test_a_template_says_everything_that_stands_in_it(text: str, value: str) -> None:
    escaped = text.replace("{", "{{").replace("}", "}}")
    assert Template.parse("t", f"{escaped}{{slot}}{escaped}").fill({"slot": value}) == text + value + text


def test_what_fills_a_slot_is_no_template() -> None:
    template = Template.parse("t", "{{{a}}} {a} {not a word}")
    assert template.fill({"a": "{b}}", "not a word": "{a}"}) == "{{b}}} {b}} {a}"
    assert template.slots == ("a", "a", "not a word")


def test_a_mapping_is_known_by_its_pairs(make: Any) -> None:
    task = make()
    same = InstructionMapping("words again", task.training.pairs)
    row = draw_items(task.source, 1, split="test", variant=task.variants[0]).items[0]
    assert task.source.pose(row, same, task.training, random.Random(0)) is row


def test_a_task_says_whether_it_knows_what_was_trained(make: Any) -> None:
    trained = "\n".join(json.dumps(row) for row in ROWS[:5])
    assert not make().source.unseen
    assert make(BASE + "train: train.jsonl\n", train__jsonl=trained).source.unseen
    prompt = {"prompt": "Please compare right 3 with left 3. Say B, or A.", "completion": "A"}
    assert make(BASE + "train: train.jsonl\n", train__jsonl=json.dumps(prompt)).source.unseen
    other = {"prompt": "Is right 3 like left 3, one or two?", "completion": "one"}
    text = "\n".join(map(json.dumps, [prompt, other]))
    assert not make(BASE + "train: train.jsonl\n", train__jsonl=text).source.unseen


def test_the_longest_reply_of_a_call_wins(make: Any, tmp_path: Path) -> None:
    make(BASE + "max_new_tokens: 20\n")
    assert load_task(tmp_path / "mine.yaml", max_new_tokens=40).max_new_tokens == 40


# --- the documentation


def blocks(kind: str) -> list[str]:
    """What stands in code blocks of one kind."""
    page = (Path(__file__).parents[1] / "docs" / "generalization.md").read_text(encoding="utf-8")
    found = (block.partition("\n") for block in page.split("```")[1::2])
    return [text for first, _, text in found if first == kind]


def test_the_file_of_the_documentation_is_a_task_with_every_key(tmp_path: Path) -> None:
    (written,) = blocks("yaml")
    assert set(re.findall(r"^(\w+):", written, re.MULTILINE)) == set(TaskFile.model_fields) - {"items"}
    (reviews,) = (block for block in blocks("") if block.startswith('{"text"'))
    for name, words in (("train", ""), ("test", "Now: "), ("long", "At length: ")):
        text = reviews.replace('"text": "', f'"text": "{words}')
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    file = tmp_path / "templates.yaml"
    file.write_text(written, encoding="utf-8")
    diversify(tmp_path / "train.jsonl", file, tmp_path / "diverse.jsonl")
    task = load_task(file)
    assert [variant.name for variant in task.variants] == ["training", "terse", "swapped", "Long", "Fake"]
    assert task.notes == ()
    assert task.source.unseen
    diversify(tmp_path / "train.jsonl", file, tmp_path / "many.jsonl", wordings="many")


def test_the_lines_of_the_documentation_are_wordings_of_a_row() -> None:
    (lines,) = (block for block in blocks("") if block.startswith('{"id"'))
    rows = [rows_from([json.loads(line)])[0] for line in lines.splitlines()]
    assert [(row.row_id, row.completion) for row in rows] == [("1", "positive"), ("1", "good"), ("1", "yes")]

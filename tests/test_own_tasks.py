"""Tasks of a user's own: a YAML file, its templates and mappings, and what its documentation says."""

import json
import logging
import random
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from own_task import BASE, NOTHING_HELD_OUT, ROWS, score, write_task
from whatstuck.datasets import rows_from
from whatstuck.errors import WhatStuckError
from whatstuck.generalization.diversify import diversify
from whatstuck.generalization.drawing import draw_items
from whatstuck.generalization.mapping import InstructionMapping
from whatstuck.generalization.own import load_task
from whatstuck.generalization.own.settings import TaskFile
from whatstuck.generalization.own.templates import Template


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """Function that writes a task file and its rows, and loads it."""
    return partial(write_task, tmp_path)


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

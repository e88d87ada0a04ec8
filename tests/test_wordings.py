"""The same rows in other wordings: aligned by content, and what cannot be aligned is said."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.drawing import draw_items
from whatstuck.generalization.task import Task
from whatstuck.generalization.wordings import load_wordings

Write = Callable[[str, list[dict[str, Any]]], Path]

WORDS = ["river", "stone", "lamp", "clock", "train", "garden", "paper", "spoon", "cloud", "bridge", "violin", "carpet"]


def pairs(count: int = 40) -> list[tuple[str, str, bool]]:
    rng = random.Random(7)
    found: dict[str, tuple[str, str, bool]] = {}
    while len(found) < count:
        a, b = " ".join(rng.sample(WORDS, 4)), " ".join(rng.sample(WORDS, 5))
        found[" ".join(sorted(f"{a} {b}".split()))] = (a, b, rng.random() < 0.5)
    return list(found.values())


PAIRS = list(enumerate(pairs()))


def plain(rows: list[tuple[str, str, bool]]) -> list[dict[str, Any]]:
    return [
        {"prompt": f"First: {a}\nSecond: {b}\nThe same? Yes or No?", "completion": "Yes" if y else "No"}
        for a, b, y in rows
    ]


def turned(rows: list[tuple[str, str, bool]]) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Is '{b.upper()}' a wording of '{a}'?", "completion": " TRUE." if y else "false"}
        for a, b, y in rows
    ]


def silent(*names: str) -> str:
    listed = ", ".join(map(repr, names))
    return (
        f"{listed}: the prompts do not say which words to answer with. There an answer in the words of the training is "
        "right, too."
    )


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def file(name: str, rows: list[dict[str, Any]]) -> Path:
        path = tmp_path / name
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        return path

    return file


def items(task: Task[Any, Any, Any], variant: int) -> list[Any]:
    return list(draw_items(task.source, 999, split="test", variant=task.variants[variant], seed=5).items)


def test_shuffled_and_rearranged_rows_are_found(write: Write) -> None:
    rows = pairs()
    others = rows[:]
    random.Random(1).shuffle(others)
    task = load_wordings([write("set_plain.jsonl", plain(rows)), write("set_turned.jsonl", turned(others))])
    assert (task.name, [(v.name, v.kind) for v in task.variants]) == (
        "set",
        [("training", "training"), ("turned", "wording")],
    )
    assert len(task.source.rows) == 40
    first, said = task.notes
    assert first == (
        "The wording of the training is 'plain', in set_plain.jsonl: taken because it is the first given; name another "
        "with --training-wording."
    )
    assert said == silent("turned")
    assert [row.key for row in items(task, 0)] == [row.key for row in items(task, 1)]
    words = task.variants[1].scored
    assert dict(words.pairs) == {"Yes": "TRUE.", "No": "false"}
    for row in items(task, 1):
        a, b, same = next(known for known in rows if known[0] in task.prompts["training"].render(row, words))
        assert task.prompts["turned"].render(row, words) == f"Is '{b.upper()}' a wording of '{a}'?"
        assert row.label == ("Yes" if same else "No")


def test_each_wording_is_scored_by_its_own_words(write: Write) -> None:
    said = [{**row, "prompt": f"{row['prompt']} True or false?"} for row in turned(pairs())]
    task = load_wordings([write("a.jsonl", plain(pairs())), write("b.jsonl", said)])
    row = next(row for row in items(task, 0) if row.label == "Yes")
    outcomes = [
        [
            task.scorer.score(row, variant.scored, reply).outcome
            for reply in ("yes", "No\nmore", "true", "False", "Yes it is")
        ]
        for variant in task.variants
    ]
    assert outcomes == [
        ["right", "wrong", "other_word", "other_word", "longer"],
        ["other_word", "other_word", "right", "wrong", "other_word"],
    ]
    assert task.max_new_tokens == len(" TRUE.") + 8


def test_rows_that_are_missing_or_have_another_answer_are_left_out_everywhere(write: Write) -> None:
    rows = pairs()
    fewer = turned(rows[:30])
    third = plain(rows)
    third[3]["completion"] = "No" if third[3]["completion"] == "Yes" else "Yes"
    for row in third:
        row["prompt"] = row["prompt"].replace("The same?", "Equal?")
    task = load_wordings(
        [write("one.jsonl", plain(rows)), write("two.jsonl", fewer), write("three.jsonl", third)], training="one"
    )
    assert task.notes[1:] == (
        "'two' lacks 10 of 40 rows: 10 were not found, 0 have another answer.",
        "'three' lacks 1 of 40 rows: 0 were not found, 1 have another answer.",
        "29 of 40 rows stand in every wording; only these are asked.",
        silent("two"),
    )
    assert {len(items(task, variant)) for variant in range(3)} == {29}


def test_ids_come_before_content(write: Write) -> None:
    rows = [{**row, "id": f"r{i}"} for i, row in enumerate(plain(pairs()))]
    others = [
        {"id": f"r{i}", "prompt": f"Nothing alike {i * 7}", "completion": rows[i]["completion"]} for i in range(40)
    ]
    random.Random(2).shuffle(others)
    task = load_wordings([write("a.jsonl", rows), write("b.jsonl", others)])
    row = items(task, 1)[0]
    index = next(i for i, known in enumerate(rows) if known["prompt"] == row.texts["training"])
    assert row.texts["b"] == f"Nothing alike {index * 7}"


def test_ids_are_believed_only_where_prompts_or_answers_bear_them_out(write: Write) -> None:
    rows = pairs()
    others = rows[:]
    random.Random(2).shuffle(others)
    numbered = [{**row, "id": i} for i, row in enumerate(plain(rows))]
    first = write("a.jsonl", numbered)
    strangers = [  # another file that numbers its rows from 0 on
        {"id": i, "prompt": f"Nothing alike {i * 7}", "completion": row["completion"]}
        for i, row in enumerate(plain(others))
    ]
    with pytest.raises(WhatStuckError, match="'b' is left out: its ids are those of the training, but neither prompts"):
        load_wordings([first, write("b.jsonl", strangers)])
    with pytest.raises(WhatStuckError, match="'b' is left out: its ids are those of the training, but neither prompts"):
        load_wordings([first, write("b.jsonl", [{**row, "id": i} for i, row in enumerate(turned(others))])])
    task = load_wordings([first, write("b.jsonl", [{**row, "id": i} for i, row in enumerate(turned(rows))])])
    assert len(task.source.rows) == 40
    # one answer for all says nothing
    alike = [{**row, "completion": "Yes"} for row in numbered]
    strangers = [{**row, "completion": "Yes"} for row in strangers]
    with pytest.raises(WhatStuckError, match="neither prompts nor answers agree"):
        load_wordings([write("a.jsonl", alike), write("b.jsonl", strangers)])


def test_ids_are_believed_by_prompts_alone(write: Write) -> None:
    """Answers that are other texts are left out row by row; the rest is asked."""
    rows = [{"id": i, "prompt": f"Turn round: {a}", "completion": " ".join(a.split()[::-1])} for i, (a, *_) in PAIRS]
    others = [{**row, "prompt": f"{row['prompt'][12:]}\nBackwards!"} for row in rows]
    for row in others[:10]:
        row["completion"] = "something else"
    task = load_wordings([write("a.jsonl", rows), write("b.jsonl", others)])
    assert len(task.source.rows) == 30


def test_manifests_of_diversify_are_no_wordings(write: Write, tmp_path: Path) -> None:
    write("a.jsonl", plain(pairs()))
    write("b.jsonl", turned(pairs()))
    (tmp_path / "b.manifest.json").write_text('{"made_by": "whatstuck"}', encoding="utf-8")
    assert [variant.name for variant in load_wordings(tmp_path).variants] == ["training", "b"]


def test_long_answers_are_not_cut_off_in_silence(write: Write) -> None:
    rows = [{"prompt": f"Turn round: {a}", "completion": f"{a} {i} " * 30} for i, (a, *_) in PAIRS]
    others = [{**row, "prompt": f"{row['prompt'][12:]}\nBackwards!"} for row in rows]
    task = load_wordings([write("a.jsonl", rows), write("b.jsonl", others)])
    longest = max(len(row["completion"].strip()) for row in rows)
    assert longest // 2 < task.max_new_tokens == task.longest_thought < longest
    assert f"Replies are cut off after {task.max_new_tokens} tokens" in task.notes[-1]


def test_position_is_believed_only_where_every_answer_fits(write: Write) -> None:
    rows = pairs()
    numbered = [{"prompt": f"{i * 13} again", "completion": "ja" if y else "nein"} for i, (_, _, y) in enumerate(rows)]
    task = load_wordings([write("a.jsonl", plain(rows)), write("b.jsonl", numbered)])
    assert task.notes[1] == "'b' is aligned by position: its prompts cannot be compared."
    assert dict(task.variants[1].scored.pairs) == {"Yes": "ja", "No": "nein"}
    numbered[5]["completion"] = "nein" if numbered[5]["completion"] == "ja" else "ja"
    with pytest.raises(
        WhatStuckError, match=r"no other wording has the rows of a\.jsonl: 'b' is left out: .* 0 were found"
    ):
        load_wordings([write("a.jsonl", plain(rows)), write("b.jsonl", numbered)])


def test_answers_that_are_texts_must_be_the_same(write: Write) -> None:
    rows = [{"prompt": f"Turn round: {a}", "completion": " ".join(reversed(a.split()))} for a, _, _ in pairs()]
    others = [
        {"prompt": f"{row['prompt'][12:]}\nRead it backwards!", "completion": row["completion"] + "."} for row in rows
    ]
    others[0]["completion"] = "something else"
    task = load_wordings([write("a.jsonl", rows), write("b.jsonl", others)])
    assert len(task.source.rows) == 39
    assert task.training.pairs == ()
    row = items(task, 1)[0]
    assert task.scorer.score(row, task.training, row.label.upper()).outcome == "right"
    assert task.scorer.score(row, task.training, "river").outcome == "wrong"


def test_rows_of_the_same_words_are_told_apart_by_their_place(write: Write) -> None:
    rows = [*pairs(), ("a b c d", "e f g", True), ("e f g", "a b c d", False)]
    turned_rows = turned(rows)
    task = load_wordings([write("a.jsonl", plain(rows)), write("b.jsonl", turned_rows)])
    assert len(task.source.rows) == 42
    task = load_wordings([write("a.jsonl", plain(rows)), write("b.jsonl", [*turned_rows[:40], *turned_rows[:-3:-1]])])
    assert len(task.source.rows) == 40  # they stand the other way round, and their answers show it
    assert "0 were not found, 2 have another answer" in task.notes[1]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([], "needs at least two files, one per wording, found 1"),
        ([[{"prompt": "x y", "completion": "Yes"}] * 3], "no other wording has the rows of a"),
        ([[{**row, "completion": "Yes"} for row in plain(pairs())]], "one word for two labels"),
        (
            [[{"messages": [{"role": r, "content": "Hi"} for r in ("system", "user", "assistant")]}] * 2],
            "one user message",
        ),
        ([[]], "there are no rows in it"),
    ],
)
def test_what_is_no_other_wording(write: Write, others: list[list[dict[str, Any]]], message: str) -> None:
    files = [write("a.jsonl", plain(pairs()))] + [write(f"b{i}.jsonl", rows) for i, rows in enumerate(others)]
    with pytest.raises(WhatStuckError, match=message) as caught:
        load_wordings(files)
    assert "\n" not in str(caught.value)


def test_which_wording_is_trained(write: Write, tmp_path: Path) -> None:
    write("set-plain.jsonl", plain(pairs()))
    file = write("set-turned.jsonl", turned(pairs()))
    for training in ("turned", "set-turned", "set-turned.jsonl", file, str(file)):
        task = load_wordings(tmp_path, training)
        assert task.variants[1].name == "plain"
        assert dict(task.training.pairs) == {"TRUE.": "TRUE.", "false": "false"}
    elsewhere = tmp_path / "other" / "third.jsonl"
    elsewhere.parent.mkdir()
    shutil.copy(file, elsewhere)
    assert [v.name for v in load_wordings(tmp_path, elsewhere).variants] == ["training", "set-plain", "set-turned"]
    with pytest.raises(
        WhatStuckError, match="the training wording 'turnd' is none of plain, turned: did you mean 'turned'"
    ):
        load_wordings(tmp_path, "turnd")
    with pytest.raises(WhatStuckError, match="names a file twice"):
        load_wordings([tmp_path, file])
    with pytest.raises(WhatStuckError, match="no such file"):
        load_wordings([file, tmp_path / "gone.jsonl"])


def test_human_wordings_of_the_same_items(shared_data: Callable[[str], Path]) -> None:
    task = load_wordings(shared_data("prompt_variants") / "paws", training="Meaning")
    without_words = ["Concatenation", "Meaning", "PAWS_ANLI_GPT3", "Rewrite", "context_question", "task_description"]
    assert task.name == "paws_labeled_final"
    assert len(task.variants) == 11  # of 12 files; one asks for a paraphrase and has 91 rows
    assert task.notes == (
        "The wording of the training is 'Meaning', in paws_labeled_final_Meaning.jsonl.",
        "'paraphrase_task' is left out: of 200 rows, 0 were found in it.",
        silent(*(f"{name}_no_label" for name in without_words)),
    )
    assert len(items(task, 4)) == 200
    words = {v.name: dict(v.scored.pairs) for v in task.variants}
    assert words["PAWS_ANLI_GPT3"] == {"No": "False", "Yes": "True"}
    assert all(found == {"No": "No", "Yes": "Yes"} for name, found in words.items() if name != "PAWS_ANLI_GPT3")
    row = items(task, 0)[0]
    sentence = row.texts["training"].split("\n")[0].removeprefix("Sentence 1: ")
    assert all(sentence in task.prompts[v.wording].render(row, v.shown) for v in task.variants)
    # trained with other words than those that are not said: both are right
    task = load_wordings(shared_data("prompt_variants") / "paws", training="PAWS_ANLI_GPT3")
    of = {v.name: v.scored for v in task.variants}
    row = next(row for row in items(task, 0) if row.label == "True")
    outcomes = [
        [task.scorer.score(row, of[name], reply).outcome for reply in ("Yes", "true", "No", "False", "True, so", "so")]
        for name in ("Meaning", "Meaning_no_label")
    ]
    assert outcomes == [
        ["right", "other_word", "wrong", "other_word", "other_word", "other_word"],
        ["right", "right", "wrong", "wrong", "longer", "other_word"],
    ]


# --- words that are not said


def bare(rows: list[tuple[str, str, bool]], yes: str, no: str) -> list[dict[str, Any]]:
    return [{"prompt": f"Do '{a}' and '{b}' agree", "completion": yes if y else no} for a, b, y in rows]


def test_words_that_prompts_do_not_say_need_not_be_known(write: Write) -> None:
    """A few prompts hold such a word by chance."""
    rows = [(a, f"{b} true" if i == 3 else b, y) for i, (a, b, y) in enumerate(pairs())]
    first, other = write("a.jsonl", plain(rows)), write("b.jsonl", bare(rows, "True", "False"))
    task = load_wordings([first, other], "a")
    assert task.notes[1:] == (silent("b"),)
    words = task.variants[1].scored
    assert words.name == "words of b, or those of the training"  # a run that was scored otherwise is refused
    assert dict(words.pairs) == {"Yes": "True", "No": "False"}
    row = next(row for row in items(task, 1) if row.label == "No")
    outcomes = [
        task.scorer.score(row, words, reply).outcome for reply in ("no", "False.", "yes", "True", "No, they", "maybe")
    ]
    assert outcomes == ["right", "right", "wrong", "wrong", "longer", "other_word"]
    # the training's own prompts are asked for the training's words alone
    assert task.scorer.score(row, task.training, "False").outcome == "other_word"


def test_words_that_mean_another_label_elsewhere_are_not_mixed(write: Write) -> None:
    turned_round = bare(pairs(), "no", "yes")
    task = load_wordings([write("a.jsonl", plain(pairs())), write("b.jsonl", turned_round)], "a")
    assert task.notes[-1] == (
        "'b': the prompts do not say which words to answer with. "
        "Those of the training mean other labels there, so only their own are right."
    )
    row = next(row for row in items(task, 1) if row.label == "Yes")
    assert [task.scorer.score(row, task.variants[1].scored, reply).outcome for reply in ("no", "yes")] == [
        "right",
        "wrong",
    ]


def test_words_that_no_wording_says_are_not_missed(write: Write) -> None:
    files = [write("a.jsonl", bare(pairs(), "Yes", "No")), write("b.jsonl", turned(pairs()))]
    task = load_wordings(files, "a")
    assert len(task.notes) == 1
    row = next(row for row in items(task, 1) if row.label == "Yes")
    assert task.scorer.score(row, task.variants[1].scored, "yes").outcome == "other_word"


# --- which wording was trained


def trained_on(folder: Path, data: Path, heldout: list[dict[str, Any]] | None = None) -> list[Path]:
    """Folders of checkpoints, as `whatstuck train` leaves them."""
    record = {"data": str(data), "data_sha256": hashlib.sha256(data.read_bytes()).hexdigest()}
    folder.mkdir()
    (folder / "whatstuck_train.json").write_text(json.dumps(record), encoding="utf-8")
    if heldout:
        (folder / "heldout.jsonl").write_text("\n".join(map(json.dumps, heldout)), encoding="utf-8")
    return [folder / f"checkpoint-{step}" for step in (2, 4)]


def test_a_guess_is_said(write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write("a.jsonl", plain(pairs()))
    write("b.jsonl", turned(pairs()))
    task = load_wordings(tmp_path)
    assert task.notes[0] == (
        "The wording of the training is 'a', in a.jsonl: taken because it is the first by name; name another with "
        "--training-wording."
    )
    assert [(record.levelname, record.message) for record in caplog.records] == [("WARNING", task.notes[0])]
    caplog.clear()
    assert load_wordings(tmp_path, "a").notes[0] == "The wording of the training is 'a', in a.jsonl."
    assert load_wordings(tmp_path, "b").training != task.training
    assert caplog.records == []


def test_the_training_says_which_wording_it_used(
    write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = [write("a.jsonl", plain(pairs())), write("b.jsonl", turned(pairs()))]
    of_b = trained_on(tmp_path / "of_b", files[1])
    task = load_wordings(files, checkpoints=of_b)
    assert task.notes[0] == "The wording of the training is 'b', in b.jsonl: it has the rows of the training (b.jsonl)."
    assert task.notes[-1] == "40 of 40 rows asked were trained on, in one wording or another."
    assert caplog.records == []
    # a part of its rows, in a file of its own, of which some were set aside
    some = write("train.jsonl", turned(pairs())[:30])
    held_out = trained_on(tmp_path / "some", some, turned(pairs())[:10])
    task = load_wordings(files, checkpoints=held_out)
    assert task.notes[0].endswith("in b.jsonl: it has the rows of the training (train.jsonl).")
    assert task.notes[-1] == "20 of 40 rows asked were trained on, in one wording or another."
    # who names it is believed
    assert set(load_wordings(files, "a", checkpoints=held_out).training.meanings) == {"Yes", "No"}


def test_a_training_that_says_nothing_leaves_the_first(write: Write, tmp_path: Path) -> None:
    files = [write("a.jsonl", plain(pairs())), write("b.jsonl", turned(pairs()))]
    guess = "'a', in a.jsonl: taken because it is the first given; name another with --training-wording."
    other = trained_on(tmp_path / "other", write("other.jsonl", [{"prompt": "Hi", "completion": "Ho"}] * 3))
    gone = trained_on(tmp_path / "gone", write("gone.jsonl", turned(pairs()[:30])))
    (tmp_path / "gone.jsonl").unlink()
    changed = trained_on(tmp_path / "changed", write("changed.jsonl", turned(pairs()[:30])))
    write("changed.jsonl", turned(pairs()[:20]))
    damaged = trained_on(tmp_path / "damaged", files[1])
    (tmp_path / "damaged" / "whatstuck_train.json").write_text("{", encoding="utf-8")
    strange = [{"prompt": f"Is {i} odd?", "completion": "Yes"} for i in range(30)]
    stray = trained_on(tmp_path / "stray", write("stray.jsonl", strange + turned(pairs()[:1])))  # one by chance
    for checkpoints in (other, gone, changed, damaged, stray, [tmp_path / "nowhere" / "checkpoint-1"]):
        assert load_wordings(files, checkpoints=checkpoints).notes[0].endswith(guess)
    # a training in both wordings; the third file has none of its rows
    mixed = write("mixed.jsonl", plain(pairs()[:21]) + turned(pairs()[21:]))
    third = write("0.jsonl", bare(pairs(), "ja", "nein"))
    task = load_wordings([third, *files], checkpoints=trained_on(tmp_path / "mixed", mixed))
    assert task.notes[0].endswith(
        "'a', in a.jsonl: taken because it is the first given of those whose rows the training has; name another with "
        "--training-wording."
    )


def test_a_run_keeps_the_wording_that_it_was_begun_with(
    write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another arm may be trained on other wordings; both are compared with the same."""
    files = [write("a.jsonl", plain(pairs())), write("b.jsonl", turned(pairs()))]
    begun = load_wordings(files, checkpoints=trained_on(tmp_path / "of_b", files[1]))
    mixed = write("mixed.jsonl", plain(pairs()[:20]) + turned(pairs()[20:]))
    caplog.clear()
    again = load_wordings(files, checkpoints=trained_on(tmp_path / "of_both", mixed), identity=begun.identity)
    assert (again.training, again.identity) == (begun.training, begun.identity)
    assert again.notes[0].endswith("'b', in b.jsonl: this run was begun with it.")
    assert caplog.records == []
    other = load_wordings(files, checkpoints=trained_on(tmp_path / "of_a", files[0]), identity=begun.identity)
    assert other.training == begun.training
    assert other.notes[0].endswith("this run was begun with it, though the training has the rows of a.jsonl.")
    assert caplog.records[0].levelname == "WARNING"


def test_the_longest_reply_may_be_given(write: Write) -> None:
    files = [write("a.jsonl", plain(pairs())), write("b.jsonl", turned(pairs()))]
    assert load_wordings(files, "a", max_new_tokens=99).max_new_tokens == 99

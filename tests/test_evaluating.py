"""One variant of a task, asked: prompts as in training, replies as text, chance, failures, episodes."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

import helpers
import toy_task
from whatstuck.errors import WhatStuckError
from whatstuck.generalization.cells import (
    DEALS,
    GREEDY,
    Asking,
    Cell,
    chance_of,
    dealt,
    failures_of,
    make_cell,
    read_reply,
)
from whatstuck.generalization.drawing import side
from whatstuck.generalization.episodes import play
from whatstuck.generalization.evaluating import evaluate
from whatstuck.generalization.registry import make_task
from whatstuck.generalization.replying import Question, Replier, Reply, Said, question_of
from whatstuck.generalization.schemas import GENERALIZATION, REPLIES
from whatstuck.generalization.statistics import cell_rows
from whatstuck.models import CheckpointedModel, load_model, load_tokenizer
from whatstuck.models.generating import Continuation
from whatstuck.rows.verdicts.intervals import wilson


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return helpers.tiny_tokenizer()


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> PreTrainedModel:
    return load_model(tiny_base)


def cell_of(tokenizer: PreTrainedTokenizerBase, variant: str = "ID", *, items: int = 30, **asking: Any) -> Cell:
    options = asking.pop("options", {})
    task = toy_task.feelings(**options)
    (chosen,) = [one for one in task.variants if one.name == variant]
    return make_cell(task, chosen, Asking(items=items, **asking), tokenizer)


# --- questions


def test_a_question_is_rendered_as_a_training_does(tokenizer: PreTrainedTokenizerFast) -> None:
    plain = question_of("How is Mara?", "", tokenizer, "auto")
    assert plain.prompt == helpers.chat("How is Mara?")
    assert (plain.prefill, plain.opened) == ("", 0)
    opened = question_of("How is Mara?", "She is", tokenizer, "auto")
    assert opened.prompt == helpers.chat("How is Mara?") + "She is"
    assert tokenizer.decode(opened.ids[-opened.opened :]) == "She is"
    assert opened.ids[: -opened.opened] == plain.ids
    without = question_of("How is Mara?", "She is", tokenizer, "never")
    assert without.prompt == "How is Mara? She is"
    with pytest.raises(WhatStuckError, match="is empty"):
        question_of("  ", "", tokenizer, "auto")


def test_a_reply_holds_the_prefill_and_ends_at_the_end_of_turn(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    row = helpers.rows(1, seed=5)[0]
    replier = Replier(base, tokenizer)
    (whole,) = replier.replies([question_of(row["prompt"], "", tokenizer, "auto")], 8)
    assert whole.greedy.text in helpers.FEELINGS
    assert not whole.greedy.cut
    start = whole.greedy.text[:1]
    (rest,) = replier.replies([question_of(row["prompt"], start, tokenizer, "auto")], 8)
    assert rest.greedy.text.startswith(start)
    assert rest.drawn == ()


def test_a_reply_that_is_cut_says_so(base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    question = question_of(helpers.rows(1, seed=5)[0]["prompt"], "", tokenizer, "auto")
    replier = Replier(base, tokenizer)
    (short,) = replier.replies([question], 1, temperature=1.0, seeds=[1])
    assert short.greedy.cut
    assert short.drawn[0].cut
    replier._end = "<end of turn>"  # of several tokens: the model writes on behind it
    ids = tuple(tokenizer("glad<end of turn>more", add_special_tokens=False)["input_ids"])
    assert replier._said(question, Continuation(ids, None)) == Said("glad", cut=False)
    assert replier._said(question, Continuation(ids[:1], None)).cut


def test_cut_replies_are_counted(base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    whole = cell_of(tokenizer)
    cut = replace(whole, task=replace(whole.task, max_new_tokens=1))
    for cell, count in ((whole, 0), (cut, 30)):
        records = evaluate(base, tokenizer, cell)
        assert sum(record["cut"] for record in records) == count
        (row,) = cell_rows(records, task="t", arm="a", variant=cell.variant, step=0)
        assert row["cut"] == count
    older = [{name: value for name, value in record.items() if name != "cut"} for record in records]
    (row,) = cell_rows(older, task="t", arm="a", variant=cut.variant, step=0)
    assert row["cut"] is None


def test_the_same_question_is_answered_once(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    from whatstuck.generalization import replying

    asked: list[int] = []
    real = replying.generate

    def counted(model: Any, prompts: Sequence[Any], *rest: Any, **others: Any) -> Any:
        asked.append(len(prompts))
        return real(model, prompts, *rest, **others)

    monkeypatch.setattr(replying, "generate", counted)
    rows = helpers.rows(2, seed=5)
    questions = [question_of(rows[i]["prompt"], "", tokenizer, "auto") for i in (0, 1, 0, 0)]
    replier = Replier(base, tokenizer)
    greedy = [reply.greedy for reply in replier.replies(questions, 4)]
    assert greedy[0].text
    assert greedy[0] == greedy[2] == greedy[3]
    drawn = replier.replies(questions, 4, temperature=3.0, seeds=[1, 2, 3, 4])
    assert asked == [2, 4]
    assert [reply.greedy for reply in drawn] == greedy
    assert len({reply.drawn for reply in drawn}) > 1


# --- cells


def test_items_are_of_the_test_side_and_the_same_for_every_mapping(tokenizer: PreTrainedTokenizerFast) -> None:
    one, fake = cell_of(tokenizer), cell_of(tokenizer, "Fake")
    assert one.keys == fake.keys
    assert len(set(one.keys)) == 30
    assert {side(key) for key in one.keys} == {"test"}
    assert one.unsolvable > 0
    assert [question.prompt for question in one.questions] != [question.prompt for question in fake.questions]
    assert cell_of(tokenizer, seed=1).keys != one.keys
    assert cell_of(tokenizer, items=10).keys == one.keys[:10] == one.some(10).keys


def test_a_wording_that_the_task_has_not(tokenizer: PreTrainedTokenizerFast) -> None:
    task = toy_task.feelings()
    with pytest.raises(WhatStuckError, match="asked in the wording 'rhymed', which the task has not: it has training"):
        make_cell(task, replace(task.variants[0], wording="rhymed"), Asking(), tokenizer)


def test_a_context_too_short_is_named(base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    cell = cell_of(tokenizer, "Long", items=3, options={"padding": 40})
    with pytest.raises(WhatStuckError, match=r"variant Long: a prompt of \d+ tokens and .* context of 256: leave it"):
        evaluate(base, tokenizer, cell)


# --- evaluation


def test_a_trained_model_knows_the_training_words_and_ignores_others(
    tiny_base: Path, tiny_run: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    models = CheckpointedModel(tiny_base)
    found = {}
    with models.at(helpers.adapter_at(tiny_run / "checkpoint-32", 32)) as model:
        for name in ("ID", "Other", "Fake"):
            records = evaluate(model, load_tokenizer(tiny_base), cell_of(tokenizer, name, items=40))
            assert pa.Table.from_pylist(records, schema=REPLIES).num_rows == 40
            found[name] = sum(record["success"] for record in records) / 40
            assert {record["sample"] for record in records} == {GREEDY}
            assert all(record["outcome"] in {"right", "wrong", "other_word"} for record in records)
            for record in records:
                assert record["valid"] >= record["success"]
    assert found["ID"] > 0.6
    assert found["Other"] < found["ID"] - 0.3


def test_draws_are_their_own_rows(base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    records = evaluate(base, tokenizer, cell_of(tokenizer, temperature=2.0))
    greedy, drawn = records[:30], records[30:]
    assert {record["sample"] for record in greedy} == {GREEDY}
    assert {record["sample"] for record in drawn} == {0}
    assert [record["reply"] for record in greedy] != [record["reply"] for record in drawn]
    assert greedy == evaluate(base, tokenizer, cell_of(tokenizer))
    rows = cell_rows(
        records, task="t", arm="a", variant=toy_task.feelings().variants[0], step=3, temperature=2.0, unsolvable=4
    )
    assert [row["decoding"] for row in rows] == ["greedy", "temperature 2"]
    assert pa.Table.from_pylist(rows, schema=GENERALIZATION).num_rows == 2
    assert [row["unsolvable"] for row in rows] == [4, 4]


def test_checks_that_raise_or_hang_are_counted_and_end_nothing(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    cell = cell_of(tokenizer, options={"broken": True})
    records = evaluate(base, tokenizer, cell)
    outcomes = Counter(record["outcome"] for record in records)
    rules = Counter(item.rule for item in cell.items)
    assert outcomes["check_failed"] == rules["angry"] > 0
    assert outcomes["check_timed_out"] == rules["worried"] > 0
    assert f"{rules['angry']} check failed" in caplog.text
    (row,) = cell_rows(records, task="t", arm="a", variant=cell.variant, step=0)
    assert (row["failed"], row["timed_out"]) == (rules["angry"], rules["worried"])
    said = failures_of(cell)
    assert all(
        said[f"ZeroDivisionError: {record['reply']}"] > 0 for record in records if record["outcome"] == "check_failed"
    )
    assert said["TimeoutError"] >= rules["worried"]
    assert all(r["chance"] is None and not r["success"] for r in records if r["outcome"].startswith("check"))


def test_a_reply_without_an_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    cell = cell_of(tokenizer, items=2)
    _, score = read_reply(cell, cell.items[0], "  ")
    assert (score.outcome, score.valid, score.success) == ("no_answer", False, False)


def test_chance_is_what_a_reply_is_worth_elsewhere(tokenizer: PreTrainedTokenizerFast) -> None:
    """A model that always says the same succeeds by chance as often as by itself."""
    from whatstuck.generalization.evaluating import _records

    cell = cell_of(tokenizer, items=200)
    records = _records(cell, GREEDY, [Said("glad")] * 200)
    share = sum(record["success"] for record in records)
    assert 20 < share < 180
    assert sum(record["chance"] for record in records) == pytest.approx(share)  # every item is dealt to 16 times
    (row,) = cell_rows(records, task="feelings", arm="sft", variant=cell.variant, step=0)
    least = wilson(share, 200)
    assert row["chance_low"] <= least.low  # deals share their items: 16 of them are no more trials
    assert row["chance_high"] >= least.high
    few = cell_of(tokenizer, items=10)
    found = [record["chance"] for record in _records(few, GREEDY, [Said("glad")] * 10)]
    right = [record["success"] for record in _records(few, GREEDY, [Said("glad")] * 10)]
    assert found == [pytest.approx((sum(right) - own) / 9) for own in right]  # all pairs
    knowing = _records(cell, GREEDY, [Said(item.rule) for item in cell.items])
    assert all(record["success"] for record in knowing)
    assert sum(record["chance"] for record in knowing) < 150


def test_a_reply_that_obeys_the_old_instruction_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    from whatstuck.generalization.evaluating import _records

    for none in (
        "ID",
        "Long",
        "Fake",
        "Other",
    ):  # the last one has the same words, so that every reply is valid by both
        cell = cell_of(tokenizer, none, items=2)
        assert [record["old"] for record in _records(cell, GREEDY, [Said("glad")] * 2)] == [None, None]

    points = make_task("micro-points")
    by_name = {variant.name: variant for variant in points.variants}
    for name, numbers, obeys in (("All-5", 10, True), ("All-5", 5, False), ("All-5", 7, False)):
        cards = make_cell(points, by_name[name], Asking(items=20, chat_template="never"), tokenizer)
        said = []
        for item in cards.items:
            values = [numbers if card in "JQK" else int(card.replace("T", "10")) for card in item.cards]
            said.append(Said(f"{' '.join(map(str, values))} : {' + '.join(map(str, values))}"))
        records = _records(cards, GREEDY, said)
        assert {record["old"] for record in records} == {obeys}  # whatever the sum is
        if obeys:
            old = records
    assert not any(record["old"] for record in _records(cards, GREEDY, [Said("nonsense")] * 20))
    (row,) = cell_rows(old, task="t", arm="sft", variant=by_name["All-5"], step=1)
    assert (row["old"], row["old_high"], row["longer"]) == (1.0, 1.0, 0)
    assert row["old_low"] > 0.8
    (bare,) = cell_rows([{**one, "old": None} for one in old], task="t", arm="sft", variant=by_name["ID"], step=1)
    assert math.isnan(bare["old"])


@given(
    st.one_of(
        st.lists(st.sampled_from("abcde"), max_size=30), st.integers(0, 50).map(lambda n: list(map(str, range(n))))
    ),
    st.integers(0, 5),
)
def test_nobody_is_dealt_the_same_content(keys: list[str], seed: int) -> None:
    partners = dealt(keys, seed)
    for index, others in enumerate(partners):
        there = [other for other, key in enumerate(keys) if key != keys[index]]
        assert set(others) <= set(there)
        assert len(set(others)) == len(others) == min(DEALS, len(there))
    if len(set(keys)) == len(keys) > 1:
        assert set(Counter(other for others in partners for other in others).values()) == {min(DEALS, len(keys) - 1)}


def test_deals_that_cannot_be_checked_are_left_out() -> None:
    assert chance_of([True, None, False, True, True]) == 0.75
    assert chance_of([None, True]) == 1.0
    assert chance_of([]) is None
    asked: list[int] = []
    found = (asked.append(place) or None for place in range(16))  # each may take as long as a check is allowed to
    assert chance_of(found) is None
    assert len(asked) == 3


# --- episodes


class Saying:
    """A replier that says what a function of the question's text says."""

    def __init__(self, say: Any) -> None:
        self.say = say
        self.calls: list[int] = []

    def replies(self, questions: Sequence[Question], longest: int, **others: Any) -> list[Reply]:
        del longest
        self.calls.append(len(questions))
        seeds = others.get("seeds") or [0] * len(questions)
        said = [self.say(question.prompt, seed) for question, seed in zip(questions, seeds, strict=True)]
        replies = [Said(one, cut=one == "stay") for one in said]
        return [Reply(one, (one,)) for one in replies]


def episodes(tokenizer: PreTrainedTokenizerBase, say: Any, **asking: Any) -> tuple[Cell, list[dict[str, Any]], Saying]:
    task = toy_task.counting()
    cell = make_cell(task, task.variants[0], Asking(items=40, episodes=True, **asking), tokenizer)
    replier = Saying(say)
    return cell, play(replier, tokenizer, cell, 256), replier  # type: ignore[arg-type]


def test_episodes_end_when_solved_or_when_turns_are_used_up(tokenizer: PreTrainedTokenizerFast) -> None:
    cell, records, replier = episodes(tokenizer, lambda _prompt, _seed: "down")
    assert {record["success"] for record in records} == {True, False}
    for item, record in zip(cell.items, records, strict=True):
        assert record["success"] == (item <= 5)  # five turns
        assert record["outcome"] == ("right" if item <= 5 else "not_solved")
        assert record["valid"] == 1.0
        assert record["prompt"].endswith(f"count {item}\n<|assistant|>\n")
    # five downs solve another item whenever its number is at most as large
    partners = dealt(cell.keys, 0)
    for item, partner, record in zip(cell.items, partners, records, strict=True):
        others = [cell.items[other] <= min(item, 5) for other in partner]
        assert record["chance"] == pytest.approx(sum(others) / len(others))
        assert record["old"] is None  # its instruction has no other meaning
    assert sum(replier.calls) <= 9  # numbers 1 to 9: each state is asked once


def test_a_turn_that_is_not_valid_changes_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    cell, records, replier = episodes(tokenizer, lambda prompt, _seed: "up" if "count 2" in prompt else "down")
    for item, record in zip(cell.items, records, strict=True):
        before = max(0, item - 2) if item > 1 else 1
        assert record["success"] == (item == 1)
        assert record["valid"] == pytest.approx(min(before, 5) / (1 if item == 1 else 5))
        assert record["outcome"] == {True: "right", False: "other_word" if item < 7 else "not_solved"}[item == 1]
    assert sum(replier.calls) <= 9


def test_drawn_episodes_get_other_numbers_at_every_turn(tokenizer: PreTrainedTokenizerFast) -> None:
    seeds = set()

    def say(_prompt: str, seed: int) -> str:
        seeds.add(seed)
        return "down" if seed % 2 else "up"

    cell, records, _ = episodes(tokenizer, say, temperature=0.5)
    drawn = [record for record in records if record["sample"] == 0]
    assert len(drawn) == len(cell.items) == 40
    assert len(seeds) > 100
    assert 0 < sum(record["valid"] for record in drawn) / 40 < 1
    (_, row) = cell_rows(records, task="t", arm="a", variant=cell.variant, step=1, temperature=0.5)
    assert 0 < row["validity_low"] < row["validity"] < row["validity_high"] < 1


def test_a_step_that_raises_ends_its_episode_only(tokenizer: PreTrainedTokenizerFast) -> None:
    cell, records, _ = episodes(tokenizer, lambda prompt, _seed: "break" if "count 3" in prompt else "down")
    for item, record in zip(cell.items, records, strict=True):
        assert (record["outcome"] == "check_failed") == (3 <= item <= 7)
        assert record["success"] == (item < 3)
        assert not record["cut"]
    # a step has the same item again and again: each of these raises once, and once more where it is dealt on
    assert set(failures_of(cell)) == {"RuntimeError: 3"}


def test_an_episode_is_cut_where_a_turn_is(tokenizer: PreTrainedTokenizerFast) -> None:
    cell, records, _ = episodes(
        tokenizer, lambda prompt, seed: "stay" if "count 3" in prompt and seed % 2 else "down", temperature=1.0
    )
    drawn = [record for record in records if record["sample"] == 0]
    assert not any(record["cut"] for record in records if record["sample"] == GREEDY)
    assert any(record["cut"] and record["reply"] == "down" for record in drawn)
    assert not any(record["cut"] for item, record in zip(cell.items, drawn, strict=True) if item < 3)


def test_episodes_need_turns(base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(WhatStuckError, match="the task feelings has no turns: leave --episodes out"):
        evaluate(base, tokenizer, cell_of(tokenizer, episodes=True))


def test_a_real_model_plays(base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    task = toy_task.counting()
    records = evaluate(base, tokenizer, make_cell(task, task.variants[0], Asking(items=6, episodes=True), tokenizer))
    assert len(records) == 6
    assert {record["success"] for record in records} == {False}

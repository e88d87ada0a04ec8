"""Gate 0: every way in which a row is not trained as it is asked, with TRL's own preparation."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

import helpers
from whatstuck import WhatStuckError
from whatstuck.datasets import Message, Row, render, target_ids
from whatstuck.dynamics.teacher_forcing import TokenRow
from whatstuck.files import file_hash
from whatstuck.rows.feeding.gate import checked, ends_are_learned, failed_tests, fitting, followed
from whatstuck.rows.feeding.rerun import fed_by_trl
from whatstuck.rows.feeding.sources import feed_of, find_source
from whatstuck.rows.material import TrainingRow
from whatstuck.training import TrainConfig
from whatstuck.training.sft import RECORD


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(tiny_base)


def training_row(
    tokenizer: PreTrainedTokenizerFast, prompt: str, answer: str, fed: TokenRow | None, chat_template: str = "auto"
) -> TrainingRow:
    row = Row("r", (Message("user", prompt),), answer, 0, "train")
    rendered = render(row, tokenizer, chat_template=chat_template)
    ids = tokenizer(rendered.prompt, add_special_tokens=False)["input_ids"]
    return TrainingRow(row, rendered, tuple(ids), tuple(target_ids(rendered, tokenizer)), fed)


def problems(row: TrainingRow, tokenizer: PreTrainedTokenizerFast, *, known: bool = True) -> list[str]:
    return [found.problem for found in failed_tests(row, tokenizer, known=known)]


def records(count: int = 6) -> list[dict[str, Any]]:
    return [
        {
            "row_id": f"r{index}",
            "messages": [
                {"role": "user", "content": record["prompt"]},
                {"role": "assistant", "content": record["completion"]},
            ],
        }
        for index, record in enumerate(helpers.rows(count, seed=8))
    ]


def rows_of(
    found: dict[str, TokenRow], given: list[dict[str, Any]], tokenizer: PreTrainedTokenizerFast
) -> list[TrainingRow]:
    return [
        training_row(
            tokenizer,
            record["messages"][0]["content"],
            record["messages"][1]["content"],
            found.get(record["row_id"]),
        )
        for record in given
    ]


def test_a_conversation_that_trl_feeds_whole_passes(tokenizer: PreTrainedTokenizerFast) -> None:
    given = records()
    for row in rows_of(fed_by_trl({}, given, tokenizer), given, tokenizer):
        assert row.fed is not None
        assert problems(row, tokenizer) == []


def test_prompt_and_completion_supervise_the_completion_only(tokenizer: PreTrainedTokenizerFast) -> None:
    given = [
        {"row_id": row["row_id"], "prompt": row["messages"][:1], "completion": row["messages"][1:]} for row in records()
    ]
    fed = fed_by_trl({}, given, tokenizer)
    for row in rows_of(fed, records(), tokenizer):
        assert row.fed is not None
        assert row.fed.predicted[0] == len(row.prompt_ids)
        assert problems(row, tokenizer) == []
    everything = fed_by_trl({"completion_only_loss": False}, given, tokenizer)
    assert everything["r0"].predicted[0] == 1


@pytest.mark.filterwarnings("ignore:The `'keep_end'` truncation mode is deprecated:FutureWarning")
def test_an_answer_that_is_cut_is_found_and_a_long_prompt_that_fits_is_not(tokenizer: PreTrainedTokenizerFast) -> None:
    given = records(1)
    whole = fed_by_trl({}, given, tokenizer)["r0"]
    cut = fed_by_trl({"max_length": len(rows_of({}, given, tokenizer)[0].prompt_ids)}, given, tokenizer)
    assert problems(rows_of(cut, given, tokenizer)[0], tokenizer) == ["answer_cut"]
    fits = fed_by_trl({"max_seq_length": len(whole.ids)}, given, tokenizer)  # the older name
    assert fits["r0"] == whole
    assert problems(rows_of(fits, given, tokenizer)[0], tokenizer) == []
    late = fed_by_trl({"max_length": 5, "truncation_mode": "keep_end"}, given, tokenizer)
    found = list(failed_tests(rows_of(late, given, tokenizer)[0], tokenizer, known=True))
    assert [failure.problem for failure in found] == ["other_prompt"]
    assert "instead of" in found[0].sentence


def test_masked_dropped_and_unsupervised_answers(tokenizer: PreTrainedTokenizerFast) -> None:
    row = training_row(tokenizer, "the red cat sees", "a big dog", None)
    whole = row.asked
    length = len(row.prompt_ids)
    assert problems(row, tokenizer) == ["dropped"]
    assert problems(row, tokenizer, known=False) == []

    def fed(predicted: tuple[int, ...], ids: tuple[int, ...] = whole.ids) -> list[str]:
        return problems(training_row(tokenizer, "the red cat sees", "a big dog", TokenRow(ids, predicted)), tokenizer)

    assert fed(whole.predicted) == []
    assert fed(whole.predicted[1:]) == ["answer_masked"]
    assert fed(()) == ["nothing_supervised"]
    assert fed(tuple(range(1, length + 1)), whole.ids[: length + 1]) == ["answer_cut"]
    assert fed(whole.predicted, whole.ids[1:]) in (
        ["other_prompt"],
        ["other_prompt", "answer_masked"],
        ["answer_masked", "other_prompt"],
    )


def test_another_template_than_the_one_that_was_trained(tokenizer: PreTrainedTokenizerFast) -> None:
    plain = training_row(tokenizer, "the red cat sees", "a big dog", None, "never")
    asked = training_row(tokenizer, "the red cat sees", "a big dog", plain.asked)
    assert problems(asked, tokenizer) == ["other_prompt"]


def test_ends_of_answers(tokenizer: PreTrainedTokenizerFast) -> None:
    row = training_row(tokenizer, "the red cat sees", "a big dog", None)
    ids, predicted = row.asked.ids, row.asked.predicted
    with_end = TokenRow((*ids, 3), (*predicted, len(ids)))
    cases = [None, row.asked, with_end, TokenRow(with_end.ids, predicted), TokenRow(ids[:-1], predicted[:-1])]
    rows = [training_row(tokenizer, "the red cat sees", "a big dog", fed) for fed in cases]
    assert ends_are_learned(rows) == [None, False, True, False, None]


def test_what_is_followed_is_the_answer_and_nothing_else(tokenizer: PreTrainedTokenizerFast) -> None:
    row = training_row(tokenizer, "the red cat sees", "a big dog", None)
    whole, length = row.asked, len(row.asked.ids)
    assert followed(row, None) == whole
    everything = TokenRow((*whole.ids, 3), tuple(range(1, length + 1)))
    supervised = training_row(tokenizer, "the red cat sees", "a big dog", everything)
    assert followed(supervised, None) == TokenRow(everything.ids, whole.predicted)
    masked = training_row(tokenizer, "the red cat sees", "a big dog", TokenRow(whole.ids, whole.predicted[1:]))
    assert followed(masked, None).predicted == whole.predicted[1:]
    assert followed(row, length) == whole
    assert followed(row, length - 1).predicted == ()


def test_checker_and_context(tokenizer: PreTrainedTokenizerFast) -> None:
    row = training_row(tokenizer, "the red cat sees", "a big dog", None)
    assert [found.problem for found in checked(row, lambda _: False)] == ["fails_its_checker"]
    assert list(checked(row, lambda answer: answer == "a big dog")) == []
    tokens = len(row.asked.ids)
    assert list(fitting(row, tokens)) == list(fitting(row, None)) == []
    assert [found.problem for found in fitting(row, tokens - 1)] == ["too_long"]


def test_a_tokenizer_that_changes_text_is_no_other_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    """Lower case and composed accents: what comes back from the tokens is not what was written."""
    changing = copy.deepcopy(tokenizer)
    changing.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    prompt, answer = "The CAFE\u0301 of Mara", "glad"
    asked = training_row(changing, prompt, answer, None)
    ids = asked.prompt_ids + asked.target_ids
    whole = TokenRow(ids, tuple(range(len(asked.prompt_ids), len(ids))))
    assert changing.decode(list(asked.prompt_ids)) != asked.rendered.prompt
    assert problems(training_row(changing, prompt, answer, whole), changing) == []
    shifted = TokenRow((ids[0], *ids), tuple(position + 1 for position in whole.predicted))
    assert problems(training_row(changing, prompt, answer, shifted), changing) == ["other_prompt"]


def test_packing_that_splits_a_long_row_cuts_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    given = records(2)
    given[0]["messages"][0]["content"] = " ".join(["the red cat"] * 30)
    split = fed_by_trl({"max_length": 48, "packing": True, "packing_strategy": "bfd_split"}, given, tokenizer)
    assert [problems(row, tokenizer) for row in rows_of(split, given, tokenizer)] == [[], []]
    cut = fed_by_trl({"max_length": 48, "packing": True, "packing_strategy": "bfd"}, given, tokenizer)
    assert [problems(row, tokenizer) for row in rows_of(cut, given, tokenizer)] == [["answer_cut"], []]


def test_answers_that_trl_does_not_read_are_refused(
    tokenizer: PreTrainedTokenizerFast, tiny_base: Path, tmp_path: Path
) -> None:
    data, settings = tmp_path / "train.csv", tmp_path / "sft.yaml"
    data.write_text("text,label\nthe red cat,glad\nthe old dog,angry\n", encoding="utf-8")
    settings.write_text("learning_rate: 1e-4\n", encoding="utf-8")
    with pytest.raises(WhatStuckError, match=r"\(text\) holds none of their answers"):
        feed_of(find_source(settings, []), data, tokenizer, tiny_base, shape={})


def test_what_trl_cannot_read_is_one_line(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(WhatStuckError, match="none of the columns"):
        fed_by_trl({}, [{"row_id": "a", "question": "x", "answer": "y"}], tokenizer)
    with pytest.raises(WhatStuckError, match="TRL refuses") as error:
        fed_by_trl({"truncation_mode": "nowhere", "max_length": 3}, records(1), tokenizer)
    assert "\n" not in str(error.value)
    strict = copy.deepcopy(tokenizer)
    strict.chat_template = "{{ raise_exception('no such role') }}"
    with pytest.raises(WhatStuckError, match=r"TRL refuses.*no such role"):
        fed_by_trl({}, records(1), strict)


def test_a_trl_yaml_is_run_again_on_the_file(
    tokenizer: PreTrainedTokenizerFast, tiny_base: Path, tmp_path: Path
) -> None:
    data, settings = tmp_path / "train.jsonl", tmp_path / "sft.yaml"
    given = records()
    given[0]["messages"][0]["content"] = " ".join(["the red cat"] * 30)
    data.write_text("".join(json.dumps(record) + "\n" for record in given), encoding="utf-8")
    settings.write_text("model_name_or_path: somewhere\nmax_length: 48\nlearning_rate: 1e-4\n", encoding="utf-8")
    source = find_source(settings, [])
    assert source.kind == "trl"
    feed = feed_of(source, data, tokenizer, tiny_base, shape={})
    assert [row.row_id for row in feed.rows] == [f"r{index}" for index in range(6)]
    assert len(feed.fed["r0"].ids) == 48
    found = rows_of(feed.fed, given, tokenizer)
    assert [problems(row, tokenizer) for row in found] == [["answer_cut"], [], [], [], [], []]


def test_a_training_with_an_order_of_its_own_is_prepared_again(
    tokenizer: PreTrainedTokenizerFast, tiny_base: Path, tiny_rows: Path, tmp_path: Path
) -> None:
    order = tmp_path / "order.jsonl"
    order.write_text('"r0"\n', encoding="utf-8")
    settings = TrainConfig(
        model=str(tiny_base),
        data=tiny_rows,
        out=tmp_path,
        heldout=0,
        order=order,
        resample="forgotten",
        resample_every=2,
    )
    record = {"data": str(tiny_rows), "data_sha256": file_hash(tiny_rows), "settings": settings.fixed()}
    (tmp_path / RECORD).write_text(json.dumps(record), encoding="utf-8")
    feed = feed_of(find_source(tmp_path, []), tiny_rows, tokenizer, tiny_base, shape={})
    assert len(feed.rows) == len(feed.fed) == 64


def test_nothing_known_is_an_assumption(
    tokenizer: PreTrainedTokenizerFast, tiny_base: Path, tiny_rows: Path, tmp_path: Path
) -> None:
    source = find_source(None, [tiny_base])
    assert source.kind == "assumed"
    (tmp_path / "config.yaml").write_text("max_length: 4\n", encoding="utf-8")  # of anybody's: not looked for
    assert find_source(None, [tmp_path / "checkpoint-1"]).kind == "assumed"
    other = tmp_path / "axolotl.yaml"
    other.write_text("sequence_len: 4\n", encoding="utf-8")
    with pytest.raises(WhatStuckError, match="names no setting"):
        find_source(other, [])
    assert "taken to have been fed whole" in source.sentence
    feed = feed_of(source, tiny_rows, tokenizer, tiny_base, shape={})
    assert (len(feed.rows), feed.fed) == (64, {})
    with pytest.raises(WhatStuckError, match="says nothing about a training"):
        find_source(tiny_base, [])

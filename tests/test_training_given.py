"""Trainings of rows that are tokens already, in a given order, with forgotten rows drawn again."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import helpers
from whatstuck.datasets import read_rows
from whatstuck.errors import WhatStuckError
from whatstuck.training import TrainConfig, _trainer, train_model
from whatstuck.training._data import Encoder, prepare
from whatstuck.training._tokens import holds_tokens, read_order, read_tokens, write_order, write_tokens
from whatstuck.training.resampler import Resampler
from whatstuck.training.schedule import DenseCheckpoints

COMMON: dict[str, Any] = {"per_device_train_batch_size": 4, "learning_rate": 2e-3, "dense_checkpoints": False}


@pytest.fixture(scope="module")
def records(tiny_base: Path, tiny_rows: Path) -> list[dict[str, Any]]:
    """Sixteen encoded rows."""
    encode = Encoder(AutoTokenizer.from_pretrained(tiny_base), "auto")
    return [encode(row) for row in read_rows(tiny_rows, split="train", limit=16)]


def settings(base: Path, folder: Path, records: list[dict[str, Any]], order: list[str], **more: Any) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    write_tokens(records, folder / "rows.jsonl")
    write_order(order, folder / "order.json")
    given = {"model": base, "data": folder / "rows.jsonl", "order": folder / "order.json", "out": folder / "out"}
    return COMMON | given | more


def weights(out: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(out / f"checkpoint-{step}" / "adapter_model.safetensors")


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ctrl-C when a step has been taken, before it is saved."""

    class Interrupting(DenseCheckpoints):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if state.global_step == step:
                raise KeyboardInterrupt
            super().on_step_end(args, state, control, **rest)

    monkeypatch.setattr(_trainer, "DenseCheckpoints", Interrupting)


# --- files


def test_rows_of_tokens_are_read_as_they_were_written(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    write_tokens(records, tmp_path / "rows.jsonl")
    assert holds_tokens(tmp_path / "rows.jsonl")
    assert read_tokens(tmp_path / "rows.jsonl") == records
    assert not holds_tokens(helpers.write_jsonl(tmp_path / "plain.jsonl", helpers.rows(2, seed=0)))
    assert not holds_tokens(tmp_path / "missing.jsonl")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"input_ids": [1], "labels": [1]}', "line 2: not a row of tokens"),
        ('{"row_id": "a", "input_ids": [1, 2], "labels": [1]}', "line 2: give as many labels"),
        ("no json", "line 2: not a row of tokens"),
    ],
)
def test_a_bad_row_of_tokens_is_named(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"row_id": "x", "input_ids": [1, 2], "labels": [-100, 2]}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(WhatStuckError, match=words):
        read_tokens(file)


def test_an_order_names_rows_that_are_there(tmp_path: Path) -> None:
    write_order(["a", "b", "a"], tmp_path / "order.json")
    assert read_order(tmp_path / "order.json", ["a", "b", "c"]) == ["a", "b", "a"]
    with pytest.raises(WhatStuckError, match="1 rows that are not trained, such as 'b'"):
        read_order(tmp_path / "order.json", ["a"])
    (tmp_path / "order.json").write_text("{}", encoding="utf-8")
    with pytest.raises(WhatStuckError, match="JSON list"):
        read_order(tmp_path / "order.json", ["a"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"max_steps": 3}, "order says how long"),
        ({"num_train_epochs": 2}, "order says how long"),
        ({"resample": "forgotten"}, "give them, too"),
        ({"resample": "forgotten", "resample_every": 2, "dataloader_num_workers": 1}, "row by row"),
    ],
)
def test_settings_that_contradict_an_order_are_refused(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    given = {"model": "m", "data": "d", "out": "o", "order": tmp_path / "order.json"}
    with pytest.raises(WhatStuckError, match=words):
        TrainConfig.read(given | more)
    with pytest.raises(WhatStuckError, match="give them, too"):
        TrainConfig.read({"model": "m", "data": "d", "out": "o", "resample": "random", "resample_every": 2})


# --- trainings


def test_every_batch_is_the_next_of_the_order(tiny_base: Path, tmp_path: Path, records: list[dict[str, Any]]) -> None:
    order = [records[i]["row_id"] for i in (3, 3, 0, 5, 1, 2, 0, 3, 15)]
    config = TrainConfig.read(settings(tiny_base, tmp_path, records, order))
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    rows = prepare(config, tokenizer, positions=256)
    assert rows.draws == 9
    assert not rows.heldout
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    trainer = _trainer.make_trainer(config, config.sft_config(tmp_path / "out"), model, tokenizer, rows)
    by_ids = {tuple(record["input_ids"]): record for record in records}
    drawn = []
    for batch in trainer.get_train_dataloader():
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
            record = by_ids[tuple(ids[: int(mask.sum())].tolist())]
            assert labels[: len(record["labels"])].tolist() == record["labels"]
            drawn.append(record["row_id"])
    assert drawn == order


def test_the_order_decides_the_weights_and_a_changed_one_is_refused(
    tiny_base: Path, tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    order = [record["row_id"] for record in records]
    one = train_model(settings(tiny_base, tmp_path / "a", records, order))
    two = train_model(settings(tiny_base, tmp_path / "b", records, order))
    back = train_model(settings(tiny_base, tmp_path / "c", records, order[::-1]))
    assert json.loads((one / "whatstuck_train.json").read_text(encoding="utf-8"))["steps"] == 4
    same = [torch.equal(value, weights(two, 4)[name]) for name, value in weights(one, 4).items()]
    other = [torch.equal(value, weights(back, 4)[name]) for name, value in weights(one, 4).items()]
    assert all(same)
    assert not all(other)
    with pytest.raises(WhatStuckError, match="order: other rows"):
        train_model(settings(tiny_base, tmp_path / "a", records, order[::-1]))


def test_a_resampled_training_goes_on_as_if_nothing_had_happened(
    tiny_base: Path, tmp_path: Path, records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = records[0]
    other = next(record for record in records if record["labels"][-2:] != row["labels"][-2:])
    learned = [token for token in other["labels"] if token != -100]
    prompt = row["input_ids"][: row["labels"].count(-100)]
    against = {"row_id": "against", "input_ids": prompt + learned, "labels": [-100] * len(prompt) + learned}
    # the first row is learned for 6 steps, and then its contradiction, which overwrites it
    order = [row["row_id"]] * 24 + ["against"] * 24
    more = {"resample": "forgotten", "resample_every": 3, "save_steps": 10, "learning_rate": 2e-2}
    more["lr_scheduler_type"] = "constant"
    few = [row, against]
    whole = train_model(settings(tiny_base, tmp_path / "whole", few, order, **more))
    with monkeypatch.context() as patch:
        interrupt_at(patch, 11)
        with pytest.raises(KeyboardInterrupt):
            train_model(settings(tiny_base, tmp_path / "broken", few, order, **more))
    state = json.loads((tmp_path / "broken" / "out" / "checkpoint-10" / "resampling.json").read_text(encoding="utf-8"))
    assert [at for at, _ in state["checks"]] == [16, 28, 40]
    assert [weights for _, weights in state["checks"]] == [{}, {row["row_id"]: 2}, {row["row_id"]: 4}]
    again = train_model(settings(tiny_base, tmp_path / "broken", few, order, **more))
    for name, value in weights(whole, 12).items():
        assert torch.equal(value, weights(again, 12)[name])
    assert not (again / "checkpoint-12" / "resampling.json").exists()  # only going on needs it


# --- drawing again


def test_forgotten_rows_are_drawn_twice_and_then_four_times_as_often() -> None:
    rows = [f"r{i}" for i in range(20)]
    drawing = Resampler(rows * 2000, seed=1)
    assert drawing.check(rows, at=0) == {}
    assert drawing.check(rows[1:], at=0) == {"r0": 2}
    twice = Counter(drawing)
    mean = sum(twice[row] for row in rows[1:]) / 19
    assert twice["r0"] / mean == pytest.approx(2, rel=0.08)
    assert drawing.check(rows[1:], at=0) == {"r0": 4}
    four = Counter(drawing)
    assert four["r0"] / (sum(four[row] for row in rows[1:]) / 19) == pytest.approx(4, rel=0.08)
    assert drawing.check(rows[1:], at=0) == {"r0": 4}
    assert drawing.check(rows, at=0) == {}


def test_a_row_that_never_was_right_is_not_forgotten() -> None:
    drawing = Resampler(["a", "b"], seed=0)
    assert drawing.check(["a"], at=0) == {}
    assert drawing.check([], at=1) == {"a": 2}


def test_a_sham_draws_as_many_others_and_spares_whom_it_must() -> None:
    rows = [f"r{i}" for i in range(10)]
    drawing = Resampler(rows, seed=3, sham=True, spared=rows[5:])
    drawing.check(rows, at=0)
    found = drawing.check(rows[2:], at=4)
    assert sorted(found.values()) == [2, 2]
    assert set(found) <= {"r2", "r3", "r4"}


@given(st.integers(1, 12), st.integers(1, 60), st.integers(0, 99), st.data())
def test_draws_before_a_check_stay_and_their_number_is_kept(
    count: int, draws: int, seed: int, data: st.DataObject
) -> None:
    rows = [f"r{i}" for i in range(count)]
    order = [rows[i % count] for i in range(draws)]
    drawing = Resampler(order, seed=seed)
    assert list(drawing) == order
    at = 0
    for _ in range(4):
        before = list(drawing)
        at = data.draw(st.integers(at, draws))
        drawing.check(data.draw(st.sets(st.sampled_from(rows))), at=at)
        after = list(drawing)
        assert after[:at] == before[:at]
        assert len(after) == draws
    other = Resampler(order, seed=seed)
    other.go_on(json.loads(json.dumps(drawing.state())))
    assert list(other) == list(drawing)
    right = data.draw(st.sets(st.sampled_from(rows)))
    assert other.check(right, at=at) == drawing.check(right, at=at)

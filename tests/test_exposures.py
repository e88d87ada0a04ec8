"""How often each row is learned: against the order that the trainer was given, and through an interruption."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import TrainerCallback

from live_training import Rows, make_trainer
from whatstuck import WhatStuckCallback
from whatstuck.dynamics.teacher_forcing import TokenRow
from whatstuck.live.exposing import ExposureRecorder
from whatstuck.rows.exposure import Exposures, by_row, together
from whatstuck.rows.trajectories import TrainedRow


def rows() -> list[TrainedRow]:
    tokens = {"a": (5, 6, 7), "b": (5, 6), "b-2": (5, 6), "c": (9, 0, 0)}
    return [TrainedRow(name, TokenRow(ids, (1,))) for name, ids in tokens.items()]


def test_padding_is_no_part_of_a_row_but_equal_tokens_are() -> None:
    exposures = Exposures(rows())
    ids = torch.tensor([[0, 5, 6], [9, 0, 0], [5, 6, 7]])
    mask = torch.tensor([[0, 1, 1], [1, 1, 1], [1, 1, 1]])
    exposures.see({"input_ids": ids, "attention_mask": mask}, 1)
    exposures.see({"input_ids": torch.tensor([[5, 6]]), "attention_mask": torch.ones(1, 2)}, 4)
    assert by_row(rows(), exposures.taken()) == {"b": (1, 4), "c": (1, 1), "a": (1, 1), "b-2": (1, 4)}  # twins share
    exposures.see({"input_ids": torch.tensor([[5, 6]]), "attention_mask": torch.ones(1, 2)}, 5)
    assert by_row(rows(), exposures.taken()) == {"b": (2, 5), "c": (1, 1), "a": (1, 1), "b-2": (1, 5)}


def test_rows_in_one_line_are_told_apart_by_their_positions() -> None:
    exposures = Exposures(rows())
    line = {"input_ids": torch.tensor([[5, 6, 7, 9, 0, 0]]), "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2]])}
    exposures.see(line, 3)
    assert by_row(rows(), exposures.taken()) == {"a": (1, 3), "c": (1, 3)}


def test_a_batch_that_is_not_recognized_makes_nothing_known() -> None:
    exposures = Exposures(rows())
    exposures.see({"input_ids": torch.tensor([[5, 6, 8]]), "attention_mask": torch.ones(1, 3)}, 1)
    assert exposures.taken() is None
    assert together([{"a": (1, 2)}, None]) is None
    assert together([{"a": (1, 2)}, {"a": (2, 1), "b": (1, 1)}]) == {"a": (3, 2), "b": (1, 1)}


class Spy(TrainerCallback):
    """What really entered the model, step by step."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, tuple[int, ...]]] = []
        self.step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        del args, state, control

        def look(module: Any, args: Any, kwargs: Any) -> None:
            del args
            if module.training:
                pairs = zip(kwargs["input_ids"].tolist(), kwargs["attention_mask"].tolist(), strict=True)
                self.seen += [
                    (self.step, tuple(t for t, m in zip(line, mask, strict=True) if m)) for line, mask in pairs
                ]

        kwargs["model"].register_forward_pre_hook(look, with_kwargs=True)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args, control
        self.step = state.global_step + 1


def counted(folder: Path) -> dict[str, tuple[int, int | None]]:
    table = pq.read_table(folder / "exposures.parquet").to_pylist()
    return {row["row_id"]: (row["exposures"], row["last_exposure_step"]) for row in table}


def test_a_training_leaves_its_counts_in_every_checkpoint(tiny_base: Path, tiny_rows: Path, tmp_path: Path) -> None:
    spy, recorder = Spy(), ExposureRecorder()
    saving = {"save_strategy": "steps", "save_steps": 5, "max_steps": 10}
    trainer = make_trainer(tiny_base, tiny_rows, tmp_path / "a", [spy, recorder], lora=False, **saving)
    assert isinstance(trainer.train_dataset, Rows)
    trainer.train()
    by_tokens: dict[tuple[int, ...], list[str]] = {}
    for row in recorder.rows:
        by_tokens.setdefault(row.tokens.ids, []).append(row.row_id)
    for step in (5, 10):
        found = counted(tmp_path / "a" / f"checkpoint-{step}")
        assert len(found) == 64
        times = Counter(tokens for at, tokens in spy.seen if at <= step)
        last = {tokens: at for at, tokens in spy.seen if at <= step}
        for tokens, ids in by_tokens.items():
            assert sum(found[row_id][0] for row_id in ids) == times[tokens]
            assert max((found[row_id][1] or 0) for row_id in ids) == last.get(tokens, 0)
    assert sum(times.values()) == 80
    resumed = make_trainer(tiny_base, tiny_rows, tmp_path / "a", [ExposureRecorder()], lora=False, **saving)
    before = counted(tmp_path / "a" / "checkpoint-10")
    (tmp_path / "a" / "checkpoint-10" / "exposures.parquet").unlink()
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-5"))
    assert counted(tmp_path / "a" / "checkpoint-10") == before


def test_the_callback_puts_them_into_its_trajectories(
    tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    probe = WhatStuckCallback(
        tiny_heldout, tmp_path / "run", steps=[2, 9], probe_budget=None, players=3, rows=2, eval_rows=8,
        trajectories=True,
    )  # fmt: skip
    make_trainer(tiny_base, tiny_rows, tmp_path / "out", [probe], max_steps=9).train()
    assert probe.failure is None
    for step, seen in ((0, 0), (2, 16), (9, 72)):
        table = pq.read_table(tmp_path / "run" / "trajectories" / f"step-{step:06d}.parquet")
        assert sum(table["exposures"].to_pylist()) == seen
        assert max((last or 0) for last in table["last_exposure_step"].to_pylist()) == step


@pytest.mark.parametrize("masked", [True, False])
def test_looking_changes_nothing(tiny_base: Path, tiny_rows: Path, tmp_path: Path, masked: bool) -> None:  # noqa: FBT001
    losses = []
    for recorder in ([], [ExposureRecorder()]):
        trainer = make_trainer(tiny_base, tiny_rows, tmp_path / f"{masked}{len(recorder)}", recorder, lora=masked)
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == losses[1]

"""Fine-tuning: what is learned, what is saved when, and that an interruption changes nothing."""

import ast
import contextlib
import io
import json
import logging
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import helpers
from whatstuck.datasets import read_rows, render
from whatstuck.errors import MissingExtraError, WhatStuckError
from whatstuck.models import find_checkpoints, trainer_metrics
from whatstuck.training import TrainConfig, _saving, _trainer, dense_steps, plan_training, train_model
from whatstuck.training import sft as sft_module
from whatstuck.training._data import prepare
from whatstuck.training.schedule import DenseCheckpoints

STEPS = [0, 1, 2, 4, 5, 8, 10, 12]


@dataclass(frozen=True)
class Done:
    """A finished training, and what it printed."""

    settings: dict[str, Any]
    out: Path
    printed: str


@pytest.fixture(scope="module")
def lora(tiny_base: Path, tiny_rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """LoRA with dropout, so that a resumed run needs the random state too."""
    settings = {
        "model": tiny_base,
        "data": str(tiny_rows),
        "out": str(tmp_path_factory.mktemp("training") / "lora"),
        "heldout": 16,
        "max_steps": 12,
        "save_steps": 5,
        "learning_rate": 5e-3,
        "lora_dropout": 0.1,
    }
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        out = train_model(settings)
    return Done(settings, out, printed.getvalue())


def adapter(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "adapter_model.safetensors")


def record(out: Path) -> dict[str, Any]:
    return json.loads((out / "whatstuck_train.json").read_text(encoding="utf-8"))


def prompts(rows: Any) -> set[str]:
    return {row.content for row in rows}


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ctrl-C when a step has been taken, before it is saved."""

    class Interrupting(DenseCheckpoints):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if state.global_step == step:
                raise KeyboardInterrupt
            super().on_step_end(args, state, control, **rest)

    monkeypatch.setattr(_trainer, "DenseCheckpoints", Interrupting)


# --- schedule


@given(st.integers(1, 5000), st.integers(1, 6000))
def test_dense_steps_are_powers_of_two_multiples_and_the_last(max_steps: int, every: int) -> None:
    steps = dense_steps(max_steps, every)
    expected = [s for s in range(max_steps + 1) if s & (s - 1) == 0 or s % every == 0 or s == max_steps]
    assert steps == expected


def test_dense_steps_can_be_plain_and_refuse_nonsense() -> None:
    assert dense_steps(10, 4, dense=False) == [4, 8, 10]
    with pytest.raises(ValueError, match="at least 1"):
        dense_steps(0, 4)


# --- what a training leaves


def test_checkpoints_follow_the_schedule_and_are_found_by_track(lora: Done) -> None:
    found = find_checkpoints([str(lora.out)])
    assert [checkpoint.step for checkpoint in found] == STEPS
    assert {checkpoint.kind for checkpoint in found} == {"adapter"}
    assert not (lora.out / ".partial").exists()


def test_checkpoint_zero_is_exactly_the_base(lora: Done, tiny_base: Path) -> None:
    ids = torch.arange(5, 60).view(1, -1)
    base = AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    with torch.inference_mode():
        before = base(input_ids=ids).logits
        first = PeftModel.from_pretrained(base, lora.out / "checkpoint-0").eval()(input_ids=ids).logits
        base = AutoModelForCausalLM.from_pretrained(tiny_base)
        last = PeftModel.from_pretrained(base, lora.out / "checkpoint-12").eval()(input_ids=ids).logits
    assert torch.equal(first, before)
    assert not torch.allclose(last, before, atol=0.1)


def test_heldout_loss_is_known_at_every_checkpoint_and_falls(lora: Done) -> None:
    curve = trainer_metrics(find_checkpoints([str(lora.out)]))["eval_loss"]
    assert [step for step, _ in curve] == STEPS
    assert curve[-1][1] < 0.8 * curve[0][1]


def test_the_adapter_names_its_base(lora: Done, tiny_base: Path) -> None:
    config = json.loads((lora.out / "checkpoint-4" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == str(tiny_base.resolve())


def test_a_finished_training_holds_no_pickle_and_prints_nothing(lora: Done) -> None:
    assert not [file for file in lora.out.rglob("*") if file.suffix in {".pt", ".pth", ".bin", ".pkl"}]
    assert lora.printed == ""


def test_record_says_what_was_done(lora: Done, tiny_rows: Path) -> None:
    written = record(lora.out)
    assert written["finished"] is True
    assert written["data"] == str(tiny_rows)
    assert written["rows"] == {"train": 48, "heldout": 16, "eval_loss": 16}
    assert (written["steps"], written["checkpoints"]) == (12, STEPS)
    assert written["settings"]["lora_dropout"] == 0.1
    assert {"torch", "trl", "peft"} <= written["versions"].keys()


def test_heldout_rows_share_no_prompt_with_training_rows(lora: Done, tiny_base: Path) -> None:
    heldout = read_rows(lora.out / "heldout.jsonl")
    rows = prepare(TrainConfig.read(lora.settings), AutoTokenizer.from_pretrained(tiny_base), positions=None)
    every = {row.row_id: row for row in read_rows(lora.settings["data"])}
    trained = [every[row["row_id"]] for row in rows.train]
    assert {row.split for row in heldout} == {"heldout"}
    assert len(trained) + len(heldout) == 64
    assert not prompts(trained) & prompts(heldout)


# --- what is learned


@pytest.mark.parametrize("chat_template", ["auto", "never"])
def test_the_batch_is_the_rendered_prompt_and_only_the_completion_is_learned(
    lora: Done, tiny_base: Path, tmp_path: Path, chat_template: str
) -> None:
    config = TrainConfig.read(lora.settings | {"out": tmp_path, "chat_template": chat_template})
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    rows = prepare(config, tokenizer, positions=256)
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    trainer = _trainer.make_trainer(config, config.sft_config(tmp_path), model, tokenizer, rows)
    expected = {}
    for row in read_rows(config.data):
        rendered = render(row, tokenizer, chat_template=chat_template)
        ids = tuple(tokenizer(rendered.prompt, add_special_tokens=False)["input_ids"])
        expected[ids] = rendered.target_text + "</s>"
    seen = 0
    for batch in (*trainer.get_train_dataloader(), *trainer.get_eval_dataloader()):
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
            learned = labels != -100
            first, length = int(learned.nonzero()[0]), int(mask.sum())
            assert learned[first:length].all()
            assert torch.equal(ids[learned], labels[learned])
            assert tokenizer.decode(ids[learned]) == expected[tuple(ids[:first].tolist())]
            assert (ids[:length] == tokenizer.bos_token_id).sum() == (chat_template == "auto")
            assert (ids[:length] == tokenizer.eos_token_id).sum() == 1
            seen += 1
    assert seen == 64
    assert trainer.train_dataset["row_id"] == [row["row_id"] for row in rows.train]


def test_too_long_rows_are_left_out_whole_and_counted(
    lora: Done, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "rows.jsonl"
    long = {"prompt": "word " * 300, "completion": "glad"}
    helpers.write_jsonl(data, [*helpers.rows(20, seed=7), long])
    with caplog.at_level(logging.WARNING, logger="whatstuck"):
        out = train_model(
            lora.settings | {"data": data, "out": tmp_path / "out", "heldout": 0, "max_steps": 1, "max_length": 100}
        )
    assert record(out)["left_out"] == {"training rows longer than 100 tokens": 1}
    assert record(out)["rows"] == {"train": 20, "heldout": 0, "eval_loss": 0}
    assert "1 rows left out: training rows longer than 100 tokens" in caplog.text
    assert not (out / "heldout.jsonl").exists()
    assert (out / "checkpoint-0").exists()


# --- interruption


@pytest.mark.parametrize(("step", "kept"), [(1, [0]), (7, [0, 1, 2, 4, 5])])
def test_an_interrupted_training_ends_in_the_same_weights(
    lora: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, kept: list[int]
) -> None:
    settings = lora.settings | {"out": tmp_path / "out"}
    with monkeypatch.context() as patched:
        interrupt_at(patched, step)
        with pytest.raises(KeyboardInterrupt):
            train_model(settings)
    assert [checkpoint.step for checkpoint in find_checkpoints([str(tmp_path / "out")])] == kept
    first = (tmp_path / "out" / "checkpoint-0" / "adapter_model.safetensors").stat().st_mtime_ns
    out = train_model(settings)
    for name in ("checkpoint-0", "checkpoint-8", "checkpoint-12"):
        ours, theirs = adapter(out / name), adapter(lora.out / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert (out / "checkpoint-0" / "adapter_model.safetensors").stat().st_mtime_ns == first
    ours, theirs = (trainer_metrics(find_checkpoints([str(folder)])) for folder in (out, lora.out))
    assert ours["eval_loss"] == theirs["eval_loss"]


def test_an_interruption_while_saving_leaves_whole_checkpoints(
    lora: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = lora.settings | {"out": tmp_path / "out"}
    real = torch.save

    def broken_off(content: Any, file: Any, **rest: Any) -> None:
        real(content, file, **rest)
        if Path(file).name == "optimizer.pt" and Path(file).parent.name == "checkpoint-4":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", broken_off)
        with pytest.raises(KeyboardInterrupt):
            train_model(settings)
    out = tmp_path / "out"
    assert [checkpoint.step for checkpoint in find_checkpoints([str(out)])] == [0, 1, 2]
    assert [file.parent.name for file in out.rglob("optimizer.pt")] == ["checkpoint-2"]
    assert not (out / ".partial").exists()
    (out / "checkpoint-3").mkdir()  # what a trainer without staging leaves when it is killed
    (out / "checkpoint-3" / "adapter_config.json").write_text("{", encoding="utf-8")
    assert _saving.resume_point(out) == out / "checkpoint-2"


def test_a_finished_training_is_not_done_again(lora: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        pytest.fail("a finished training loaded the model")

    monkeypatch.setattr(sft_module, "load_model", load)
    assert train_model(lora.settings) == lora.out


def test_another_training_in_the_same_folder_is_refused_by_name(lora: Done, tiny_rows: Path, tmp_path: Path) -> None:
    with pytest.raises(WhatStuckError, match=r"lora_r: 8 before, 4 now; max_steps: 12 before, 13 now"):
        train_model(lora.settings | {"lora_r": 4, "max_steps": 13})
    other = tmp_path / "rows.jsonl"
    other.write_text(tiny_rows.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(WhatStuckError, match="data: other rows"):
        train_model(lora.settings | {"data": other})
    (tmp_path / "out" / "checkpoint-5").mkdir(parents=True)
    with pytest.raises(WhatStuckError, match="new folder"):
        train_model(lora.settings | {"out": tmp_path / "out"})


def test_training_does_not_go_on_without_the_optimizer(lora: Done, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(lora.out, out)
    (out / "whatstuck_train.json").write_text(json.dumps(record(out) | {"finished": False}), encoding="utf-8")
    with pytest.raises(WhatStuckError, match="checkpoint-12 has no optimizer state"):
        train_model(lora.settings | {"out": out})


# --- all weights


def test_full_finetuning_resumes_and_writes_no_copy_of_the_base(
    lora: Done, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = lora.settings | {"use_peft": False, "max_steps": 6, "learning_rate": 1e-3}
    whole = train_model(settings | {"out": tmp_path / "whole"})
    assert [checkpoint.step for checkpoint in find_checkpoints([str(whole)])] == [1, 2, 4, 5, 6]
    curve = trainer_metrics(find_checkpoints([str(whole)]))["eval_loss"]
    assert [step for step, _ in curve] == [0, 1, 2, 4, 5, 6]
    assert curve[-1][1] < curve[0][1]
    weights, base = (load_file(folder / "model.safetensors") for folder in (whole / "checkpoint-6", tiny_base))
    assert all(not torch.equal(weights[name], base[name]) for name in base if "proj" in name)

    with monkeypatch.context() as patched:
        interrupt_at(patched, 3)
        with pytest.raises(KeyboardInterrupt):
            train_model(settings | {"out": tmp_path / "broken"})
    broken = train_model(settings | {"out": tmp_path / "broken"})
    resumed = load_file(broken / "checkpoint-6" / "model.safetensors")
    assert all(torch.equal(resumed[name], weights[name]) for name in weights)


# --- settings


@pytest.mark.parametrize(
    ("given_setting", "message"),
    [
        ({"lerning_rate": 1e-4}, "unknown setting 'lerning_rate': did you mean 'learning_rate'"),
        ({"num_train_epoch": 2}, "unknown setting 'num_train_epoch': did you mean 'num_train_epochs'"),
        ({"qqq": 2}, "unknown setting 'qqq': it is neither"),
        ({"load_best_model_at_end": True}, "load_best_model_at_end=True cannot be set: every checkpoint is kept"),
        ({"packing": True}, "packing=True cannot be set: rows are trained exactly as"),
        ({"weight_decay": "much"}, "weight_decay: .*number.*'much'"),
        ({"lora_r": 0}, "lora_r: .*greater than or equal to 1"),
        ({"heldout": 1.5}, "heldout is a share below 1"),
        ({"heldout": 5, "eval_data": "x.jsonl"}, "heldout or eval_data, not both"),
        ({"output_dir": "elsewhere"}, "out is given twice, once as output_dir"),
    ],
)
def test_bad_settings_are_refused_by_name(lora: Done, given_setting: dict[str, Any], message: str) -> None:
    with pytest.raises(WhatStuckError, match=message) as caught:
        TrainConfig.read(lora.settings | given_setting)
    assert "\n" not in str(caught.value)


def test_trl_names_and_yaml_numbers_are_understood(tmp_path: Path) -> None:
    config = TrainConfig.read(
        {
            "model_name_or_path": "smollm2",
            "dataset_name": "rows.jsonl",
            "output_dir": tmp_path,
            "learning_rate": "2e-4",  # YAML reads such numbers as text
            "weight_decay": "1e-2",
            "save_strategy": "steps",
            "packing": False,
            "per_device_train_batch_size": 4,
        }
    )
    assert (config.model, config.data, config.out) == ("smollm2", Path("rows.jsonl"), tmp_path)
    arguments = config.sft_config(tmp_path)
    assert (arguments.learning_rate, arguments.weight_decay) == (2e-4, 1e-2)
    assert arguments.per_device_train_batch_size == 4
    assert (arguments.bf16, arguments.gradient_checkpointing) == (torch.cuda.is_available(), False)
    assert (arguments.save_strategy, arguments.eval_strategy) == ("no", "no")
    assert arguments.lr_scheduler_type == "cosine"


def test_trl_refusals_are_one_line(lora: Done, tmp_path: Path) -> None:
    with pytest.raises(WhatStuckError, match="TRL refuses these settings: ") as caught:
        TrainConfig.read(lora.settings | {"lr_scheduler_type": "zigzag"}).sft_config(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(WhatStuckError, match=r"TRL refuses this training: .*nothing_proj"):
        train_model(lora.settings | {"out": tmp_path / "out", "lora_target_modules": ["nothing_proj"]})


def test_a_missing_extra_says_what_to_install(lora: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(MissingExtraError, match=r"whatstuck\[trl\]"):
        train_model(lora.settings | {"max_grad_norm": 0.5})


def test_no_file_imports_an_extra_before_it_is_needed() -> None:
    for file in Path(sft_module.__file__).parent.glob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not {name.split(".")[0] for name in names} & {"trl", "peft", "datasets", "accelerate"}, file


# --- rows


def split(lora: Done, tiny_base: Path, **settings: Any) -> Any:
    given_settings = {name: value for name, value in lora.settings.items() if name != "heldout"} | settings
    return prepare(TrainConfig.read(given_settings), AutoTokenizer.from_pretrained(tiny_base), positions=None)


def test_rows_with_one_prompt_are_never_separated(lora: Done, tiny_base: Path, tmp_path: Path) -> None:
    rows = [row | {"completion": answer} for row in helpers.rows(30, seed=8) for answer in ("glad", "sad")]
    data = helpers.write_jsonl(tmp_path / "rows.jsonl", rows)
    done = split(lora, tiny_base, data=data, heldout=0.25)
    trained = {row["row_id"] for row in done.train}
    assert (len(trained), len(done.heldout)) == (46, 14)  # a quarter is 15, an odd number
    assert not prompts(row for row in read_rows(data) if row.row_id in trained) & prompts(done.heldout)
    assert split(lora, tiny_base, data=data, heldout=0.25).heldout == done.heldout
    assert split(lora, tiny_base, data=data, heldout=0.25, seed=1).heldout != done.heldout


def test_heldout_rows_from_a_file_or_marked_in_the_data(lora: Done, tiny_base: Path, tmp_path: Path) -> None:
    rows = helpers.rows(20, seed=9)
    data = helpers.write_jsonl(tmp_path / "rows.jsonl", rows[:14])
    heldout = helpers.write_jsonl(tmp_path / "heldout.jsonl", rows[10:])
    done = split(lora, tiny_base, data=data, eval_data=heldout)
    assert (len(done.train), len(done.heldout)) == (14, 6)
    assert done.left_out == {"held-out rows whose prompt is trained on": 4}

    marks = [{**row, "split": "heldout" if i < 5 else "train"} for i, row in enumerate(rows)]
    marked = helpers.write_jsonl(tmp_path / "marked.jsonl", marks)
    done = split(lora, tiny_base, data=marked)
    assert (len(done.train), prompts(done.heldout)) == (15, {row["prompt"] for row in rows[:5]})
    with pytest.raises(WhatStuckError, match="leave the setting heldout out"):
        split(lora, tiny_base, data=marked, heldout=3)


def test_bad_rows_are_refused(lora: Done, tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(WhatStuckError, match=r"nowhere\.jsonl"):
        train_model(lora.settings | {"out": tmp_path / "out", "data": tmp_path / "nowhere.jsonl"})
    with pytest.raises(WhatStuckError, match="no row is left to train on"):
        split(lora, tiny_base, max_length=5)
    same = helpers.write_jsonl(tmp_path / "same.jsonl", [{"prompt": "why", "completion": a} for a in "abcd"])
    with pytest.raises(WhatStuckError, match="no prompt has 2 rows or fewer"):
        split(lora, tiny_base, data=same, heldout=2)
    with pytest.raises(WhatStuckError, match="every held-out row has a prompt that is also trained on"):
        split(lora, tiny_base, data=same, eval_data=same)


def test_the_plan_is_what_training_then_does(lora: Done, tmp_path: Path) -> None:
    settings = {name: value for name, value in lora.settings.items() if name != "max_steps"}
    settings |= {"out": tmp_path / "out", "num_train_epochs": 2, "gradient_accumulation_steps": 4}
    planned = plan_training(settings)
    assert not (tmp_path / "out").exists()
    assert (planned["train_rows"], planned["heldout_rows"]) == (48, 16)
    assert planned["seconds"] > 0
    assert planned["memory_gb"] > 0
    out = train_model(settings)
    assert planned["checkpoints"] == [checkpoint.step for checkpoint in find_checkpoints([str(out)])]
    assert json.loads(json.dumps(planned)) == planned

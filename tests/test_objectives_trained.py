"""Objectives on a trainer: equal to TRL's own, the same in parts and after interruptions, and logged."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import helpers
from test_training import interrupt_at
from whatstuck.cli import app
from whatstuck.datasets import read_rows
from whatstuck.errors import WhatStuckError
from whatstuck.models import find_checkpoints
from whatstuck.training import TrainConfig, _trainer, plan_training, train_model
from whatstuck.training._data import Encoder, prepare
from whatstuck.training._tokens import write_order, write_tokens
from whatstuck.training.objectives import find_objective, objective_names
from whatstuck.training.objectives.learning import Learner
from whatstuck.training.objectives.threshold import top_mass_threshold


@pytest.fixture(scope="module")
def settings(tiny_base: Path, tiny_rows: Path) -> dict[str, Any]:
    return {
        "model": tiny_base,
        "data": str(tiny_rows),
        "heldout": 8,
        "max_steps": 4,
        "dense_checkpoints": False,
        "save_steps": 2,
        "learning_rate": 5e-3,
        "per_device_train_batch_size": 4,
    }


def trainer_of(settings: dict[str, Any], out: Path) -> Any:
    config = TrainConfig.read(settings | {"out": out})
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    rows = prepare(config, tokenizer, positions=256)
    model = AutoModelForCausalLM.from_pretrained(settings["model"])
    return _trainer.make_trainer(config, config.sft_config(out), model, tokenizer, rows)


@pytest.mark.parametrize("name", ["sft", "dft"])
def test_ours_equals_trls_on_the_same_batch(settings: dict[str, Any], tmp_path: Path, name: str) -> None:
    trainer = trainer_of(settings | {"objective": name}, tmp_path)
    assert trainer.learner is None
    assert trainer.args.loss_type == {"sft": "nll"}.get(name, name)
    trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    ours = Learner(find_objective(name), trainer, [])
    for count in (None, torch.tensor(57)):  # a batch of its own, and a part of a larger one
        theirs = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=count)
        before = trainer._total_train_tokens
        torch.testing.assert_close(ours(trainer.model, dict(batch), count), theirs)
        assert trainer._total_train_tokens == 2 * before > 0
        trainer._total_train_tokens = 0
    logged = trainer._metrics["train"]
    for metric in ("entropy", "mean_token_accuracy"):
        assert len(logged[metric]) == 4
        assert logged[metric][1] == pytest.approx(logged[metric][0], rel=1e-5)
    assert logged["num_tokens"] == [2 * before]
    trainer._metrics["train"].clear()


@pytest.mark.parametrize("per_sequence", [False, True])
def test_a_count_for_each_visible_gpu_is_one_count(
    settings: dict[str, Any],
    tmp_path: Path,
    per_sequence: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    trainer = trainer_of(settings, tmp_path)
    trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    ours = Learner(find_objective("sft", {"per_sequence": per_sequence}), trainer, [])
    ours.sequences = 9
    expected = ours(trainer.model, dict(batch), torch.tensor(57))
    assert expected.shape == ()
    for gpus in (2, 3):
        torch.testing.assert_close(ours(trainer.model, dict(batch), torch.full((gpus, 1), 57.0)), expected)


def test_a_batch_without_supervised_tokens_logs_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    trainer = trainer_of(settings | {"objective": "kl"}, tmp_path)
    trainer.model.train()
    batch = dict(next(iter(trainer.get_train_dataloader())))
    batch["labels"] = torch.full_like(batch["labels"], -100)
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(5))
    loss.backward()
    assert loss == 0
    assert not any(weight.grad.any() for weight in trainer.model.parameters() if weight.grad is not None)
    assert set(trainer._metrics["train"]) == {"num_tokens"}


def test_evaluation_is_cross_entropy_whatever_is_minimized(settings: dict[str, Any], tmp_path: Path) -> None:
    found = {}
    for name in objective_names():
        trainer = trainer_of(settings | {"objective": name}, tmp_path)
        found[name] = trainer.evaluate()["eval_loss"]
        assert trainer.args.loss_type == ("dft" if name == "dft" else "nll")
    assert set(found.values()) == {found["sft"]}


def test_the_threshold_of_sed_is_found_on_heldout_rows(settings: dict[str, Any], tmp_path: Path) -> None:
    trainer = trainer_of(settings | {"objective": "sed", "objective_options": {"ratio": 0.6, "k": 3}}, tmp_path)
    rows, tau = list(trainer.eval_dataset), trainer.learner.objective.tau
    model = AutoModelForCausalLM.from_pretrained(settings["model"]).eval()
    masses = []
    for row in rows:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        learned = torch.tensor(row["labels"][1:]) != -100
        masses += logits[learned].softmax(-1).topk(3).values.sum(-1).tolist()
    reached = [mass for mass in masses if mass >= tau - 1e-6]
    assert len(reached) / len(masses) == pytest.approx(0.6, abs=1 / len(masses))
    assert min(abs(mass - tau) for mass in masses) < 1e-6
    assert top_mass_threshold(model, rows, k=3, ratio=1.0) == pytest.approx(min(masses))
    with pytest.raises(WhatStuckError, match="give heldout, or tau"):
        trainer_of(settings | {"objective": "sed", "heldout": 0}, tmp_path)


def trained(base: Path, folder: Path, rows: Path, **more: Any) -> dict[str, torch.Tensor]:
    """Weights after training eight rows of different lengths in one order, twice: a leash holds from step 2 on."""
    encode = Encoder(AutoTokenizer.from_pretrained(base), "auto")
    records = [encode(row) for row in read_rows(rows, split="train", limit=8)]
    for index, record in enumerate(records):  # supervised lengths from 2 to 9
        cut = len(record["labels"]) - 2 - index
        record["labels"] = [-100] * cut + record["input_ids"][cut:]
    folder.mkdir()
    write_tokens(records, folder / "rows.jsonl")
    write_order([record["row_id"] for record in records] * 2, folder / "order.json")
    given = {"model": base, "data": folder / "rows.jsonl", "order": folder / "order.json", "out": folder / "out"}
    common = {"dense_checkpoints": False, "use_peft": False, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 1e9}
    out = train_model(common | given | more)
    (last,) = find_checkpoints([str(out)])
    return load_file(last.path / "model.safetensors")


@pytest.mark.parametrize("name", ["sed", "l2"])
@pytest.mark.parametrize("weighing", ["tokens", "sequences"])
def test_a_step_in_parts_is_the_same_step(
    tiny_base: Path, tiny_rows: Path, tmp_path: Path, name: str, weighing: str
) -> None:
    options = {"per_sequence": weighing == "sequences"} | ({"tau": 0.9} if name == "sed" else {"weight": 0.5})
    more = {"objective": name, "objective_options": options}
    whole = trained(tiny_base, tmp_path / "a", tiny_rows, per_device_train_batch_size=8, **more)
    parts = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    found = trained(tiny_base, tmp_path / "b", tiny_rows, **parts, **more)
    start = load_file(tiny_base / "model.safetensors")
    for key, weight in whole.items():
        assert not torch.equal(weight, start[key])
        torch.testing.assert_close(found[key], weight, atol=1e-6, rtol=1e-4)


def test_sequences_weigh_the_same_where_asked(tiny_base: Path, tiny_rows: Path, tmp_path: Path) -> None:
    found = {
        per: trained(
            tiny_base,
            tmp_path / str(per),
            tiny_rows,
            per_device_train_batch_size=8,
            objective_options={"per_sequence": per},
        )
        for per in (False, True)
    }
    assert not torch.allclose(found[False]["lm_head.weight"], found[True]["lm_head.weight"], atol=1e-5)


@pytest.mark.parametrize(
    "more",
    [
        {"objective": "kl", "objective_options": {"weight": 0.5}, "lora_dropout": 0.1},
        {"objective": "asft", "use_peft": False, "learning_rate": 1e-3},
        {"objective": "l2", "use_peft": False, "learning_rate": 1e-3},
        {"objective": "sed"},
    ],
    ids=lambda more: more["objective"],
)
def test_an_interrupted_training_ends_in_the_same_weights(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    given = settings | more
    whole = train_model(given | {"out": tmp_path / "whole"})
    broken = given | {"out": tmp_path / "broken"}
    with monkeypatch.context() as patched:
        interrupt_at(patched, 3)
        with pytest.raises(KeyboardInterrupt):
            train_model(broken)
    assert train_model(broken) == tmp_path / "broken"
    file = "checkpoint-4/" + ("model.safetensors" if more.get("use_peft") is False else "adapter_model.safetensors")
    ours, theirs = load_file(tmp_path / "broken" / file), load_file(whole / file)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    with pytest.raises(WhatStuckError, match=f"objective: '{more['objective']}' before, None now"):
        train_model(broken | {"objective": "sft", "objective_options": {}})
    with pytest.raises(WhatStuckError, match=r"objective_options: .* before, .* now"):
        train_model(broken | {"objective_options": {"per_sequence": True}})


def test_what_an_objective_says_is_logged_and_recorded(settings: dict[str, Any], tmp_path: Path) -> None:
    out = train_model(settings | {"out": tmp_path / "out", "objective": "sed", "logging_steps": 1, "max_steps": 2})
    state = json.loads((out / "checkpoint-2" / "trainer_state.json").read_text(encoding="utf-8"))
    first = next(entry for entry in state["log_history"] if "loss" in entry)
    assert {"nll", "penalty", "regularized", "entropy", "mean_token_accuracy", "num_tokens"} <= first.keys()
    assert first["loss"] == pytest.approx(first["nll"] + first["penalty"], rel=1e-4)
    record = json.loads((out / "whatstuck_train.json").read_text(encoding="utf-8"))
    assert 0 < record["objective"]["tau"] <= 1
    assert record["settings"]["objective"] == "sed"


def test_anchors_hold(settings: dict[str, Any], tmp_path: Path) -> None:
    kl = {}
    for weight in (0.0, 5.0):
        options = {"objective": "kl", "objective_options": {"weight": weight}}
        out = train_model(settings | options | {"out": tmp_path / str(weight), "logging_steps": 1, "max_steps": 8})
        state = json.loads((out / "checkpoint-8" / "trainer_state.json").read_text(encoding="utf-8"))
        logged = [entry["kl"] for entry in state["log_history"] if "kl" in entry]
        assert logged[0] == 0  # the adapter adds nothing yet, and dropout is off in the reference
        kl[weight] = logged[-1]
    assert kl[5.0] < 0.3 * kl[0.0]


@pytest.mark.parametrize("use_peft", [True, False])
def test_the_reference_is_the_model_at_the_start_without_dropout(
    settings: dict[str, Any],
    tmp_path: Path,
    use_peft: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    base = helpers.copy_with_config(settings["model"], tmp_path / "base", attention_dropout=0.5)
    given = settings | {"model": base, "objective": "kl", "use_peft": use_peft}
    trainer = trainer_of(given, tmp_path / "out")
    with torch.no_grad():
        for weight in trainer.model.parameters():
            if weight.requires_grad:
                weight.add_(0.1)  # the training has gone on
    trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    supervised = batch["labels"][:, 1:] != -100
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    found = trainer.learner._reference_logits(trainer.model, inputs, supervised)
    assert not found.requires_grad
    with torch.inference_mode():
        start = AutoModelForCausalLM.from_pretrained(base).eval()(**inputs).logits[:, :-1][supervised]
    torch.testing.assert_close(found, start)
    assert trainer.model.training
    assert all(module.training for module in trainer.model.modules())


def test_half_precision_changes_no_anchor(settings: dict[str, Any], tmp_path: Path) -> None:
    for name, use_peft in (("kl", True), ("asft", False)):
        given = {
            "objective": name,
            "use_peft": use_peft,
            "bf16": True,
            "logging_steps": 1,
            "max_steps": 1,
        }
        out = train_model(settings | given | {"out": tmp_path / name})
        state = json.loads((out / "checkpoint-1" / "trainer_state.json").read_text(encoding="utf-8"))
        assert [entry["kl"] for entry in state["log_history"] if "kl" in entry] == [0]


def test_settings_that_say_the_same_are_the_same(settings: dict[str, Any], tmp_path: Path) -> None:
    given = settings | {"out": tmp_path}
    assert "objective" not in TrainConfig.read(given).fixed()
    asked = TrainConfig.read(given | {"objective": "kl"}).fixed()
    assert asked["objective_options"] == {"per_sequence": False, "weight": 0.1}
    assert asked == TrainConfig.read(given | {"objective": "kl", "objective_options": {"weight": 0.1}}).fixed()
    with pytest.raises(WhatStuckError, match="leave loss_type out"):
        TrainConfig.read(given | {"objective": "kl", "loss_type": "nll"})
    with pytest.raises(WhatStuckError, match="give objective=dft instead"):
        TrainConfig.read(given | {"loss_type": "dft", "objective_options": {"per_sequence": True}})
    with pytest.raises(WhatStuckError, match="label_smoothing_factor is part of no objective but sft"):
        TrainConfig.read(given | {"objective": "eaft", "label_smoothing_factor": 0.1})
    for ours in ({"objective": "kl"}, {"objective_options": {"per_sequence": True}}):
        with pytest.raises(WhatStuckError, match="leave padding_free out"):
            TrainConfig.read(given | ours | {"padding_free": True})
    for theirs in ("sft", "dft"):
        assert TrainConfig.read(given | {"objective": theirs, "padding_free": True}).own_objective() is None
    assert plan_training(given | {"objective": "asft", "use_peft": False})["seconds"] > 0


def test_the_command_line_names_an_objective(settings: dict[str, Any], tmp_path: Path) -> None:
    from typer.testing import CliRunner

    flags = ["--model", str(settings["model"]), "--data", settings["data"], "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["train", *flags, "--objective", "nonsense"])
    assert result.exit_code == 2
    assert "unknown objective 'nonsense': use sft, dft, sed" in result.stderr

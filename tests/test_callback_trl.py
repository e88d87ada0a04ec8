"""A probed training of TRL's trainer: what TRL itself logs must not change, nor what is learned."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from trl import SFTConfig, SFTTrainer

import whatstuck
from whatstuck import WhatStuckCallback

# TRL's own default, under the name that transformers has given up
pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")

_TIMES = ("runtime", "samples_per_second", "steps_per_second")


def make_trainer(base: Path, train: Path, heldout: Path, out: Path, *, lora: bool, probe: Any = None) -> Any:
    """TRL's defaults, but for sizes; it evaluates at steps 2 and 4, and the callback probes at 1, 2 and 3."""
    torch.manual_seed(11)
    config = SFTConfig(
        output_dir=str(out),
        max_steps=4,
        per_device_train_batch_size=4,
        learning_rate=3e-3,
        logging_steps=2,  # two steps in one entry: a log of ours between them must not end it
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        seed=5,
    )
    trainer: Any = SFTTrainer(
        model=LlamaForCausalLM.from_pretrained(base, attention_dropout=0.1),
        args=config,
        train_dataset=Dataset.from_json(str(train)),
        eval_dataset=Dataset.from_json(str(heldout)),
        processing_class=PreTrainedTokenizerFast.from_pretrained(base),
        peft_config=LoraConfig(r=4, lora_dropout=0.1, target_modules=["q_proj", "v_proj"]) if lora else None,
        callbacks=None if probe is None else [probe],
    )
    trainer.remove_callback(PrinterCallback)
    if probe is not None:
        probe.attach(trainer)
    return trainer


def own_entries(trainer: Any) -> list[dict[str, float]]:
    """What TRL logged, without how long it took."""
    entries = [entry for entry in trainer.state.log_history if not any("whatstuck" in name for name in entry)]
    return [{name: value for name, value in e.items() if not name.endswith(_TIMES)} for e in entries]


@pytest.mark.parametrize("lora", [True, False])
def test_trl_logs_and_learns_the_same(
    *, lora: bool, tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path: Path
) -> None:
    files = (tiny_base, tiny_rows, tiny_heldout)
    plain = make_trainer(*files, tmp_path / "plain", lora=lora)
    plain.train()
    probe = WhatStuckCallback(
        tiny_heldout, tmp_path / "run", steps=[1, 2, 3], probe_budget=None, players=4, rows=4, eval_rows=16, seed=3
    )
    probed = make_trainer(*files, tmp_path / "out", lora=lora, probe=probe)
    probed.train()

    assert probe.failure is None
    ours = {entry["step"]: entry for entry in probed.state.log_history if "eval_whatstuck_rho_emerged" in entry}
    assert sorted(ours) == [1, 2, 3]
    assert not any(name.startswith("eval_") and "whatstuck" not in name for entry in ours.values() for name in entry)
    assert whatstuck.load_run(tmp_path / "run").steps == [0, 1, 2, 3]

    entries = own_entries(probed)
    assert entries == own_entries(plain)
    assert [entry["step"] for entry in entries if "loss" in entry] == [2, 4]
    assert all("mean_token_accuracy" in entry for entry in entries if "loss" in entry)
    assert all("eval_mean_token_accuracy" in entry for entry in entries if "eval_loss" in entry)
    for name, weight in plain.model.state_dict().items():
        assert torch.equal(weight, probed.model.state_dict()[name]), name

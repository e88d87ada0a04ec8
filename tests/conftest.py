"""Fixtures that every test shares: a tiny model that was really trained, its rows, and its checkpoints.

Each is made once per test process, into a folder of its own, so tests can run in parallel (`pytest -n 2`).
Nobody writes into these folders; copy what a test must change.
"""

import os

# Before torch is imported. Spinning OpenMP threads of several test processes would fight for the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

import helpers
from live_training import PROBE, make_trainer
from whatstuck import WhatStuckCallback

torch.set_num_threads(1)
hypothesis.settings.register_profile("machine", deadline=None)  # how long an example takes is the machine's affair
hypothesis.settings.load_profile("machine")

ADAPTER_STEPS = (1, 2, 4, 8, 16, 32)
FULL_STEPS = (8, 32)
_BATCH = 16


def pytest_configure(config: pytest.Config) -> None:
    """Let warnings pass that are between other people."""
    # PEFT 0.21 asks transformers 5.23 for an old name
    config.addinivalue_line("filterwarnings", "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
    # transformers 4, with save_total_limit, where checkpoints are less than a second apart
    config.addinivalue_line("filterwarnings", "ignore:mtime may not be reliable:UserWarning")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Llama with tokenizer and chat template, pretrained on the world of helpers.py."""
    folder = tmp_path_factory.mktemp("base") / "tiny-llama"
    tokenizer = helpers.tiny_tokenizer()
    model = helpers.tiny_llama(len(tokenizer))
    helpers.pretrain(model, tokenizer, steps=200, batch=32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSONL of 64 prompt/completion rows that `tiny_run` was trained on."""
    return helpers.write_jsonl(tmp_path_factory.mktemp("rows") / "train.jsonl", helpers.rows(64, seed=2))


@pytest.fixture(scope="session")
def tiny_heldout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSONL of 32 rows of the same rule that nothing was trained on."""
    return helpers.write_jsonl(tmp_path_factory.mktemp("rows") / "heldout.jsonl", helpers.rows(32, seed=3))


@pytest.fixture(scope="session")
def tiny_run(tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a LoRA fine-tuning: `checkpoint-N` for N in `ADAPTER_STEPS`, with trainer_state.json."""
    folder = tmp_path_factory.mktemp("run") / "lora"
    torch.manual_seed(4)
    config = LoraConfig(
        r=8,
        lora_alpha=16,
        lora_dropout=0.0,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(LlamaForCausalLM.from_pretrained(tiny_base), config)
    _finetune(model, tiny_base, tiny_rows, tiny_heldout, folder, ADAPTER_STEPS, lr=4e-3)
    return folder


@pytest.fixture(scope="session")
def tiny_full_run(
    tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Output folder of a full fine-tuning: `checkpoint-8` in one file, `checkpoint-32` in shards."""
    folder = tmp_path_factory.mktemp("run") / "full"
    model = LlamaForCausalLM.from_pretrained(tiny_base)
    _finetune(model, tiny_base, tiny_rows, tiny_heldout, folder, FULL_STEPS, lr=1e-3)
    return folder


@pytest.fixture(scope="session")
def live(tiny_base: Path, tiny_rows: Path, tiny_heldout: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished probed training that saved every second step: its trainer, callback, run folder and output folder."""
    folder = tmp_path_factory.mktemp("live")
    probe = WhatStuckCallback(tiny_heldout, folder / "run", steps=[1, 2, 4, 6], **PROBE)
    trainer = make_trainer(
        tiny_base, tiny_rows, folder / "out", [probe], evaluate_on=tiny_heldout,
        save_strategy="steps", save_steps=2, save_total_limit=1, eval_strategy="steps", eval_steps=2,
    )  # fmt: skip
    probe.attach(trainer)
    trainer.train()
    assert probe.failure is None
    return trainer, probe, folder / "run", folder / "out"


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Function from a name to its folder of shared data; skips the test where the folder is missing."""

    def find(name: str) -> Path:
        folder = Path(__file__).resolve().parents[2] / "shared" / "data" / name
        if not folder.is_dir():
            pytest.skip(f"../shared/data/{name} is not there; this test reads data that is not in the repository")
        return folder

    return find


def _finetune(
    model: PreTrainedModel,
    base: Path,
    train: Path,
    heldout: Path,
    folder: Path,
    steps: tuple[int, ...],
    *,
    lr: float,
) -> None:
    """Plain SFT on the completions, saving what a trainer saves: weights, tokenizer and trainer_state.json."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    ids, labels = _encoded(tokenizer, train)
    heldout_ids, heldout_labels = _encoded(tokenizer, heldout)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)
    history: list[dict[str, float]] = []
    for step, chosen in enumerate(helpers.batches(len(ids), _BATCH, max(steps), seed=5), start=1):
        model.train()
        optimizer.zero_grad()
        loss = helpers.next_token_loss(model(input_ids=ids[chosen], use_cache=False).logits, labels[chosen])
        loss.backward()
        optimizer.step()
        epoch = step * _BATCH / len(ids)
        history.append({"epoch": epoch, "loss": loss.item(), "step": step})
        if step not in steps:
            continue
        model.eval()
        with torch.inference_mode():
            logits = model(input_ids=heldout_ids, use_cache=False).logits
        eval_loss = helpers.next_token_loss(logits, heldout_labels).item()
        history.append({"epoch": epoch, "eval_loss": eval_loss, "eval_runtime": 0.1, "step": step})
        checkpoint = folder / f"checkpoint-{step}"
        sharded = step == FULL_STEPS[-1] and steps is FULL_STEPS
        model.save_pretrained(checkpoint, max_shard_size="200KB" if sharded else "5GB")
        tokenizer.save_pretrained(checkpoint)
        state = {"global_step": step, "epoch": epoch, "log_history": history}
        (checkpoint / "trainer_state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")


def _encoded(tokenizer: PreTrainedTokenizerFast, rows: Path) -> tuple[torch.Tensor, torch.Tensor]:
    records = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    return helpers.encode(tokenizer, [(helpers.chat(r["prompt"]), r["completion"] + "</s>") for r in records])

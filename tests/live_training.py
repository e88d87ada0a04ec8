"""A training with transformers' own Trainer on the tiny model, for tests of what lives inside of one."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    DataCollatorForSeq2Seq,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import helpers

PROBE: dict[str, Any] = {"players": 4, "rows": 4, "eval_rows": 32, "probe_budget": None, "seed": 3}
"""What the tests' probes look at: little."""


class Rows(torch.utils.data.Dataset[dict[str, list[int]]]):
    """Tokenized rows with labels on the completions."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, file: Path) -> None:
        self._rows = []
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            prompt = tokenizer(helpers.chat(record["prompt"]), add_special_tokens=False)["input_ids"]
            answer = tokenizer(record["completion"] + "</s>", add_special_tokens=False)["input_ids"]
            self._rows.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self._rows[index]


def make_trainer(
    base: Path,
    train: Path,
    out: Path,
    callbacks: Sequence[TrainerCallback] = (),
    *,
    lora: bool = True,
    dropout: float = 0.1,
    evaluate_on: Path | None = None,
    dtype: torch.dtype = torch.float32,
    **arguments: Any,
) -> Trainer:
    """A trainer on CPU; `arguments` are those of TrainingArguments."""
    torch.manual_seed(11)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    model: Any = LlamaForCausalLM.from_pretrained(base, attention_dropout=dropout).to(dtype)
    if lora:
        config = LoraConfig(r=4, lora_dropout=dropout, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
    settings = {
        "output_dir": str(out),
        "max_steps": 6,
        "per_device_train_batch_size": 8,
        "learning_rate": 3e-3,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 5,
    }
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**settings | arguments),
        train_dataset=Rows(tokenizer, train),
        eval_dataset=None if evaluate_on is None else Rows(tokenizer, evaluate_on),
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def losses(trainer: Trainer) -> list[tuple[int, float, float]]:
    """Step, loss and gradient norm of every logged step."""
    return [(e["step"], e["loss"], e["grad_norm"]) for e in trainer.state.log_history if "loss" in e]


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """All weights as they are now."""
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def environment() -> dict[str, str]:
    """For trainings in processes of their own."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}

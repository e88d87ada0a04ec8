"""The settings of reinforcement learning, by the names that TRL's GRPOConfig has where it has one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from whatstuck.errors import WhatStuckError, require
from whatstuck.settings import read_settings
from whatstuck.training.config import kept_activations

_FREE = {"model", "start", "out"}  # contents are compared instead


class RLSettings(BaseModel):
    """Settings of one training.

    The defaults are those of the baseline in arXiv 2510.00237 where it names them: groups of 8, no divergence from a
    reference, clipping at 0.2, rewards scaled by their group, tokens averaged over the global batch, one pass.

    Attributes:
        model: The base: folder, GGUF file, or short name.
        start: Checkpoint of a supervised warm-up to begin with, an adapter of `model` or a whole model; None: `model`.
        out: Folder for checkpoints.
        task: Name of a registered task, or a YAML file of the user's own.
        task_options: Its options.
        method: `grpo`, or `adaback`: the same with a revealed beginning of the right reply (`prefixes`).
        mapping: What the instructions say: always that of the `frozen` arm, or a `random` one per item.
        items: Different items to train on, of the training side of the split.
        thought: Replies begin with a thought (the task is made with `thought=True`), which `adaback` reveals first.
        reward: `graded` (right 1, valid 0.1, else 0), `success` (right 1, else 0) or `points` (+5 to -3).
        num_generations: Replies per item in a step.
        items_per_step: Items in a step.
        gradient_accumulation_steps: Batches that a step is computed in.
        max_new_tokens: Longest reply; by default that of the task.
        max_steps: Optimizer steps.
        learning_rate: By default 1e-6 for all weights (as in the paper) and 1e-5 for an adapter (ours).
        temperature: Of the draws.
        beta: Weight of the divergence from the model at the start.
        epsilon: Clipping of the probability ratio.
        loss_type: How tokens are averaged, as TRL names it; `dapo`: over all tokens of the global batch.
        scale_rewards: What rewards are divided by, as TRL names it.
        threshold: Of `adaback`: mean reward that counts as a success.
        unaided: Of `adaback`: how often nothing is revealed.
        use_peft: Train a LoRA adapter; false trains all weights.
        lora_r: Rank of a new adapter.
        lora_alpha: Its scale is `lora_alpha / lora_r`.
        lora_dropout: Dropout on its input.
        lora_target_modules: Names of the layers that get one.
        dense_checkpoints: Save steps 0, 1, 2, 4, 8, ... beside every `save_steps`.
        save_steps: Save every so many steps.
        chat_template: `auto` (where the tokenizer has one) or `never`.
        seed: Seed of items, their order, draws and adapter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    out: Path
    start: Path | None = None
    task: str
    task_options: dict[str, Any] = {}
    method: Literal["grpo", "adaback"] = "grpo"
    mapping: Literal["frozen", "random"] = "frozen"
    items: int = Field(default=256, ge=1)
    thought: bool = False
    reward: Literal["graded", "success", "points"] = "graded"
    num_generations: int = Field(default=8, ge=2)
    items_per_step: int = Field(default=4, ge=1)
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    max_new_tokens: int | None = Field(default=None, ge=1)
    max_steps: int = Field(default=100, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    temperature: float = Field(default=1.0, gt=0)
    beta: float = Field(default=0.0, ge=0)
    epsilon: float = Field(default=0.2, gt=0)
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    threshold: float = 0.5
    unaided: float = Field(default=0.1, ge=0, le=1)
    use_peft: bool = True
    lora_r: int = Field(default=8, ge=1)
    lora_alpha: int = Field(default=16, ge=1)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    lora_target_modules: str | list[str] = "all-linear"
    dense_checkpoints: bool = True
    save_steps: int = Field(default=500, ge=1)
    chat_template: Literal["auto", "never"] = "auto"
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> "RLSettings":
        if self.items < self.items_per_step:
            raise ValueError("items_per_step must not exceed items")
        if (self.items_per_step * self.num_generations) % self.gradient_accumulation_steps:
            raise ValueError("items_per_step * num_generations must be a multiple of gradient_accumulation_steps")
        return self

    @classmethod
    def read(cls, values: "RLSettings | Mapping[str, Any]") -> "RLSettings":
        """Check settings.

        Raises:
            WhatStuckError: Naming the first one that is wrong.
        """
        if isinstance(values, RLSettings):
            return values
        given = dict(values)
        if isinstance(given.get("model"), Path):
            given["model"] = str(given["model"])
        return read_settings(cls, "train_rl", given)

    def fixed(self) -> dict[str, Any]:
        """The settings that make a training what it is, as JSON values: a changed one is refused."""
        return self.model_dump(mode="json", exclude=_FREE)

    def grpo_config(self, *, longest: int) -> Any:
        """TRL's GRPOConfig for this training.

        Args:
            longest: Tokens of the longest reply.

        Raises:
            WhatStuckError: If TRL refuses the values, with its reason.
        """
        on_gpu = torch.cuda.is_available()
        batch = self.items_per_step * self.num_generations // self.gradient_accumulation_steps
        try:
            return require("trl", "trl").GRPOConfig(
                output_dir=str(self.out),
                seed=self.seed,
                data_seed=self.seed,
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=self.gradient_accumulation_steps,
                num_generations=self.num_generations,
                max_completion_length=longest,
                max_steps=self.max_steps,
                learning_rate=self.learning_rate or (1e-5 if self.use_peft else 1e-6),
                lr_scheduler_type="constant",
                temperature=self.temperature,
                beta=self.beta,
                epsilon=self.epsilon,
                loss_type=self.loss_type,
                scale_rewards=self.scale_rewards,
                num_iterations=1,
                use_vllm=False,
                **kept_activations(),
                bf16=on_gpu and torch.cuda.is_bf16_supported(),
                dataloader_pin_memory=on_gpu,  # torch warns where there is no accelerator
                save_strategy="no",  # the schedule's callback decides
                eval_strategy="no",
                logging_steps=1,
                report_to="none",
                disable_tqdm=True,  # the bar is ours
            )
        except (ValueError, TypeError, ImportError) as error:
            raise WhatStuckError(f"TRL refuses these settings: {' '.join(str(error).split())}") from error

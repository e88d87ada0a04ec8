"""The settings of `generalize`: flags, YAML keys and Python arguments are the same names."""

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from whatstuck.errors import WhatStuckError
from whatstuck.generalization.cells import Asking
from whatstuck.settings import read_settings

# What may change between two calls on one run: where things are, what more is asked, and what belongs to one arm.
_FREE = {"model", "checkpoints", "out", "task", "template_variants", "arm", "variants", "items", "device"}
OF_AN_ARM = ("thought", "max_new_tokens")
"""How an arm replies: arms of one run may differ in it, and a changed one is refused within an arm."""


class GeneralizeSettings(BaseModel):
    """Settings of one `generalize` run.

    Attributes:
        model: The untouched model: folder, GGUF file, or short name.
        checkpoints: Globs or folders of the checkpoints of one training; the untouched model is asked as well, or
            alone.
        task: A task of ours or of another package by name, or a YAML file.
        template_variants: Instead of a task: files of the same rows, one per wording, or their folder.
        training_wording: Which of those wordings is that of the training; without it, the one whose rows the training
            beside the checkpoints has, else the first by name.
        out: The run folder.
        arm: What to call the training; several of them in one run are compared.
        variants: Names of variants; all of the task by default.
        items: Items of each variant; more of them extend a run.
        thought: Whether replies hold a thought.
        max_new_tokens: Longest reply; that of the task by default.
        episodes: Whole episodes instead of single steps, where the task has turns.
        temperature: Of one more reply to each item, which is drawn; without it, only the most likely one.
        options: Of the task.
        chat_template: `auto` (where the tokenizer has one) or `never`, as in the training.
        seed: Of items, draws and intervals.
        device: `auto`, `cpu`, `cuda`, ...
        dtype: Of the model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    checkpoints: list[str] = []
    task: str | None = None
    template_variants: list[str] | None = None
    training_wording: str | None = None
    out: Path
    arm: str = "sft"
    variants: list[str] | None = Field(default=None, min_length=1)
    items: int = Field(default=300, ge=1)
    thought: bool = False
    max_new_tokens: int | None = Field(default=None, ge=1)
    episodes: bool = False
    temperature: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    options: dict[str, Any] = {}
    chat_template: Literal["auto", "never"] = "auto"
    seed: int = 0
    device: str = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"

    @field_validator("checkpoints", "template_variants", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """One value is a list of one."""
        return [str(value)] if isinstance(value, str | Path) else value

    @field_validator("variants", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """As on the command line: ID,Fake."""
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @field_validator("options", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        """As on the command line: cards=3, with values as in YAML."""
        if not isinstance(value, list):
            return value
        pairs = [str(pair).partition("=") for pair in value]
        if not all(name.strip() and sign for name, sign, _ in pairs):
            raise ValueError("give options as name=value, such as cards=3")
        return {name.strip(): _scalar(text) for name, _, text in pairs}

    @field_validator("arm")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        """It names a folder."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError("use letters, digits, '.', '_' and '-'")
        return value

    @model_validator(mode="after")
    def _one_task(self) -> "GeneralizeSettings":
        if (self.task is None) == (self.template_variants is None):
            raise ValueError("give either --task or --template-variants")
        if self.training_wording is not None and self.template_variants is None:
            raise ValueError("--training-wording belongs to --template-variants")
        if self.options and (self.task is None or self.is_file):
            raise ValueError("--options belong to a task by name; a file holds its own")
        return self

    @property
    def is_file(self) -> bool:
        """Whether the task is a file of the user's."""
        return self.task is not None and Path(self.task).suffix.lower() in {".yaml", ".yml"}

    @property
    def asking(self) -> Asking:
        """How every variant is asked."""
        return Asking(
            items=self.items,
            seed=self.seed,
            thought=self.thought,
            temperature=self.temperature,
            episodes=self.episodes,
            chat_template=self.chat_template,
        )

    @classmethod
    def read(cls, **values: Any) -> "GeneralizeSettings":
        """Settings from flags or arguments.

        Raises:
            WhatStuckError: Naming the first setting that is wrong.
        """
        return read_settings(cls, "generalize", values)

    def fixed(self) -> dict[str, Any]:
        """The settings that all arms of a run have in common: a changed one is refused."""
        return self.model_dump(mode="json", exclude=_FREE | set(OF_AN_ARM))

    def of_the_arm(self) -> dict[str, Any]:
        """The settings that belong to one arm: a changed one is refused there."""
        return self.model_dump(mode="json", include=set(OF_AN_ARM))


def _scalar(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise WhatStuckError(f"the option value {text!r} is not understood: {' '.join(str(error).split())}") from error

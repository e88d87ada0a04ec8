"""The settings of `track`: flags, YAML keys and Python arguments are the same names."""

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from whatstuck.interactions.extraction import DEFAULT_TILT
from whatstuck.settings import read_settings

# What may change between two calls on one run: where things are, how much of them, and how they are computed.
_FREE = {
    "model",
    "checkpoints",
    "data",
    "out",
    "rows",
    "baseline",
    "upper_bound",
    "eval_rows",
    "device",
    "memory_limit_gb",
}


class TrackSettings(BaseModel):
    """Settings of one `track` run.

    Attributes:
        model: The untouched model: folder, GGUF file, or short name.
        checkpoints: Globs or folders of checkpoints.
        data: Rows to probe; held-out ones for preference.
        out: The run folder.
        players: Words per prompt that are masked; 2^players forward passes per row and checkpoint.
        rows: Rows to probe.
        baseline: Other models, for gamma.
        upper_bound: A checkpoint of the same model, fine-tuned with another seed: what gamma could reach at best.
        eval_rows: Held-out rows scored for loss and exact match.
        split: `heldout`, `train`, or `auto`: training rows where the file is the one that was trained on.
        columns: Names of the columns of a table without a header.
        labels: File with one label name per line, for columns of label ids.
        instruction: Text put before every prompt; its words are never players.
        chat_template: `auto` (where the tokenizer has one) or `never`.
        whole_target: Score the whole completion instead of its first token.
        mask_token: Token that stands for a masked word; by default the unknown, else the padding token.
        mode: Extraction modes, `robust` or `paper`; of several, the first one is reported.
        misfit: Misfit of `robust` as a share of the scale mean|v(N) - v(empty)|; several give several settings.
        order_tilt: Of `robust`: how much dearer an interaction gets per word, and an OR than an AND.
        noise_bound: kappa of `paper` as a share of the scale; several give several settings.
        noise_scale: Whose scale: that of each `step`, or that of the `base`.
        certainty: Also find the range of every interaction over all explanations that are nearly as good.
        seed: Seed of row, word and noise choices, and of bootstrap and nulls.
        device: `auto`, `cpu`, `cuda`, ...
        dtype: Scoring dtype; anything but float32 drowns high orders in noise and is flagged.
        memory_limit_gb: Memory of one block of masked prompts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    checkpoints: list[str] = Field(min_length=1)
    data: Path
    out: Path
    players: int = Field(default=8, ge=2, le=16)
    rows: int = Field(default=50, ge=1)
    baseline: list[str] = []
    upper_bound: Path | None = None
    eval_rows: int = Field(default=200, ge=0)
    split: Literal["auto", "heldout", "train"] = "auto"
    columns: list[str] | None = None
    labels: Path | None = None
    instruction: str | None = None
    chat_template: Literal["auto", "never"] = "auto"
    whole_target: bool = False
    mask_token: str | None = None
    mode: list[Literal["robust", "paper"]] = Field(default=["robust"], min_length=1)
    misfit: list[float] = [0.05]
    order_tilt: tuple[float, float] = DEFAULT_TILT
    noise_bound: list[float] = [0.05]
    noise_scale: Literal["step", "base"] = "step"
    certainty: bool = True
    seed: int = 0
    device: str = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    memory_limit_gb: float = Field(default=2.0, gt=0)

    @field_validator("columns", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """As on the command line: text,labels,id."""
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @field_validator("checkpoints", "baseline", "mode", "misfit", "noise_bound", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """One value is a list of one."""
        return [value] if isinstance(value, str | int | float | Path) else value

    @field_validator("noise_bound", "misfit")
    @classmethod
    def _positive(cls, value: list[float]) -> list[float]:
        if not value or not all(0 <= share < math.inf for share in value):
            raise ValueError("give one or more shares, none below 0")
        return value

    @classmethod
    def read(cls, **values: Any) -> "TrackSettings":
        """Settings from flags or arguments.

        Raises:
            WhatStuckError: Naming the first setting that is wrong.
        """
        return read_settings(cls, "track", values)

    def fixed(self) -> dict[str, Any]:
        """The settings that make a run what it is: a changed one is refused."""
        return self.model_dump(mode="json", exclude=_FREE)

"""The settings of `rows`: flags, YAML keys and Python arguments are the same names."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from whatstuck.rows.thresholds import Thresholds
from whatstuck.settings import read_settings

# What may change between two calls on one run: where things are, and how they are computed.
_FREE = {"model", "checkpoints", "data", "out", "training", "device", "most"}


class RowsSettings(BaseModel):
    """Settings of one `rows` run.

    Attributes:
        model: The untouched model: folder, GGUF file, or short name.
        checkpoints: Globs or folders of checkpoints; the last one is the finished model.
        data: The rows that were trained on.
        out: The run folder.
        training: How they were fed: a folder of `whatstuck train`, or a YAML with the settings of TRL's SFTConfig; by
            default what lies beside the checkpoints.
        columns: Names of the columns of a table without a header.
        labels: File with one label name per line, for columns of label ids.
        instruction: Text put before every prompt.
        chat_template: `auto` (where the tokenizer has one) or `never`.
        checker: When an answer is right: `auto`, `exact`, `number`, `contains`, `labels`, or `module:function`.
        judge: Whether two different answers to one question contradict each other: `module:function`; by default only
            short answers are compared.
        embedding: Name or folder of a sentence-transformers model that says which prompts may ask the same; by default
            character n-grams do.
        probe_base: Ask the untouched model, too; without it, causes I and II are not measured.
        most: Rows that did not stick of which the untouched model is asked at most, chosen by the seed.
        thresholds: Every number that decides about a row.
        seed: Seed of every draw.
        device: `auto`, `cpu`, `cuda`, ...
        dtype: Of the model; anything but float32 is flagged.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    checkpoints: list[str] = Field(min_length=1)
    data: Path
    out: Path
    training: Path | None = None
    columns: list[str] | None = None
    labels: Path | None = None
    instruction: str | None = None
    chat_template: Literal["auto", "never"] = "auto"
    checker: str = "auto"
    judge: str | None = None
    embedding: str | None = None
    probe_base: bool = True
    most: int = Field(default=1000, ge=1)
    thresholds: Thresholds = Thresholds()
    seed: int = 0
    device: str = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"

    @field_validator("columns", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """As on the command line: text,labels,id."""
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @field_validator("data", "labels", "training")
    @classmethod
    def _whole_path(cls, value: Path | None) -> Path | None:
        """Later verbs may be called from another folder."""
        return None if value is None else value.resolve()

    @field_validator("checkpoints", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """One value is a list of one."""
        return [str(value)] if isinstance(value, str | Path) else value

    @classmethod
    def read(cls, **values: Any) -> "RowsSettings":
        """Settings from flags or arguments.

        Raises:
            WhatStuckError: Naming the first setting that is wrong.
        """
        return read_settings(cls, "rows", values)

    def fixed(self) -> dict[str, Any]:
        """The settings that make a run what it is: a changed one is refused."""
        return self.model_dump(mode="json", exclude=_FREE)

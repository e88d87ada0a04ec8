"""The settings of `intervene`: flags, YAML keys and Python arguments are the same names."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from whatstuck.rows.causes.names import Cause
from whatstuck.rows.interventions.phases import Options
from whatstuck.settings import read_settings

# What may change between two calls for one cause: where things are, how many trainings there are, and what is kept.
_FREE = {"run", "training", "supporting", "general", "kept", "paraphrases", "seeds", "keep_models", "device", "quick"}


class InterveneSettings(BaseModel):
    """Settings of one `intervene`.

    Attributes:
        run: The run folder that `rows` wrote.
        cause: Whose rows are treated.
        seeds: Trainings per arm; three are few, one says nothing about chance.
        others: Causes whose treatments are tried on the same rows; by default one that needs nothing from the user.
        training: YAML with the settings of the first training, where its folder does not tell them.
        order: How the rows were ordered in it; `auto`: as its settings say.
        conflicts: `remove` the opposing votes, or `separate` them.
        kept: File of row ids, one a line, whose answers win in their conflicts; by default the most frequent one wins.
        supporting: Texts that hold what the rows lack, or evidence for the right answer: JSONL with `text`, and
            perhaps `row_ids`, the rows that it supports; or a text file with an empty line between two texts.
        general: Texts about anything, in the same form.
        supporting_share: Share of supporting texts in continued pretraining (arXiv 2604.10079, Eq. 5).
        supporting_passes: How often each supporting text is seen.
        more_epochs: Epochs that a continuation may go on for.
        watch: End a continuation when the loss of the held-out rows rises (Eq. 7); else it takes all its epochs.
        constant_rate: Rate of a continuation, as a share of the peak rate.
        check_every: Steps between two checks of what is forgotten; by default ten checks.
        paraphrases: JSONL of `row_id` and `prompt`: other wordings of a row; by default its frame is worded anew.
        unstable: Follow rows of the cause that are right only now and then, too; recovered is what is learned.
        most: Unlearned rows that are followed at most, chosen by the seed.
        learned: Learned rows that are followed, for what the arms destroy.
        quick: Only the probes that take minutes, on the finished model.
        keep_models: Keep the weights of the arms.
        seed: Seed of every choice.
        device: `auto`, `cpu`, `cuda`, ...
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Path
    cause: Cause
    seeds: int = Field(default=3, ge=1)
    others: list[Cause] | None = None
    training: Path | None = None
    order: Literal["auto", "shuffled", "given"] = "auto"
    conflicts: Literal["remove", "separate"] = "remove"
    kept: Path | None = None
    supporting: Path | None = None
    general: Path | None = None
    supporting_share: float = Field(default=0.2, gt=0, lt=1)
    supporting_passes: int = Field(default=2, ge=1)
    more_epochs: int = Field(default=3, ge=1)
    watch: bool = True
    constant_rate: float = Field(default=0.1, gt=0)
    check_every: int | None = Field(default=None, ge=1)
    paraphrases: Path | None = None
    unstable: bool = False
    most: int = Field(default=200, ge=1)
    learned: int = Field(default=100, ge=0)
    quick: bool = False
    keep_models: bool = False
    seed: int = Field(default=0, ge=0)
    device: str = "auto"

    @field_validator("others", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """One value is a list of one."""
        return [value] if isinstance(value, str) else value

    @classmethod
    def read(cls, **values: Any) -> "InterveneSettings":
        """Settings from flags or arguments.

        Raises:
            WhatStuckError: Naming the first setting that is wrong.
        """
        return read_settings(cls, "intervene", values)

    @property
    def options(self) -> Options:
        """How treatments are made."""
        return Options(
            conflicts=self.conflicts,
            supporting_share=self.supporting_share,
            supporting_passes=self.supporting_passes,
            more_epochs=self.more_epochs,
        )

    def fixed(self) -> dict[str, Any]:
        """The settings that make the arms of a cause what they are: a changed one is refused."""
        return self.model_dump(mode="json", exclude=_FREE)

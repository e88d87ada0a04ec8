"""The settings of `train`: our own few, and every field of TRL's SFTConfig by its own name.

Nobody should learn new names for what TRL names already, so unknown keys are looked up in SFTConfig. What we must
decide ourselves (which checkpoints are kept, what text is learned) is refused with its reason, not ignored.
"""

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from whatstuck.errors import WhatStuckError, require
from whatstuck.training.objectives import Objective, find_objective

_ALIASES = {
    "model_name_or_path": "model",
    "dataset_name": "data",
    "output_dir": "out",
}

# Fields of SFTConfig that are ours to set: the values that agree with what is done, and why others are refused.
_SCHEDULE = "checkpoints and evaluations follow save_steps and dense_checkpoints"
_KEEP = "every checkpoint is kept, so that track can choose"
_ROWS = "rows are trained exactly as track probes them, one by one, and only their completions are learned"
_LOADING = "models are loaded in float32 from safetensors, without remote code"
_REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "save_strategy": (("steps",), _SCHEDULE),
    "eval_strategy": (("steps",), _SCHEDULE),
    "eval_steps": ((None,), _SCHEDULE),
    "eval_on_start": ((True,), _SCHEDULE),
    "save_total_limit": ((None,), _KEEP),
    "load_best_model_at_end": ((False,), _KEEP),
    "save_only_model": (
        (False,),
        "only the newest checkpoint holds the optimizer's state; the others are light anyway",
    ),
    "resume_from_checkpoint": ((None, True), "the same command goes on with an interrupted run by itself"),
    "packing": ((False,), _ROWS),
    "eval_packing": ((None, False), _ROWS),
    "completion_only_loss": ((None, True), _ROWS),
    "assistant_only_loss": ((False,), _ROWS),
    "dataset_text_field": (("text",), _ROWS),
    "dataset_kwargs": ((None,), _ROWS),
    "chat_template_path": ((None,), _ROWS),
    "eos_token": ((None,), _ROWS),
    "pad_token": ((None,), _ROWS),
    "model_init_kwargs": ((None,), _LOADING),
    "trust_remote_code": ((False,), _LOADING),
    "push_to_hub": ((False,), "nothing is uploaded while training"),
}

# What may change between two calls on one output folder. The contents of the files are compared instead.
_FREE = {"model", "data", "eval_data", "order", "out", "run", "probe"}


class TrainConfig(BaseModel):
    """Settings of one fine-tuning; any other field of TRL's SFTConfig may be given too.

    Attributes:
        model: Model to fine-tune: folder, GGUF file, or short name (also `model_name_or_path`).
        data: Rows to train on (also `dataset_name`). JSONL rows of `row_id`, `input_ids` and `labels` are fed as they
            are, and so are those of `eval_data`; none of them is set aside.
        out: Folder for checkpoints and held-out rows (also `output_dir`).
        heldout: Rows to set aside: a share below 1, or a number; 0 for none. By default the rows of the file whose
            `split` says so, else a tenth, at most 500. Rows with the same prompt are never separated.
        eval_data: File of held-out rows, instead of setting some aside.
        eval_rows: Held-out rows that `eval_loss` is computed on at every checkpoint.
        columns: Names of the columns of a table without a header.
        labels: File with one label name per line, for columns of label ids.
        instruction: Text put before every prompt.
        limit: Read only the first rows.
        chat_template: `auto` (where the tokenizer has one) or `never`.
        max_length: Tokens of prompt and completion; longer rows are left out and counted, never cut.
        dense_checkpoints: Save steps 0, 1, 2, 4, 8, ... beside every `save_steps`.
        save_steps: Save every so many steps.
        use_peft: Train a LoRA adapter; false trains all weights.
        lora_r: Rank of the adapter.
        lora_alpha: Its scale is `lora_alpha / lora_r`.
        lora_dropout: Dropout on its input.
        lora_target_modules: Names of the layers that get one.
        learning_rate: Peak learning rate; by default 1e-4 for LoRA and 2e-5 for all weights.
        objective: What is minimized: `sft` (cross-entropy), `dft`, `sed`, `eaft`, `asft`, `kl` or `l2`; see
            docs/objectives.md. `eval_loss` is cross-entropy whatever it is, so that it compares checkpoints.
        objective_options: Its options, such as `weight`; every objective takes `per_sequence`.
        order: JSON list of row ids: every row that is trained, in that order, once through; a row that stands there
            twice is trained twice. It takes the place of shuffling and of the number of epochs or steps.
        resample: `forgotten`: rows that were right once and are wrong are drawn twice or four times as often until the
            next check (after arXiv 2604.10079, Alg. 4); `random`: as many others are, chosen by chance, as a control.
            Needs `order`.
        resample_every: Steps between two checks.
        resample_spared: Rows that `random` never chooses.
        seed: Seed of adapter, row order and dropout; `data_seed` changes the row order alone.
        run: Run folder: probe the model while it is trained, on the held-out rows (see `WhatStuckCallback`).
        probe: Arguments of `WhatStuckCallback`, such as `players`, `rows`, `probe_budget`, `stop`, `baseline`. Where
            checkpoints are saved is where it is probed.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    model: str
    data: Path
    out: Path
    heldout: int | float | None = Field(default=None, ge=0)
    eval_data: Path | None = None
    eval_rows: int = Field(default=200, ge=1)
    columns: list[str] | None = None
    labels: Path | None = None
    instruction: str | None = None
    limit: int | None = Field(default=None, ge=1)
    chat_template: Literal["auto", "never"] = "auto"
    max_length: int | None = Field(default=1024, ge=2)
    dense_checkpoints: bool = True
    save_steps: int = Field(default=500, ge=1)
    use_peft: bool = True
    lora_r: int = Field(default=8, ge=1)
    lora_alpha: int = Field(default=16, ge=1)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    lora_target_modules: str | list[str] = "all-linear"
    learning_rate: float | None = Field(default=None, gt=0)
    objective: str = "sft"
    objective_options: dict[str, Any] = {}
    order: Path | None = None
    resample: Literal["forgotten", "random"] | None = None
    resample_every: int | None = Field(default=None, ge=1)
    resample_spared: list[str] | None = None
    seed: int = Field(default=0, ge=0)
    run: Path | None = None
    probe: dict[str, Any] = {}

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        if isinstance(self.heldout, float) and self.heldout >= 1 and self.heldout != int(self.heldout):
            raise ValueError("heldout is a share below 1 or a whole number of rows")
        if self.heldout is not None and self.eval_data is not None:
            raise ValueError("give heldout or eval_data, not both")
        if self.probe and self.run is None:
            raise ValueError("probe needs a run folder: give run, too")
        if self.order is not None and {"num_train_epochs", "max_steps"} & (self.model_extra or {}).keys():
            raise ValueError("order says how long the training is: leave num_train_epochs and max_steps out")
        if self.resample is not None and (self.order is None or self.resample_every is None):
            raise ValueError("resample needs order and resample_every: give them, too")
        if self.resample is not None and (self.model_extra or {}).get("dataloader_num_workers"):
            raise ValueError("resample draws row by row: leave dataloader_num_workers out")
        if self.run is not None and self.heldout == 0:
            raise ValueError("a training without held-out rows cannot be probed: leave heldout=0 or run out")
        self._check_objective()
        return self

    def _check_objective(self) -> None:
        find_objective(self.objective, self.objective_options)
        extra = self.model_extra or {}
        if self.objective != "sft" and "loss_type" in extra:
            raise ValueError("loss_type and objective say the same thing: leave loss_type out")
        if self.own_objective() is not None:
            if extra.get("loss_type", "nll") == "dft":
                raise ValueError("loss_type=dft has no options: give objective=dft instead")
            if extra.get("label_smoothing_factor"):
                raise ValueError(f"label_smoothing_factor is part of no objective but sft ({self.objective} is asked)")
            if extra.get("padding_free"):  # rows run into one another: where each begins, only TRL's own loss is told
                raise ValueError(
                    f"padding_free fits TRL's own losses alone, which {self.objective} with these options is not: "
                    "leave padding_free out"
                )

    @classmethod
    def read(cls, values: "TrainConfig | Mapping[str, Any]") -> "TrainConfig":
        """Check settings from flags, YAML or Python.

        Raises:
            MissingExtraError: If TRL is not installed.
            WhatStuckError: Naming the first setting that is unknown, refused or wrong, with what to do.
        """
        if isinstance(values, TrainConfig):
            return values
        given: dict[str, Any] = {}
        for key, value in values.items():
            name = _ALIASES.get(key, key)
            if name in given:
                raise WhatStuckError(f"{name} is given twice, once as {key}: keep one of them")
            given[name] = str(value) if name == "model" and isinstance(value, Path) else value
        own = cls.model_fields
        try:
            return cls(**{name: value if name in own else _trl_value(name, value) for name, value in given.items()})
        except ValidationError as error:
            first = error.errors()[0]
            if not first["loc"]:
                raise WhatStuckError(str(first["msg"]).removeprefix("Value error, ")) from error
            raise WhatStuckError(f"{first['loc'][0]}: {first['msg']} (got {first.get('input')!r})") from error

    def fixed(self) -> dict[str, Any]:
        """The settings that make a training what it is, as JSON values: a changed one is refused."""
        found = self.model_dump(mode="json", exclude=_FREE)
        found["objective_options"] = find_objective(self.objective, self.objective_options).model_dump()
        if self.own_objective() is None and self.objective == "sft":  # as in records that know no objectives
            del found["objective"], found["objective_options"]
        return found

    def own_objective(self) -> Objective | None:
        """The objective, where TRL has no loss of its own for it."""
        objective = find_objective(self.objective, self.objective_options)
        if objective.per_sequence:
            return objective
        if objective.name == "sft" or (objective.name == "dft" and "loss_type" in trl_fields()):
            return None
        return objective

    def sft_config(self, out: Path) -> Any:
        """TRL's SFTConfig for this training.

        Args:
            out: Its output folder.

        Raises:
            WhatStuckError: If TRL refuses the values, with its reason.
        """
        trl = require("trl", "trl")
        extra = dict(self.model_extra or {})
        use_cpu = bool(extra.get("use_cpu")) or not torch.cuda.is_available()
        defaults: dict[str, Any] = {
            "per_device_train_batch_size": 8,
            "lr_scheduler_type": "cosine",
            "data_seed": self.seed,
            "report_to": "none",
            "use_cpu": use_cpu and not torch.backends.mps.is_available(),  # bf16 is refused there unless this is said
            "dataloader_pin_memory": not use_cpu,  # torch warns where there is no accelerator
            # TRL would turn on bf16 on any machine, and trade time for memory by recomputing activations.
            "bf16": not use_cpu and not extra.get("fp16") and torch.cuda.is_bf16_supported(),
        }
        if not {"activation_checkpointing", "gradient_checkpointing"} & extra.keys():
            defaults |= kept_activations()
        ours = {
            "output_dir": str(out),
            "seed": self.seed,
            "learning_rate": self.learning_rate or (1e-4 if self.use_peft else 2e-5),
            "completion_only_loss": True,
            "max_length": None,  # longer rows are left out before TRL could cut their answers off
            "dataset_kwargs": {"skip_prepare_dataset": True},  # the rows are tokens already
            "save_steps": self.save_steps,
            "save_strategy": "no",  # the schedule's callback decides
            "eval_strategy": "no",
            "disable_tqdm": True,  # the bar is ours
        }
        if self.objective == "dft" and self.own_objective() is None:
            ours["loss_type"] = "dft"
        if self.order is not None:
            ours |= {"num_train_epochs": 1, "max_steps": -1}
        accepted = {name: value for name, value in extra.items() if name not in _REFUSED}
        try:
            return trl.SFTConfig(**defaults | accepted | ours)
        except (ValueError, TypeError, ImportError) as error:
            raise WhatStuckError(f"TRL refuses these settings: {' '.join(str(error).split())}") from error


def kept_activations() -> dict[str, bool]:
    """The argument of SFTConfig for activations that are not computed twice, by its name in this version."""
    named = "activation_checkpointing" in trl_fields()  # the newer name; the older one then warns
    return {"activation_checkpointing" if named else "gradient_checkpointing": False}


def takes(name: str, value: Any) -> bool:
    """Whether `train` takes a setting of a TRL script as it is."""
    if name in _REFUSED and value not in _REFUSED[name][0]:
        return False
    return name in TrainConfig.model_fields or name in trl_fields()


def trl_fields() -> dict[str, Any]:
    """Fields of SFTConfig with their types."""
    config = require("trl", "trl").SFTConfig
    hints = typing.get_type_hints(config)
    return {field.name: hints[field.name] for field in dataclasses.fields(config) if field.init}


def _trl_value(name: str, value: Any) -> Any:
    """The value of a field of SFTConfig, with the right type: YAML reads `1e-2` as text."""
    fields = trl_fields()
    if name not in fields:
        known = sorted(fields.keys() | TrainConfig.model_fields.keys())
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "it is neither a setting of train nor a field of SFTConfig"
        raise WhatStuckError(f"unknown setting {name!r}: {hint}")
    if name in _REFUSED and value not in _REFUSED[name][0]:
        raise WhatStuckError(f"{name}={value!r} cannot be set: {_REFUSED[name][1]}; leave it out")
    try:
        return TypeAdapter(fields[name]).validate_python(value)
    except ValidationError as error:
        raise WhatStuckError(f"{name}: {error.errors()[0]['msg']} (got {value!r})") from error

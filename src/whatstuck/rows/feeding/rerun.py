"""What TRL makes of the user's rows: its own preparation, run again on a model of no size.

Which tokens are kept, cut or masked depends on a dozen settings and on the version of TRL. So nothing is imitated: a
trainer is built with the user's settings, and its dataset and collator are looked at.
"""

import contextlib
import copy
import io
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from whatstuck.dynamics.teacher_forcing import TokenRow
from whatstuck.errors import WhatStuckError, require
from whatstuck.training.config import kept_activations

OF_THE_DATA = (
    "max_length",
    "truncation_mode",
    "completion_only_loss",
    "assistant_only_loss",
    "dataset_text_field",
    "dataset_kwargs",
    "eos_token",
    "pad_token",
    "chat_template_path",
)
"""Fields of SFTConfig that decide what is fed; packing is left out, since rows are looked at one by one."""
_SPLITTING = {"bfd_split", "wrapped"}  # packing strategies that feed the rest of a long row in the next sequence

_OLD_NAMES = {"max_seq_length": "max_length"}
_COLUMNS = ("messages", "prompt", "completion", "text", "conversations", "tools", "chat_template_kwargs")
_IGNORED = -100


def columns_of(config: Mapping[str, Any]) -> set[str]:
    """Columns of a data set that TRL reads."""
    return {*_COLUMNS, str(config.get("dataset_text_field", "text"))}


def fed_by_trl(
    config: Mapping[str, Any], records: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase
) -> dict[str, TokenRow]:
    """What TRL's SFTTrainer feeds of each row.

    Args:
        config: Fields of SFTConfig, and whatever else a YAML for `trl sft` holds.
        records: The rows as the data file has them, with `row_id`.
        tokenizer: Tokenizer of the model; it is not changed.

    Returns:
        By row id, all tokens and the supervised positions; rows that TRL leaves out are missing.

    Raises:
        MissingExtraError: If TRL or datasets is not installed.
        WhatStuckError: If TRL refuses settings or rows, with its reason.
    """
    trl, datasets = require("trl", "trl"), require("datasets", "trl")
    given = {_OLD_NAMES.get(name, name): value for name, value in config.items()}
    settings = {name: given[name] for name in OF_THE_DATA if name in given}
    if given.get("packing") and given.get("packing_strategy") in _SPLITTING:
        settings["max_length"] = None
    columns = columns_of(config)
    rows = [{name: value for name, value in record.items() if name in columns} for record in records]
    if not all(rows):
        raise WhatStuckError(
            "TRL reads none of the columns of these rows: give them as your script hands them to TRL (messages, prompt "
            "and completion, or text)"
        )
    named = [{**row, "row_id": record["row_id"]} for row, record in zip(rows, records, strict=True)]
    tokenizer = copy.deepcopy(tokenizer)
    nothing = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=2,
        intermediate_size=2,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        try:
            settings |= {"output_dir": folder, "report_to": "none", "use_cpu": True, "bf16": False}
            arguments = trl.SFTConfig(**settings, **kept_activations())
            trainer = trl.SFTTrainer(
                model=LlamaForCausalLM(nothing),
                args=arguments,
                train_dataset=datasets.Dataset.from_list(named),
                processing_class=tokenizer,
            )
            return {record["row_id"]: _fed(trainer, record) for record in trainer.train_dataset}
        except (ValueError, TypeError, KeyError, RuntimeError, ImportError, OSError, TemplateError) as error:
            reason = " ".join(str(error).split())[:300]
            raise WhatStuckError(f"TRL refuses these rows or settings: {reason}") from error


def _fed(trainer: Any, record: Mapping[str, Any]) -> TokenRow:
    """One row as it leaves the collator: what is supervised may be decided there."""
    batch = trainer.data_collator([{name: value for name, value in record.items() if name != "row_id"}])
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    mask = batch["attention_mask"][0].tolist() if "attention_mask" in batch else [1] * len(ids)
    kept = [at for at, keep in enumerate(mask) if keep]
    predicted = tuple(new for new, at in enumerate(kept) if new and labels[at] != _IGNORED)
    return TokenRow(tuple(ids[at] for at in kept), predicted)

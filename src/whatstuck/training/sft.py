"""Fine-tune a model so that its training can be studied: dense checkpoints, held-out rows, and a record.

One folder holds one training. The same command continues it after an interruption, does nothing when it is done,
and refuses when settings, rows or model are not the ones it was begun with.
"""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import torch

from whatstuck.datasets import write_rows
from whatstuck.dynamics.summarizing import finish
from whatstuck.errors import WhatStuckError
from whatstuck.files import file_hash
from whatstuck.live import WhatStuckCallback
from whatstuck.live.schedule import dense_steps
from whatstuck.models import fingerprint, load_model, load_tokenizer, peak_memory, positions_of, resolve_model
from whatstuck.runs import Json, RunFolder, changed_values, versions, write_json
from whatstuck.training import _saving, _trainer
from whatstuck.training._data import Prepared, prepare
from whatstuck.training._record import read_record, refuse_changed
from whatstuck.training.config import TrainConfig
from whatstuck.training.schedule import total_steps

logger = logging.getLogger(__name__)

RECORD = "whatstuck_train.json"


def train_model(config: TrainConfig | Mapping[str, Any]) -> Path:
    """Fine-tune a model with TRL's SFTTrainer, keeping checkpoints that are dense from the first step.

    Writes into the output folder: `checkpoint-N` (an adapter or a model, its tokenizer, and `trainer_state.json` with
    `eval_loss` at every checkpoint from step 0 on), `heldout.jsonl` (unless nothing is held out), and
    `whatstuck_train.json` (settings, versions, hashes, counts). LoRA writes a `checkpoint-0`, whose adapter changes
    nothing; a full fine-tuning writes none, since it would be a copy of the model.

    Only the newest checkpoint holds the optimizer's state. An interrupted training goes on from there, and ends in
    the weights that it would have had without the interruption.

    Args:
        config: The settings: a `TrainConfig`, or its fields and any of SFTConfig's in a mapping.

    Returns:
        The output folder.

    Raises:
        MissingExtraError: If TRL, PEFT or datasets is not installed.
        WhatStuckError: If a setting, the model or the rows are bad, or the folder holds another training.
    """
    settings = TrainConfig.read(config)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise WhatStuckError(
            "train runs in one process: start it without a launcher, or give track the checkpoints of your own trainer"
        )
    base = resolve_model(settings.model).resolve()
    identity = _identity(settings, base)
    with RunFolder(settings.out).writing():
        record = read_record(settings.out / RECORD, whose="an unknown training")
        _refuse_changes(settings.out, record, identity)
        if record.get("finished"):
            _finish_probing(settings)
            logger.info("%s is finished; nothing to do", settings.out)
            return settings.out
        _run(settings, base, {**identity, "started": record.get("started"), "seconds": record.get("seconds", 0.0)})
    return settings.out


def plan_training(config: TrainConfig | Mapping[str, Any]) -> Json:
    """What a training would cost; runs two forward and backward passes to measure the speed.

    Args:
        config: The settings, as for `train_model`.

    Returns:
        Numbers of rows, steps and tokens, the steps of the checkpoints, and the expected seconds and gigabytes.

    Raises:
        MissingExtraError: If TRL, PEFT or datasets is not installed.
        WhatStuckError: If a setting, the model or the rows are bad.
    """
    settings = TrainConfig.read(config)
    base = resolve_model(settings.model).resolve()
    tokenizer = load_tokenizer(base)
    rows = prepare(settings, tokenizer, positions=positions_of(base))
    with tempfile.TemporaryDirectory() as folder:
        arguments = settings.sft_config(Path(folder))
        trainer = _trainer.make_trainer(settings, arguments, load_model(base), tokenizer, rows)
        learn, evaluate, memory = _measure(trainer, rows, arguments.train_batch_size)
    steps = total_steps(arguments, rows.draws)
    checkpoints = dense_steps(steps, settings.save_steps, dense=settings.dense_checkpoints)
    trained = sum(weight.nbytes for weight in trainer.model.parameters() if weight.requires_grad)
    batches = steps * arguments.gradient_accumulation_steps
    evaluations = len(checkpoints) + (not settings.dense_checkpoints)
    tokens = sum(len(row["input_ids"]) for row in rows.train) / len(rows.train)
    return {
        "train_rows": len(rows.train),
        "heldout_rows": len(rows.heldout),
        "left_out": dict(rows.left_out),
        "steps": steps,
        "checkpoints": checkpoints,
        "training_tokens": round(batches * arguments.train_batch_size * tokens),
        "seconds": round(batches * learn + evaluations * len(rows.evaluation) * evaluate, 1),
        "memory_gb": round((memory + 2 * trained) / 2**30, 1),  # Adam keeps two numbers per weight
        "disk_gb": round((len(checkpoints) + 2) * trained / 2**30, 3),
    }


def _run(settings: TrainConfig, base: Path, record: Json) -> None:
    """Train from the last checkpoint, or from the start."""
    out = settings.out
    resume = _saving.resume_point(out)
    start = time.monotonic()
    tokenizer = load_tokenizer(base)
    rows = prepare(settings, tokenizer, positions=positions_of(base))
    for reason, count in rows.left_out.items():
        logger.warning("%d rows left out: %s", count, reason)
    arguments = settings.sft_config(out)
    if rows.heldout:
        write_rows(rows.heldout, out / "heldout.jsonl")
    record |= _account(settings, arguments, rows)
    record["started"] = record["started"] or datetime.now(UTC).isoformat(timespec="seconds")
    write_json(out / RECORD, record)
    probe = None if settings.run is None else _probe(settings, base, record["checkpoints"])
    trainer = _trainer.make_trainer(settings, arguments, load_model(base), tokenizer, rows, probe)
    if trainer.learner is not None:  # with what was found, such as a threshold
        record["objective"] = {"name": settings.objective, **trainer.learner.objective.model_dump()}
        write_json(out / RECORD, record)
    logger.info(
        "%s: %d rows, %d held out, %d steps",
        f"training goes on from {resume.name}" if resume else "training",
        len(rows.train),
        len(rows.heldout),
        record["steps"],
    )
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    finally:
        trainer.progress.close()
        shutil.rmtree(out / _saving.STAGING, ignore_errors=True)
        record["seconds"] = round(record["seconds"] + time.monotonic() - start, 1)
        write_json(out / RECORD, record)
    write_json(out / RECORD, record | {"finished": True})
    _saving.forget_resume_files(out)


def _probe(settings: TrainConfig, base: Path, steps: Sequence[int]) -> WhatStuckCallback:
    """The callback that probes where checkpoints are saved; rows, words and seed are those of the training."""
    ours: dict[str, Any] = {
        "steps": steps,
        "model": base,
        "split": "heldout",
        "seed": settings.seed,
        "chat_template": settings.chat_template,
    }
    try:
        return WhatStuckCallback(settings.out / "heldout.jsonl", cast("Path", settings.run), **ours | settings.probe)
    except TypeError as error:  # a name that the callback sets itself
        raise WhatStuckError(f"probe: {error}") from error


def _finish_probing(settings: TrainConfig) -> None:
    """Write what a killed process could not write any more."""
    if settings.run is None:
        return
    if not (settings.run / "run.json").exists():
        raise WhatStuckError(f"{settings.out} is finished, so it cannot be probed any more: use `whatstuck track`")
    finish(RunFolder(settings.run))


# --- one folder, one training


def _identity(settings: TrainConfig, base: Path) -> Json:
    """What must not change between two calls on one folder, and where it came from."""
    return {
        "format_version": 1,
        "finished": False,
        "settings": settings.fixed(),
        "model": {"path": str(base), "fingerprint": fingerprint(base)},
        "data": str(settings.data),
        "data_sha256": file_hash(settings.data),
        "eval_data_sha256": None if settings.eval_data is None else file_hash(settings.eval_data),
        "order_sha256": None if settings.order is None else file_hash(settings.order),
    }


def _account(settings: TrainConfig, arguments: Any, rows: Prepared) -> Json:
    """What the training is made of, for the record."""
    steps = total_steps(arguments, rows.draws)
    return {
        "rows": {"train": len(rows.train), "heldout": len(rows.heldout), "eval_loss": len(rows.evaluation)},
        "left_out": dict(rows.left_out),
        "steps": steps,
        "checkpoints": dense_steps(steps, settings.save_steps, dense=settings.dense_checkpoints),
        "seed": settings.seed,
        "data_seed": arguments.data_seed,
        "dtype": "float32",
        "autocast": "bfloat16" if arguments.bf16 else "float16" if arguments.fp16 else None,
        "device": str(arguments.device),
        "versions": versions(),
    }


def _refuse_changes(out: Path, record: Json, identity: Json) -> None:
    """Refuse to go on with another training than the one that was begun.

    Raises:
        WhatStuckError: Naming what differs.
    """
    if not record:
        return
    changed = changed_values(record["settings"], identity["settings"])
    if record["model"]["fingerprint"] != identity["model"]["fingerprint"]:
        changed.append(f"model: other weights than those of {record['model']['path']}")
    changed += [
        f"{name.removesuffix('_sha256')}: other rows"
        for name in ("data_sha256", "eval_data_sha256", "order_sha256")
        if record.get(name) != identity[name]  # older records know no order
    ]
    refuse_changed(out, changed)


# --- cost


def _measure(trainer: Any, rows: Prepared, size: int) -> tuple[float, float, float]:
    """Seconds to learn one batch, seconds to evaluate one row, and bytes of memory taken so far at most."""
    every = max(len(rows.train) // size, 1)
    sample = rows.train[::every][:size]
    model = trainer.model
    seconds = []
    for _ in range(2):  # the first pass also allocates
        start = time.monotonic()
        batch = {name: value.to(model.device) for name, value in trainer.data_collator(sample).items()}
        model.train()
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(model, dict(batch))
        loss.backward()
        seconds.append(time.monotonic() - start)
    start = time.monotonic()
    model.eval()
    with torch.no_grad(), trainer.compute_loss_context_manager():
        trainer.compute_loss(model, dict(batch)).item()
    evaluation = (time.monotonic() - start) / len(sample)
    return seconds[-1], evaluation, peak_memory(model.device)

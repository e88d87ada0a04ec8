"""Reinforcement learning with TRL's GRPOTrainer: the baseline that "RL generalizes" is claimed of.

It begins with a checkpoint of `train` (a supervised warm-up), asks items of the training side of a task, and leaves
checkpoints in the same layout, so that `track` and `generalize` read them. GRPO stands for the PPO of ReFT
(arXiv 2401.08967) too, which TRL has no trainer for any more: no value model, no divergence inside of the reward.

One folder holds one training. The same call goes on after an interruption, and ends in the same weights.
"""

import logging
import os
import shutil
import time
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, PrinterCallback

from whatstuck.datasets import Message, Row
from whatstuck.datasets.turns import TurnEnds
from whatstuck.errors import WhatStuckError, require
from whatstuck.generalization.own import load_task
from whatstuck.generalization.registry import make_task
from whatstuck.models import (
    checkpoint_at,
    fingerprint,
    load_model,
    load_tokenizer,
    padding_token,
    positions_of,
    resolve_model,
)
from whatstuck.models.generating import Decoding, stop_ids
from whatstuck.runs import Json, RunFolder, changed_values, content_hash, versions, write_json
from whatstuck.training import _saving
from whatstuck.training._record import read_record, refuse_changed
from whatstuck.training._trainer import adapter_config, old_names_allowed
from whatstuck.training.rl.items import AnyTask, Asked, ask_items, longest_prompt
from whatstuck.training.rl.prefixes import PrefixSampler
from whatstuck.training.rl.rewards import REWARDS
from whatstuck.training.rl.rollout import PrefixState, Rollout
from whatstuck.training.rl.settings import RLSettings
from whatstuck.training.schedule import DenseCheckpoints

logger = logging.getLogger(__name__)

RECORD = "whatstuck_rl.json"
_FEW_VISITS = 5
_OLDEST_TRL = 1  # before, replies of one's own needed vLLM


def train_rl(settings: RLSettings | Mapping[str, Any], *, task: AnyTask | None = None) -> Path:
    """Train a model on the rewards of a task.

    Writes into the output folder: `checkpoint-N`, with `trainer_state.json` (`reward`, `success`, `valid` and what else
    TRL logs, per step), and `whatstuck_rl.json` (settings, versions, counts).

    Args:
        settings: The settings: an `RLSettings`, or its fields in a mapping.
        task: The task itself, where it is not registered under the name in the settings.

    Returns:
        The output folder.

    Raises:
        MissingExtraError: If TRL, PEFT or datasets is not installed.
        WhatStuckError: If a setting, the model, the checkpoint or the task is bad, or the folder holds another
            training.
    """
    given = RLSettings.read(settings)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise WhatStuckError("train_rl runs in one process: start it without a launcher")
    require("trl", "trl")
    if int(version("trl").partition(".")[0]) < _OLDEST_TRL:
        raise WhatStuckError(f"reinforcement learning needs trl 1.0 or newer: trl {version('trl')} is installed")
    found = _find_task(given) if task is None else task
    if given.method == "adaback" and found.demonstrator is None:
        raise WhatStuckError(f"the task {found.name} has no right replies to reveal: use method=grpo")
    base = resolve_model(given.model).resolve()
    tokenizer = load_tokenizer(base)
    asked = ask_items(
        found,
        tokenizer,
        given.items,
        mapping=given.mapping,
        thought=given.thought,
        chat_template=given.chat_template,
        seed=given.seed,
    )
    if len(asked) < given.items_per_step:
        raise WhatStuckError(
            f"the task {found.name} has only {len(asked)} items to train on: lower items_per_step from "
            f"{given.items_per_step}"
        )
    visits = given.max_steps * given.items_per_step / len(asked)
    if given.method == "adaback" and visits < _FEW_VISITS:
        logger.warning(
            "adaback searches per item how much must be revealed, and each is asked about %.1f times: lower items from "
            "%d, or raise max_steps",
            visits,
            len(asked),
        )
    longest = given.max_new_tokens or (found.longest_thought if given.thought else found.max_new_tokens)
    _check_context(base, asked, longest, reveals=given.method == "adaback")
    identity = _identity(given, base, asked)
    with RunFolder(given.out).writing():
        record = read_record(given.out / RECORD, whose="another training")
        _refuse_changes(given.out, record, identity)
        if record.get("finished"):
            logger.info("%s is finished; nothing to do", given.out)
            return given.out
        trainer = _make_trainer(given, found, base, tokenizer, asked, longest)
        _run(given, trainer, identity | {name: record[name] for name in ("started", "seconds") if name in record})
    return given.out


def _find_task(settings: RLSettings) -> AnyTask:
    """The task that the settings name; the checker of a user's file runs in a process of its own."""
    if Path(settings.task).suffix.lower() in {".yaml", ".yml"}:
        if settings.thought or settings.task_options:
            raise WhatStuckError(f"{settings.task} says itself how it is asked: leave thought and task_options out")
        return load_task(settings.task)
    thought = {"thought": True} if settings.thought else {}
    return make_task(settings.task, **settings.task_options, **thought)


def _run(settings: RLSettings, trainer: Any, record: Json) -> None:
    """Train from the last checkpoint, or from the start."""
    out = settings.out
    resume = _saving.resume_point(out)
    start = time.monotonic()
    record = {"started": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": 0.0, **record}
    write_json(out / RECORD, record)
    try:
        with old_names_allowed():
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    finally:
        trainer.progress.close()
        shutil.rmtree(out / _saving.STAGING, ignore_errors=True)
        record["seconds"] = round(record["seconds"] + time.monotonic() - start, 1)
        write_json(out / RECORD, record)
    write_json(out / RECORD, record | {"finished": True})
    _saving.forget_resume_files(out)


def _make_trainer(
    settings: RLSettings,
    task: AnyTask,
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    asked: list[Asked],
    longest: int,
) -> Any:
    datasets = require("datasets", "trl")
    model, adapter = _start(settings, base)
    adaback = settings.method == "adaback"
    prefixes = (
        PrefixSampler(seed=settings.seed, threshold=settings.threshold, unaided=settings.unaided) if adaback else None
    )
    end = TurnEnds(tokenizer, settings.chat_template)(Row("rl", (Message("user", "?"),), "?", 0, "train"))
    decoding = Decoding(
        max_new_tokens=longest,
        stop_ids=stop_ids(model, tokenizer, end),
        pad_token_id=padding_token(tokenizer),
        samples=settings.num_generations,
        temperature=settings.temperature,
        greedy=False,
    )
    rollout = Rollout(
        task, asked, tokenizer, decoding, REWARDS[settings.reward], end=end, seed=settings.seed, prefixes=prefixes
    )

    class _Trainer(_saving.WholeCheckpoints, require("trl", "trl").GRPOTrainer):  # type: ignore[misc]  # TRL has no types
        pass

    try:
        with old_names_allowed():
            warnings.filterwarnings("ignore", "You are using 'rollout_func'", UserWarning)  # experimental in TRL
            trainer = _Trainer(
                model=model,
                reward_funcs=_reward,
                args=settings.grpo_config(longest=longest),
                train_dataset=datasets.Dataset.from_dict({"prompt": [str(number) for number in range(len(asked))]}),
                processing_class=tokenizer,
                peft_config=adapter,
                rollout_func=rollout,
            )
    except ValueError as error:
        raise WhatStuckError(f"TRL refuses this training: {' '.join(str(error).split())}") from error
    rollout.trainer = trainer
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, which belongs to --json
    trainer.progress = _saving.Progress()
    trainer.add_callback(trainer.progress)
    if prefixes is not None:
        state = PrefixState(prefixes)
        trainer.attachments += (state,)
        trainer.add_callback(state)
    trainer.add_callback(
        DenseCheckpoints(
            trainer,
            every=settings.save_steps,
            dense=settings.dense_checkpoints,
            save_first=settings.use_peft or settings.start is not None,
        )
    )
    return trainer


def _reward(reward: list[float], **_: Any) -> list[float]:
    """The rollout knows what it revealed, so it judges; here its verdict is handed on."""
    return reward


def _start(settings: RLSettings, base: Path) -> tuple[Any, Any]:
    """The model to begin with, and the settings of a new adapter if it gets one."""
    if settings.start is None:
        model = load_model(base)
        if settings.use_peft:
            return model, adapter_config(settings)
        return model.requires_grad_(requires_grad=True), None
    warm = checkpoint_at(settings.start, 0)
    if warm.kind == "adapter":
        if not settings.use_peft:
            raise WhatStuckError(f"{warm.path} is an adapter: leave use_peft out, it is trained on")
        with old_names_allowed():
            peft = require("peft", "trl")
            return peft.PeftModel.from_pretrained(load_model(base), warm.path, is_trainable=True), None
    if settings.use_peft:
        raise WhatStuckError(f"{warm.path} is a whole model: give it as model, or use_peft=False")
    return load_model(warm.path).requires_grad_(requires_grad=True), None


def _check_context(base: Path, asked: list[Asked], longest: int, *, reveals: bool) -> None:
    positions = positions_of(base)
    most = longest_prompt(asked) + longest + (max(len(one.rest) for one in asked) if reveals else 0)
    if positions is not None and most > positions:
        raise WhatStuckError(
            f"prompt and reply take up to {most} tokens and the model reads {positions}: lower max_new_tokens, or take "
            "another model"
        )


# --- one folder, one training


def _identity(settings: RLSettings, base: Path, asked: list[Asked]) -> Json:
    """What must not change between two calls on one folder, and where it came from."""
    start = settings.start
    return {
        "format_version": 1,
        "finished": False,
        "settings": settings.fixed(),
        "model": {"path": str(base), "fingerprint": fingerprint(base)},
        "start": None if start is None else {"path": str(start), "fingerprint": fingerprint(start)},
        "items_hash": content_hash([[one.prompt, one.prefill, one.rest] for one in asked]),
        "versions": versions(),
    }


def _refuse_changes(out: Path, record: Json, identity: Json) -> None:
    if not record:
        return
    changed = changed_values(record["settings"], identity["settings"])
    for name, what in (("model", "other weights"), ("start", "other weights")):
        if (record[name] or {}).get("fingerprint") != (identity[name] or {}).get("fingerprint"):
            changed.append(f"{name}: {what}")
    if record["items_hash"] != identity["items_hash"]:
        changed.append("task: other items")
    refuse_changed(out, changed)

"""The packaged example, end to end: fine-tune SmolLM2 on family riddles, see what happened, and what did not stick.

Beside it stands a stored run: what frozen prompts do to a model small enough to be trained on many of them.

The task is made offline by reasoning-gym: who is whom to whom in a small family, one word as the answer. The model
comes from a package, so nothing is downloaded at run time.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from whatstuck.errors import require
from whatstuck.results import Run

logger = logging.getLogger(__name__)

MODEL = "smollm2"
TRAIN_ROWS = 64
HELDOUT_ROWS = 48
STEPS = 32  # checkpoints 0, 1, 2, 4, 8, 16, 32; three epochs
# a training this short cannot be probed for a few percent of its time
PROBE: dict[str, Any] = {"players": 5, "rows": 6, "eval_rows": HELDOUT_ROWS, "probe_budget": None}
STORED = Path(__file__).parent / "stored" / "frozen-prompts"
"""Made by benchmarks/store_frozen_run.py."""
# fewer prompts and draws than by default: minutes count
THRESHOLDS: dict[str, Any] = {"base_prompts": 2, "base_samples": 4, "base_learned": 12}


def make_rows(path: Path, *, seed: int, count: int | None = None) -> None:
    """Write the task's rows as JSONL of question and answer.

    Args:
        path: File to write.
        seed: Seed of the task generator.
        count: Rows to make (some may be equal and stand there once); by default what the demo needs.

    Raises:
        MissingExtraError: If reasoning-gym is not installed.
    """
    gym = require("reasoning_gym", "tasks")
    task = gym.create_dataset(
        "family_relationships",
        size=count or TRAIN_ROWS + HELDOUT_ROWS,
        seed=seed,
        min_family_size=4,
        max_family_size=4,
    )
    lines = {json.dumps({"question": item["question"], "answer": item["answer"]}) for item in task}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(sorted(lines)) + "\n", encoding="utf-8")


def training_settings(out: Path, *, seed: int) -> dict[str, Any]:
    """Settings of the demo's fine-tuning; `whatstuck train --config` takes the same."""
    return {
        "model": MODEL,
        "data": str(out / "rows.jsonl"),
        "out": str(out / "training"),
        "heldout": HELDOUT_ROWS,
        "max_steps": STEPS,
        "save_steps": STEPS,
        "eval_rows": 8,  # the probes score the held-out rows with intervals; this is only the trainer's log
        "per_device_train_batch_size": 6,
        "learning_rate": 3e-4,
        "seed": seed,
        "run": str(out / "run"),
        "probe": PROBE,
    }


def run_demo(out: Path, *, seed: int = 0) -> Run:
    """Make the rows, fine-tune, probing the model as it learns; whatever is there already is kept.

    Args:
        out: Folder for everything.
        seed: Seed of task, training and probing.

    Returns:
        The finished run.

    Raises:
        WhatStuckError: If an extra or the packaged model is missing.
    """
    from whatstuck.api import find_unlearned, train

    logger.info(
        "Fine-tunes %s for %d steps, probes it as it learns, and looks for rows that did not stick: under 10 minutes "
        "on two idle cores.",
        MODEL,
        STEPS,
    )
    rows = out / "rows.jsonl"
    if not rows.exists():
        make_rows(rows, seed=seed)
    train(training_settings(out, seed=seed))
    return find_unlearned(MODEL, out / "training", rows, out / "run", thresholds=THRESHOLDS, seed=seed)


def show_frozen_prompts(out: Path) -> Run:
    """The stored run about frozen prompts, with its page.

    Args:
        out: Folder of the demo.

    Raises:
        WhatStuckError: If the page cannot be written.
    """
    from whatstuck.report import write_report

    folder = out / STORED.name
    if not folder.exists():
        shutil.copytree(STORED, folder)
    write_report(folder)
    return Run(folder)


def plan_demo() -> dict[str, Any]:
    """What the demo does, in numbers."""
    return {
        "model": MODEL,
        "training_steps": STEPS,
        "training_rows": TRAIN_ROWS,
        "heldout_rows": HELDOUT_ROWS,
        "masked_prompts_per_checkpoint": PROBE["rows"] << PROBE["players"],
    }

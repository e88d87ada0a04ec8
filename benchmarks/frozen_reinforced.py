"""Tier 0's arms by reinforcement learning: GRPO and AdaBack, from the arm's own supervised checkpoint.

A few supervised steps come first, as in the baseline of arXiv 2510.00237. Then the same hands are asked under the
mappings of the arm, and right formulas are rewarded; nobody shows the model what stands in them (AdaBack shows their
beginning). Steps and rate were fixed by the rewards of two short trials, before any variant was asked.
"""

import shutil
from pathlib import Path

from frozen_micro import train_arm
from micro_model import micro_base
from whatstuck.training.rl import train_rl

METHODS = ("grpo", "adaback")
ARMS = ("frozen", "diverse", "thought", "diverse-thought")
WARM = 20
"""Supervised steps, the first of the arm's 800: one of `frozen_micro.CHECKPOINTS`."""
STEPS = 600
ITEMS = 960
"""Each is asked ten times, since AdaBack searches per item how much must be revealed."""
_ITEMS_PER_STEP = 16


def warm_up(folder: Path, arm: str, *, seed: int, strength: int) -> Path:
    """The supervised checkpoint that an arm begins with.

    Raises:
        SystemExit: If mappings of the arm cannot be drawn in reinforcement learning.
    """
    if arm not in ARMS:
        raise SystemExit(f"the arm {arm} is not reinforced: use {', '.join(ARMS)}")
    return train_arm(folder, arm, seed=seed, strength=strength) / f"checkpoint-{WARM}"


def reinforce_arm(folder: Path, arm: str, method: str, *, seed: int, strength: int, steps: int = STEPS) -> Path:
    """Train one arm on rewards; goes on where it was interrupted.

    Args:
        folder: Where bases and arms are kept.
        arm: One of `ARMS`.
        method: One of `METHODS`.
        seed: Of the base, the hands and the mappings.
        strength: Pretraining steps of the base.
        steps: Optimizer steps, of 8 replies to each of 16 hands.

    Returns:
        Its folder; `checkpoint-0` is the supervised checkpoint that it began with.
    """
    warm = warm_up(folder, arm, seed=seed, strength=strength)
    out = train_rl(
        {
            "model": str(micro_base(folder, seed, strength)),
            "start": str(warm),
            "out": str(folder / f"{warm.parent.name}-{method}"),
            "task": "micro-points",
            "method": method,
            "mapping": "random" if arm.startswith("diverse") else "frozen",
            "thought": "thought" in arm,
            "items": ITEMS,
            "items_per_step": _ITEMS_PER_STEP,
            "num_generations": 8,
            "max_steps": steps,
            "learning_rate": 2e-4,
            "use_peft": False,
            "dense_checkpoints": False,
            "save_steps": 100,
            "chat_template": "never",
            "seed": seed,
        }
    )
    if not (out / "checkpoint-0").exists():
        shutil.copytree(warm, out / "checkpoint-0")
    return out

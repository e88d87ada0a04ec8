"""Tier 0's arms by reinforcement learning: GRPO and AdaBack, from the arm's own supervised checkpoint.

A few supervised steps come first, as in arXiv 2510.00237, whose PPO these stand for. Then the same hands are asked
under the mappings of the arm, and right formulas are rewarded; nobody shows the model what stands in them (AdaBack
shows their beginning). Steps and rates were fixed by the rewards of two short trials, before any variant was asked.
"""

from pathlib import Path

from frozen_micro import train_arm
from micro_model import micro_base
from whatstuck.training.rl import train_rl

METHODS = ("grpo", "adaback")
WARM = 20
"""Supervised steps: one of `frozen_micro.CHECKPOINTS`."""
STEPS = 600
_ITEMS = 9600  # each is asked once


def reinforce_arm(folder: Path, arm: str, method: str, *, seed: int, strength: int, steps: int = STEPS) -> Path:
    """Train one arm on rewards; goes on where it was interrupted.

    Args:
        folder: Where bases and arms are kept.
        arm: `frozen` or `diverse`, with `-thought` or without.
        method: One of `METHODS`.
        seed: Of the base, the hands and the mappings.
        strength: Pretraining steps of the base.
        steps: Optimizer steps, of 8 replies to each of 16 hands.

    Returns:
        Its folder; the first checkpoint is that of step 100.
    """
    warm = train_arm(folder, arm, seed=seed, strength=strength)
    return train_rl(
        {
            "model": str(micro_base(folder, seed, strength)),
            "start": str(warm / f"checkpoint-{WARM}"),
            "out": str(folder / f"{warm.name}-{method}"),
            "task": "micro-points",
            "method": method,
            "mapping": "random" if arm.startswith("diverse") else "frozen",
            "thought": "thought" in arm,
            "items": _ITEMS,
            "items_per_step": 16,
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

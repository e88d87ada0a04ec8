"""Reinforcement learning on verifiable tasks, beside which supervised fine-tuning is judged."""

from whatstuck.training.rl.prefixes import PrefixSampler
from whatstuck.training.rl.settings import RLSettings
from whatstuck.training.rl.training import train_rl

__all__ = ["PrefixSampler", "RLSettings", "train_rl"]

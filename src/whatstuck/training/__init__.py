"""Supervised fine-tuning on TRL with checkpoints that are dense from the first step."""

from whatstuck.live.schedule import dense_steps
from whatstuck.training.config import TrainConfig
from whatstuck.training.sft import plan_training, train_model

__all__ = ["TrainConfig", "dense_steps", "plan_training", "train_model"]

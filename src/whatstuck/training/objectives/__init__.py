"""What a fine-tuning minimizes: cross-entropy and its relatives, behind one function."""

from whatstuck.training.objectives.interface import Loss, Objective
from whatstuck.training.objectives.registry import find_objective, objective_names

__all__ = ["Loss", "Objective", "find_objective", "objective_names"]

"""General Points: formulas and their solver, hands, how they are asked; `task` joins them."""

from whatstuck.generalization.tasks.general_points.task import general_points

__all__ = ["general_points"]

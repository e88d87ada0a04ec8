"""Sokoban: rooms and their rules, random rooms, shortest solutions, words, how it is asked; `task` joins them."""

from whatstuck.generalization.tasks.sokoban.task import sokoban

__all__ = ["sokoban"]

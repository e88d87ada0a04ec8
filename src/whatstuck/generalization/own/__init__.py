"""Tasks that a user brings: a YAML file of templates, mappings and a checker becomes a `Task`."""

from whatstuck.generalization.own.loading import load_task

__all__ = ["load_task"]

"""One file, or folder, per task. Each is registered by a decorator, see `whatstuck.generalization.registry`."""

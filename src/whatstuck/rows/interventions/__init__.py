"""Training changes that would undo a cause, against control arms."""

"""What changes over checkpoints: categories, metrics with intervals and nulls, and the verdict."""

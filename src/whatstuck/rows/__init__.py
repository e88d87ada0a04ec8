"""Training rows, one by one: how each fares while the model learns."""

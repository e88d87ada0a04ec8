"""From a prompt to its AND and OR interactions: players, coalition values, sparse extraction."""

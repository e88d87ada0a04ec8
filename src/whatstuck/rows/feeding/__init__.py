"""Was it trained at all: what the trainer really fed."""

"""Doors for tools that load us by name; each imports its tool only when that tool asks for it."""

"""Training rows in every shape that users have, and the text that a model sees of them."""

from whatstuck.datasets.reading import read_rows, rows_from, write_rows
from whatstuck.datasets.rendering import RenderedRow, render, target_ids
from whatstuck.datasets.rows import Message, Row, row_hash

__all__ = ["Message", "RenderedRow", "Row", "read_rows", "render", "row_hash", "rows_from", "target_ids", "write_rows"]

"""The command line: each verb reads its settings, calls one function, and says where the result is.

Logs and progress go to stderr. With `--json` one machine-readable line goes to stdout, and nothing else does.
"""

import importlib
import logging
import sys

from whatstuck.cli.base import app

# in the order in which the help shows them
for _verbs in ("training", "tracking", "rows", "generalization", "diversifying", "showing"):
    importlib.import_module(f"whatstuck.cli.{_verbs}")

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line. Exit codes: 0 done, 2 bad input, 130 interrupted."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.getLogger("whatstuck").setLevel(logging.INFO)
    app()

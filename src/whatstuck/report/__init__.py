"""One HTML page that shows a run; a pure function of the run folder (docs/run-folder.md)."""

from whatstuck.report.page import make_page, write_report

__all__ = ["make_page", "write_report"]

"""The report of a run: one HTML file that says how good a detector is and what it gets wrong."""

from resdet.analysis.report.write import write_report

__all__ = ["write_report"]

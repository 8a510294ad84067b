"""The report of a run: one HTML file with the detector's figures and its errors."""

from resdet.analysis.report.write import write_report

__all__ = ["write_report"]

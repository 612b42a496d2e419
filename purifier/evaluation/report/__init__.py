"""Reports: results.json, a Markdown table, and one self-contained HTML page."""

from purifier.evaluation.report.files import write_report

__all__ = ["write_report"]

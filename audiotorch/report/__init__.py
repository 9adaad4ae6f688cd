"""Reports that one can mail: a run, a data set or transcripts in one HTML file."""

from audiotorch.report.writing import write_report

__all__ = ["write_report"]

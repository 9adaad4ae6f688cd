"""Long work over many files: resumable, on all cores, into one table."""

from audiotorch.batch.job import Failure, Report, extract_features

__all__ = ["Failure", "Report", "extract_features"]

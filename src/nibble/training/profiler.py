"""Prints where the time of a run goes, at its end: debug=profile."""

from pytorch_lightning.profilers import SimpleProfiler


class PrintedProfiler(SimpleProfiler):
    """Lightning's profiler, printed: it writes only to Lightning's log, of which this project shows warnings only."""

    def describe(self) -> None:
        """Print the table."""
        print(self.summary(), flush=True)

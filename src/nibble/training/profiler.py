"""Where the time of a run goes, printed at its end: debug=profile."""

from pytorch_lightning.profilers import SimpleProfiler


class PrintedProfiler(SimpleProfiler):
    """Lightning's profiler, which only tells its own log, where this project shows warnings alone."""

    def describe(self) -> None:
        """Print the table."""
        print(self.summary(), flush=True)

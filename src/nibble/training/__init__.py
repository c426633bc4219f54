"""Lightning: steps, optimizer, callbacks, loggers."""

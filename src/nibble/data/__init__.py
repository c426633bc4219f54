"""Audio and text to cuts, cuts to batches (Lhotse)."""

"""What a run folder, a checkpoint and a bundle are: the one place that spells, writes and reads their files."""

"""Other toolkits' checkpoints become float runs of ours."""

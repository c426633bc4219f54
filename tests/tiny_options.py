"""Options of the smallest runs: a few thousand weights, one process, one thread."""

SMALL = [
    "model.name=tiny",
    "model.layers=1",
    "model.predictor_width=32",
    "model.joiner_width=32",
    "hardware.threads=1",
    "hardware.workers=0",
]
WITH_CTC = [*SMALL, "model.width=48", "model.subsampling_channels=8", "loss=rnnt_ctc", "logger=csv"]

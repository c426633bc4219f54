"""A run that was killed, at several kinds of moment, ends with the bundle of one that never was.

It is killed at one after the other. `kills.py` kills a run of its own at each, at more moments, and at random ones.
"""

from kills import MOMENTS, QUANT, bundle_of, differing

KINDS = [
    "in the validation of the best step",
    "between the file of best.ckpt and its rename",
    "after the decision to stop",
    "before the record",
]


def test_kills_change_nothing(commands, tiny_corpus):
    options = [*QUANT["int4"], f"data.corpus_dir={tiny_corpus}"]
    whole = bundle_of(commands, commands.folder / "whole", options, [])
    killed = bundle_of(commands, commands.folder / "killed", options, [MOMENTS[kind] for kind in KINDS])
    assert differing(whole, killed) == []

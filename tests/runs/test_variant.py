"""The folders of models that are taken from a run: one rule, and no two models with one folder."""

from itertools import product
from pathlib import Path

import pytest

from nibble.export.options import Encoding
from nibble.runs.variant import Variant

RUN = Path("runs/a")
BEST = RUN / "checkpoints/best.ckpt"


@pytest.mark.parametrize(
    ("variant", "bundle", "exported"),
    [
        (Variant(BEST), "bundle", "sherpa_w4a8"),
        (Variant(RUN / "checkpoints/last.ckpt"), "bundle", "sherpa_w4a8"),
        (Variant(RUN / "bundle"), "bundle", "sherpa_w4a8"),
        (Variant(BEST, "small", "int4"), "bundle_small_int4", "sherpa_small_int4_w4a8"),
        (Variant(BEST, None, "int8"), "bundle_int8", "sherpa_int8_w4a8"),
        (Variant(BEST, None, "int4", "gptq"), "bundle_int4_gptq", "sherpa_int4_gptq_w4a8"),
        (Variant(BEST, "small", "int4", "nearest"), "bundle_small_int4_nearest", "sherpa_small_int4_nearest_w4a8"),
        (Variant(RUN / "bundle_small_int4"), "bundle_small_int4", "sherpa_small_int4_w4a8"),
        (Variant(RUN / "bundle_v1.5"), "bundle_v1.5", "sherpa_v1.5_w4a8"),
        (Variant(RUN / "checkpoints/phase_2_int8.ckpt"), "bundle_int8", "sherpa_int8_w4a8"),
        (Variant(RUN / "checkpoints/mine.ckpt"), "bundle", "sherpa_w4a8"),
    ],
)
def test_the_rule(variant: Variant, bundle: str, exported: str) -> None:
    assert variant.bundle == RUN / bundle
    assert variant.exported("w4a8") == RUN / exported


def test_different_models_have_different_folders() -> None:
    chosen = [
        (size, precision, rounding)
        for size, precision, rounding in product((None, "small"), (None, "int8", "int4"), (None, "nearest", "gptq"))
        if precision is not None or size is rounding is None
    ]
    variants = [Variant(BEST, *one) for one in chosen]
    folders = [variant.bundle for variant in variants]
    folders += [variant.exported(encoding.value) for variant in variants for encoding in Encoding]
    assert len(set(folders)) == len(folders) == len(chosen) * (1 + len(Encoding))


def test_a_size_needs_a_precision() -> None:
    with pytest.raises(AssertionError, match="a size is trained at several precisions"):
        Variant(BEST, "small")

from dataclasses import replace

import pytest

from nibble.errors import UserError
from nibble.hardware import HardwareConfig
from nibble.runs.bundle import write_bundle
from nibble.runs.checkpoint import quantize
from nibble.sensitivity.assignment import total
from nibble.sensitivity.budget import (
    assign_within,
    assigned_bytes,
    average_bits,
    check_budget,
    layer_bytes,
    mixed,
    weight_counts,
)
from nibble.sensitivity.options import SensitivityConfig

RULES_BYTES = 700  # what the configuration in a bundle takes for one rule more, at most


def options(**values) -> SensitivityConfig:
    return SensitivityConfig(checkpoint="x", plot="x.png", hardware=HardwareConfig(), **values)


@pytest.fixture
def damage(loaded):
    """The fewer bits the worse, and worse in larger layers."""
    return {layer: {bits: count / 4**bits for bits in (2, 4, 8)} for layer, count in weight_counts(loaded).items()}


def test_predicted_bytes_are_those_of_the_bundle(loaded, damage, tmp_path):
    """Layers in any widths, and all else as in a uniform bundle; names and rules in it differ by a little."""
    cost = layer_bytes(loaded, [2, 4, 8])
    assignment = {layer: (2, 4, 8)[index % 3] for index, layer in enumerate(cost)}
    quant = mixed(loaded, assignment, "mixed")
    model = quantize(loaded, quant)
    written = write_bundle(model, tmp_path / "b")
    assert written == assigned_bytes(loaded, assignment, "mixed")
    uniform = dict.fromkeys(cost, 4)
    rest = assigned_bytes(loaded, uniform, "mixed") - total(cost, uniform)
    assert abs(written - total(cost, assignment) - rest) < RULES_BYTES * len(quant.rules)


def test_layer_bytes_are_codes_scales_and_bias(loaded):
    cost = layer_bytes(loaded, [2, 3, 8])["joiner.encoder"]  # 32 x 32, with a bias
    assert cost == {2: 1024 // 4 + 64 + 64, 3: 1024 * 3 // 8 + 64 + 64, 8: 1024 + 64 + 64}


def test_average_bits_are_used_and_not_exceeded(loaded, damage):
    counts = weight_counts(loaded)
    for average in (2, 3.5, 4, 8):
        assignment = assign_within(loaded, damage, options(average_bits=average))
        found = average_bits(counts, assignment)
        assert average - 0.3 < found <= average
    assert average_bits({"a": 30, "b": 10}, {"a": 2, "b": 8}) == 3.5


def test_the_bundle_fits_target_bytes(loaded, damage):
    smallest, largest = (assigned_bytes(loaded, dict.fromkeys(damage, bits), "mixed") for bits in (2, 8))
    for target in (smallest, (smallest + largest) // 2, largest):
        assignment = assign_within(loaded, damage, options(target_bytes=target))
        written = assigned_bytes(loaded, assignment, "mixed")
        assert written <= target
        assert written >= min(target, largest) - 10 * RULES_BYTES


def test_impossible_budgets_say_what_is_possible(loaded, damage):
    with pytest.raises(UserError, match=r"average_bits=1.5 is not possible with bits=\[2, 4, 8\]: give 2 to 8"):
        check_budget(loaded, options(average_bits=1.5))
    smallest, largest = (assigned_bytes(loaded, dict.fromkeys(damage, bits), "mixed") for bits in (2, 8))
    with pytest.raises(UserError, match=rf"target_bytes=1000 .*{smallest} bytes at 2 bits to {largest} bytes at 8"):
        check_budget(loaded, options(target_bytes=1000))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"checkpoint": None}, "give checkpoint=RUN"),
        ({"average_bits": 4.0, "target_bytes": 9}, "average_bits=4 and target_bytes=9 are two budgets; give one"),
        ({"bits": [4]}, "at least two widths"),
        ({"bits": [4, 9]}, r"bits=\[4, 9\]"),
        ({"max_utterances": 0}, "max_utterances=0; give at least 1"),
        ({"name": "a/b"}, "name=a/b becomes a file"),
    ],
)
def test_options_are_checked(values, text):
    with pytest.raises(UserError, match=text):
        replace(options(), **values)

"""Errors against the level of noise in analog layers of one type."""

from pathlib import Path

import pytest

from nibble.errors import UserError
from nibble.hardware import HardwareConfig
from nibble.quant.analog_spec import AnalogSpec
from nibble.quant.spec import ActivationSpec, QuantConfig, Rule
from nibble.sensitivity.analog import ALL, noise_errors
from nibble.sensitivity.options import SensitivityConfig, SensitivityPart

RULES = [Rule("encoder.blocks.*.feed_forward*.*|joiner.*", None, ActivationSpec(), analog=AnalogSpec())]


def options(run: Path, quant: QuantConfig | None) -> SensitivityConfig:
    return SensitivityConfig(
        str(run),
        part=SensitivityPart.dev,
        noise=[0.0, 30.0],
        draws=3,
        quant=quant,
        plot="",
        hardware=HardwareConfig(threads=1, workers=0),
    )


def test_errors_grow_with_the_noise_of_a_layer_type(fitted_run, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = noise_errors(options(fitted_run("stateless"), QuantConfig("analog", RULES)))
    assert list(found.rates) == [ALL, "feed_forward", "joiner"]
    assert found.exact < 0.2
    for rates in found.rates.values():
        assert [len(draws) for draws in rates] == [3, 3]
    assert sum(found.rates[ALL][1]) > sum(found.rates[ALL][0]) + 0.3
    assert len(set(found.rates[ALL][1])) > 1
    assert [row[0] for row in found.table().rows] == [ALL, "feed_forward", "joiner"]


def test_levels_of_noise_are_for_analog_weights(write_run) -> None:
    with pytest.raises(UserError, match=r"is at float, and noise=.* is of analog weights; give quant=analog"):
        noise_errors(options(write_run(), None))
    with pytest.raises(UserError, match=r"quant=analog is for noise="):
        SensitivityConfig("run", quant=QuantConfig("analog", RULES), plot="", hardware=HardwareConfig())

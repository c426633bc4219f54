"""The training time of one run for several precisions: which steps are counted, and that they are timed."""

from nibble.bench import together
from nibble.bench.together import State, _config, _steps
from nibble.quant.spec import Precision


def test_the_steps_of_a_staged_run():
    found = _steps(_config("quant=int4"), 100)
    assert found == {
        State("int4", Precision.float, False): 50,
        State("int4", Precision.int8, False): 20,
        State("int4", Precision.rules, True): 10,
        State("int4", Precision.rules, False): 20,
    }


def test_a_float_run_stays_in_float():
    assert _steps(_config("quant=float"), 100) == {State("float", Precision.float, False): 100}


def test_the_steps_of_a_run_for_several_precisions():
    found = _steps(_config("quant=int4", "schedule=together"), 1000)
    assert sum(found.values()) == 1000
    assert set(found) == {State("int4", Precision(name), False) for name in ("float", "int8", "int4", "int2")}
    assert found[State("int4", Precision.float, False)] > 400


def test_a_measurement(monkeypatch):
    monkeypatch.setattr(together, "_ROUNDS", 1)
    (found,) = together.measure()
    assert found.bench == "together"
    assert found.contender == "float, int2, int4, int8 in one run of 1200 steps"
    assert found.ratio > 0
    assert found.median_ms > 0

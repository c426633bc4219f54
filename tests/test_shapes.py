"""Modules without storage."""

import subprocess
import sys

SCRIPT = """
import sys

from nibble.composition import training_config
from nibble.model.transducer import Transducer
from nibble.quant.convert import freeze, prepare, set_precision
from nibble.quant.spec import Precision
from nibble.shapes import shapes_only

for predictor in ("stateless", "lstm"):
    config = training_config(["model=conformer_xs", "quant=int4", f"model.predictor={predictor}", "run_dir=."])
    with shapes_only():
        model = Transducer(config.model, config.features, 64)
        prepare(model, config.quant)
        set_precision(model, Precision.rules)
        freeze(model)
    assert all(tensor.is_meta for tensor in model.state_dict().values())
assert "torch._dynamo" not in sys.modules
"""


def test_describing_a_network_does_not_import_the_compiler() -> None:
    """Which would cost every command that loads a model a second and 85 MB."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

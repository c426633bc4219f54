from pathlib import Path

import pytest
import torch

from nibble import composition
from nibble.model.transducer import Transducer
from nibble.quant.convert import prepare
from nibble.quant.rules import coverage, quantized_share

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize("model", [path.stem for path in (CONF / "model").glob("*conformer*.yaml")])
def test_few_weights_of_any_conformer_have_eight_bits_and_none_sixteen(model):
    config = composition.training_config(["quant=mixed48", f"model={model}", "run_dir=x"])
    with torch.device("meta"):
        network = Transducer(config.model, config.features, vocabulary_size=64)
    prepare(network, config.quant)
    covered = [part for part in coverage(network) if part.name.rpartition(".")[2].startswith("weight")]
    elements = {bits: sum(part.elements for part in covered if part.bits == bits) for bits in (4, 8)}
    assert 0 < elements[8] < 0.13 * elements[4]
    assert quantized_share(coverage(network)) > 0.96

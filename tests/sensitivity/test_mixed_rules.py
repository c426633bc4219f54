import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from nibble.features.options import FeatureConfig
from nibble.model.options import ModelConfig, Predictor
from nibble.model.transducer import Transducer
from nibble.quant.rules import assign
from nibble.quant.spec import LowRank, QuantConfig, Rule
from nibble.sensitivity.rules import as_yaml, rules_of


def layers(model):
    return list(assign(model, [Rule()]))


@pytest.fixture(scope="module")
def model() -> Transducer:
    config = ModelConfig("t", 16, 2, 2, predictor=Predictor.lstm, predictor_width=8, joiner_width=8)
    with torch.device("meta"):
        return Transducer(config, FeatureConfig(), 10)


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_rules_give_each_layer_its_bits(model, data):
    assignment = {layer: data.draw(st.sampled_from([2, 4, 8]), label=layer) for layer in layers(model)}
    rules = rules_of(assignment, ["predictor.embedding"])
    won = assign(model, rules)  # a rule without a layer, or an activation where there is none, would raise
    assert {layer: rule.weight.bits for layer, rule in won.items()} == assignment


def test_a_kind_of_layer_is_one_rule(model):
    assignment = {layer: 8 if "depthwise" in layer or layer.startswith("joiner") else 4 for layer in layers(model)}
    rules = [(rule.match, rule.weight.bits) for rule in rules_of(assignment)]
    assert rules == [("joiner.**", 8), ("encoder.blocks.*.convolution.depthwise", 8), ("**", 4)]


def test_one_width_is_one_rule(model):
    assert [rule.match for rule in rules_of(dict.fromkeys(layers(model), 4))] == ["**"]


def test_the_file_says_what_the_rules_say(model):
    assignment = {layer: 8 if layer == "predictor.embedding" else 3 for layer in layers(model)}
    quant = QuantConfig("some", rules_of(assignment, ["predictor.embedding"]), low_rank=[LowRank("**.query", 0.25)])
    text = as_yaml(quant, ["one", "two"])
    assert text.startswith("# one\n# two\nname: some\n")
    merged = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(QuantConfig), OmegaConf.create(text)))
    assert merged == quant
    assert merged.rules[0].activation is None

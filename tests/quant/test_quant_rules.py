"""Which rule wins what, and what the messages say."""

import pytest
from torch import nn

from nibble.errors import UserError
from nibble.quant.convert import freeze, prepare, set_precision
from nibble.quant.rules import Covered, assign, coverage, matches, quantized_share
from nibble.quant.spec import ActivationSpec, Precision, QuantConfig, Rule, WeightSpec


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Sequential(nn.Linear(4, 8), nn.ReLU()))
        self.embedding = nn.Embedding(5, 4)
        self.joiner = nn.Linear(8, 5)


INT4 = {"weight": WeightSpec(4), "activation": ActivationSpec(8)}
INT8 = {"weight": WeightSpec(8), "activation": ActivationSpec(8)}


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("**", "a.b.c", True),
        ("**", "", True),
        ("*", "a", True),
        ("*", "a.b", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.**", "a.b.c", True),
        ("a.**", "a", False),
        ("a.**", "ab.c", False),
        ("**.c", "a.b.c", True),
        ("**.c", "c", True),
        ("**.c", "a.bc", False),
        ("a.**.c", "a.c", True),
        ("layers.*.ffn*.**", "layers.12.ffn2.linear1", True),
        ("a.b", "axb", False),
        ("a+", "aa", False),
    ],
)
def test_globs(pattern, name, expected):
    assert matches(pattern, name) == expected


def test_globs_that_would_try_every_split_of_a_name():
    assert not matches("**a" * 40 + "b", "a" * 80)
    assert not matches("*a" * 40 + "b", "a" * 80)
    assert matches("**a" * 40 + "*", "a" * 80)


def test_the_first_rule_that_matches_wins():
    rules = [Rule("joiner"), Rule("encoder.**", **INT4), Rule("**", **INT8)]
    won = assign(Model(), rules)
    assert won == {"encoder.0": rules[1], "encoder.2.0": rules[1], "embedding": rules[2], "joiner": rules[0]}


def test_what_no_rule_matches_stays_in_float():
    model = Model()
    prepare(model, QuantConfig("test", [Rule("encoder.*", **INT4)]))
    assert [type(m).__name__ for m in (model.encoder[0], model.encoder[2][0], model.joiner)] == [
        "QuantLinear",
        "Linear",
        "Linear",
    ]


def test_a_rule_without_specs_leaves_float():
    model = Model()
    prepare(model, QuantConfig("test", [Rule("joiner"), Rule("**", **INT4)]))
    assert type(model.joiner) is nn.Linear
    assert type(model.embedding).__name__ == "QuantEmbedding"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([Rule("encoder.O", **INT4)], r"rule 1: match='encoder\.O' matches no module; nearest: .*encoder\.0"),
        ([Rule("**", **INT4), Rule("joiner", **INT8)], r"rule 2: match='joiner' never applies: earlier .*\(joiner\)"),
        ([Rule("encoder.1", **INT4)], r"only modules that cannot be quantized \(encoder\.1: LayerNorm\)"),
        ([Rule("embedding", **INT4)], r"asks for an activation, but embedding takes none"),
    ],
)
def test_rules_that_cannot_apply(rules, message):
    with pytest.raises(UserError, match=message):
        assign(Model(), rules)
    model = Model()
    with pytest.raises(UserError, match=message):
        prepare(model, QuantConfig("test", rules))
    assert type(model.joiner) is nn.Linear, "nothing was changed"


def test_an_embedding_may_be_won_along_with_products():
    assert "embedding" in assign(Model(), [Rule("**", **INT4)])
    assert "embedding" in assign(Model(), [Rule("embedding", WeightSpec(4)), Rule("**", **INT4)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 2, "batch_first": True}, r"num_layers=2 \(only num_layers=1"),
        ({"bidirectional": True, "batch_first": True}, "bidirectional=True"),
        ({"proj_size": 2, "batch_first": True}, "proj_size=2"),
        ({}, "batch_first=False"),
    ],
)
def test_unsupported_lstm(options, message):
    model = nn.ModuleDict({"lstm": nn.LSTM(4, 4, **options)})
    with pytest.raises(UserError, match=message):
        assign(model, [Rule("**", **INT4)])
    with pytest.raises(UserError, match=r'put \{match: "lstm"\} first'):
        assign(model, [Rule("**", **INT4)])
    assert assign(model, [Rule("lstm")])


def test_unsupported_embedding():
    with pytest.raises(UserError, match=r"max_norm=1\.0"):
        assign(nn.Sequential(nn.Embedding(3, 2, max_norm=1.0)), [Rule("**", WeightSpec(4))])


def test_attention_of_torch_has_one_rule_for_its_projections():
    model = nn.TransformerEncoderLayer(8, 2, 16)
    assert set(assign(model, [Rule("**", **INT4)])) == {"self_attn", "linear1", "linear2"}


def test_coverage():
    model = Model()
    prepare(model, QuantConfig("test", [Rule("joiner"), Rule("embedding", WeightSpec(8)), Rule("**", **INT4)]))
    expected = [
        Covered("encoder.0.weight", 16, 4),
        Covered("encoder.0.bias", 4, 16),
        Covered("encoder.1.weight", 4, 16),
        Covered("encoder.1.bias", 4, 16),
        Covered("encoder.2.0.weight", 32, 4),
        Covered("encoder.2.0.bias", 8, 16),
        Covered("embedding.weight", 20, 8),
        Covered("joiner.weight", 40, 16),
        Covered("joiner.bias", 5, 16),
    ]
    assert coverage(model) == expected
    assert quantized_share(expected) == pytest.approx((16 + 32 + 20) / 133)
    set_precision(model, Precision.rules)
    freeze(model)
    assert sorted(coverage(model)) == sorted(expected)


def test_empty_rules_change_nothing():
    model = Model()
    prepare(model, QuantConfig())
    assert type(model.joiner) is nn.Linear
    assert quantized_share(coverage(model)) == 0

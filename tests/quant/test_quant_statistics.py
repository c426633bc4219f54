"""Figures by hand."""

import math

import pytest
import torch
from torch import nn

from nibble.quant.convert import prepare, set_precision
from nibble.quant.spec import Precision, QuantConfig, Range, Rule, WeightSpec
from nibble.quant.statistics import clipped_share, code_shares, sqnr_db, weight_statistics


def test_sqnr():
    x = torch.tensor([10.0, 0.0])
    assert sqnr_db(x, torch.tensor([9.0, 0.0])) == pytest.approx(20.0)
    assert sqnr_db(x, x) == math.inf
    assert sqnr_db(torch.zeros(2), x) == -math.inf


def test_sqnr_grows_by_six_db_a_bit():
    torch.manual_seed(0)
    layer = nn.Linear(512, 64)
    prepare(layer, QuantConfig("test", [Rule("**", WeightSpec(4))]))
    set_precision(layer, Precision.rules)
    four = weight_statistics(layer)["weight/sqnr_db"]
    set_precision(layer, Precision.int8)
    eight = weight_statistics(layer)["weight/sqnr_db"]
    assert (eight - four) / 4 == pytest.approx(6.02, abs=0.4)


def test_clipped_share():
    """Codes -7 ... 7: 7.4 rounds into the range, 7.6 and -9 do not."""
    x = torch.tensor([7.4, 7.6, -9.0, 0.0])
    assert clipped_share(x, torch.ones(1), 4, Range.narrow) == 0.5
    assert clipped_share(x[:0], torch.ones(1), 4, Range.narrow) == 0.0


def test_code_shares():
    codes = torch.tensor([[-1, 0], [0, 1]], dtype=torch.int8)
    assert code_shares(codes, 2, Range.narrow).tolist() == [0.25, 0.5, 0.25]
    assert code_shares(codes, 2, Range.full).tolist() == [0.0, 0.25, 0.5, 0.25]
    assert code_shares(codes[:0], 2, Range.narrow).tolist() == [0.0, 0.0, 0.0]


def test_weight_statistics():
    layer = nn.Linear(4, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[7.0, 3.0, -7.0, 0.0]]))
    prepare(layer, QuantConfig("test", [Rule("**", WeightSpec(4))]))
    assert weight_statistics(layer) == {}
    set_precision(layer, Precision.rules)
    assert weight_statistics(layer) == {
        "weight/sqnr_db": math.inf,
        "weight/clipped": 0.0,
        "weight/codes_used": pytest.approx(4 / 15),
    }

"""Products on a GPU, without one: which types are multiplied, and that products of codes are exact without integers."""

from types import SimpleNamespace

import pytest
import torch
from rounded import by_rule, first, gradients
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from nibble.quant import finite, linear_product
from nibble.quant.convert import freeze
from nibble.quant.layer import QuantizedLayer
from nibble.quant.spec import ActivationSpec, Arithmetic, Rule, WeightSpec
from nibble.quant.tensor import QuantizedTensor

PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward", "_int_mm"}
RULES = {
    "int4": Rule("**", WeightSpec(4), ActivationSpec(8)),
    "groups": Rule("**", WeightSpec(4, group_size=4), ActivationSpec(8)),
    "asymmetric": Rule("**", WeightSpec(4, symmetric=False), ActivationSpec(8)),
    "weights alone": Rule("**", WeightSpec(4)),
}


class Multiplied(TorchDispatchMode):
    """Collects the types of what is multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name.split("::")[1] in PRODUCTS:
            self.types |= {arg.dtype for arg in args if isinstance(arg, Tensor) and arg.dim() > 1}
        return func(*args, **kwargs or {})


@pytest.fixture
def without_values(monkeypatch):
    """Tensors on a GPU that is not there have no values to look at."""
    monkeypatch.setattr(finite, "_all_finite", lambda scale: True)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


LAYERS = {
    "linear": (lambda: nn.Linear(16, 8), (2, 3, 16)),
    "conv": (lambda: nn.Conv2d(4, 8, 3, stride=2), (2, 4, 9, 9)),
    "depthwise": (lambda: nn.Conv1d(4, 4, 3, padding=1, groups=4), (2, 4, 9)),
}
PHASES = [
    ("int4", Arithmetic.fake, 1.0),
    ("int4", Arithmetic.native, 0.5),
    ("int4", Arithmetic.fake, 0.5),
    ("int4", Arithmetic.noise, 1.0),
    ("weights alone", Arithmetic.native, 1.0),
]


@pytest.mark.parametrize(
    ("kind", "rule", "arithmetic", "blend"),
    [(kind, *phase) for kind in LAYERS for phase in PHASES] + [("linear", "groups", Arithmetic.fake, 1.0)],
)
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_nothing_is_multiplied_in_float32_on_a_gpu_under_autocast(without_values, kind, rule, arithmetic, blend):
    make, shape = LAYERS[kind]
    with torch.device("cuda"):
        layer = by_rule(make(), RULES[rule], arithmetic, blend)
    x = torch.empty(shape, device="cuda", requires_grad=True)
    with Multiplied() as seen, torch.autocast("cuda", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    one_operator = kind != "linear" and arithmetic is Arithmetic.fake and blend == 1  # a convolution of codes
    assert seen.types == (set() if one_operator else {torch.bfloat16})


@pytest.mark.parametrize("groups", [False, True])
def test_gradients_are_products_in_the_type_of_the_results(without_values, groups):
    def on_gpu(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="cuda")

    scale = on_gpu(8, 4, 1, dtype=torch.float32) if groups else on_gpu(8, 1, dtype=torch.float32)
    linear = on_gpu(6, 16, dtype=torch.int8), on_gpu(6, 1, dtype=torch.float32), on_gpu(8, 16, dtype=torch.int8), scale
    saved = SimpleNamespace(
        saved_tensors=linear, types=[torch.float32] * 3, shape=(2, 3, 16), needs_input_grad=(True, True, True)
    )
    with Multiplied() as seen:
        dx, dw, db = linear_product._IntegerLinear.backward(saved, on_gpu(6, 8, dtype=torch.bfloat16))[:3]
    assert (dx.shape, dw.shape, db.shape) == ((2, 3, 16), (8, 16), (8,))
    assert seen.types == {torch.bfloat16}


def test_without_autocast_values_are_multiplied_in_float32_on_a_gpu(without_values):
    with torch.device("cuda"):
        layer = by_rule(nn.Linear(16, 8), RULES["int4"], Arithmetic.native, 0.5)
    with Multiplied() as seen:
        assert layer(torch.empty(3, 16, device="cuda")).dtype == torch.float32
    assert seen.types == {torch.float32}


@pytest.fixture
def gpu_products(monkeypatch):
    """The fake arithmetic takes the way it takes on a GPU, with a product that a CPU has."""

    def float_sums(x: Tensor, weight: Tensor) -> Tensor:
        assert x.dtype == weight.dtype == torch.int8
        return (x.to(torch.bfloat16).float() @ weight.to(torch.bfloat16).float().t()).float()

    monkeypatch.setattr(QuantizedLayer, "_multiplies_codes", lambda self, weight: self.on_grid)
    monkeypatch.setattr(linear_product, "float_sums", float_sums)


@pytest.mark.parametrize("rule", ["int4", "groups", "asymmetric"])
@pytest.mark.parametrize("shape", [(3, 5, 16), (4, 16), (16,), (0, 16)])
def test_products_of_codes_in_float_are_those_of_integers(gpu_products, rule, shape):
    torch.manual_seed(0)
    layer, x = nn.Linear(16, 7), torch.randn(shape)
    fake, native = (by_rule(layer, RULES[rule], how) for how in (Arithmetic.fake, Arithmetic.native))
    torch.testing.assert_close(fake(x), native(x), rtol=1e-6, atol=1e-6)
    for one, other in zip(gradients(fake, x).values(), gradients(native, x).values(), strict=True):
        assert torch.equal(one, other)
    for model in (fake, native):
        freeze(model)
    torch.testing.assert_close(fake(x), native(x), rtol=1e-6, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("terms", [16, 1000])
def test_float_sums_on_a_gpu_are_exact(terms):
    x, weight = (torch.randint(-127, 128, (rows, terms), dtype=torch.int8).cuda() for rows in (33, 24))
    expected = x.cpu().long() @ weight.cpu().long().t()
    assert torch.equal(linear_product.float_sums(x, weight).cpu().long(), expected)


def test_values_are_rounded_once_to_the_type_asked_for():
    quantized = QuantizedTensor(torch.randint(-127, 128, (5, 8)).to(torch.int8), torch.rand(5, 1))
    assert torch.equal(quantized.dequantize(torch.bfloat16), quantized.dequantize().to(torch.bfloat16))


@pytest.mark.parametrize("make", [lambda: nn.Linear(6, 5), lambda: nn.LSTM(6, 5, batch_first=True)])
def test_a_result_may_be_changed_in_place(make):
    layer = by_rule(make(), RULES["int4"], Arithmetic.native)
    for shape in ((3, 4, 6), (1, 4, 6)):
        x = torch.randn(shape, requires_grad=True)
        first(layer(x)).mul_(2).sum().backward()
        assert x.grad.abs().sum() > 0

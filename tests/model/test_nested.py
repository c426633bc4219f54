"""Smaller networks within a larger one: as a network of that size alone, and gradients to the corner."""

from dataclasses import replace

import pytest
import torch
from tiny_transducer import FEATURES, MEL_BINS, tiny_config

from nibble.errors import UserError
from nibble.model.nested import NestedNetwork, corners, start_size_norms
from nibble.model.options import ConvolutionNorm, ModelConfig, SizeConfig
from nibble.model.transducer import Transducer

LABELS = 8
SIZES = [SizeConfig("middle", layers=2, feed_forward=0.5, heads=3), SizeConfig("small", 1, 0.25, 1, channels=6)]


def config_with(sizes: list[SizeConfig] = SIZES, **changes) -> ModelConfig:
    return tiny_config(heads=4, layers=3, sizes=sizes, **changes)


def network(config: ModelConfig, seed: int = 0) -> Transducer:
    torch.manual_seed(seed)
    made = Transducer(config, FEATURES, LABELS)
    for tensor in made.state_dict().values():  # norms and biases other than ones and zeros
        tensor += 0.1 * torch.rand_like(tensor) if tensor.is_floating_point() else 0
    return made


def alone(whole: Transducer, config: ModelConfig, size: str) -> Transducer:
    """A network of one size, with the weights that are cut out for it."""
    made = Transducer(config.at_size(size), FEATURES, LABELS)
    shapes = {name: tensor.shape for name, tensor in made.state_dict().items()}
    number = [one.name for one in config.sizes].index(size)
    made.load_state_dict(dict(corners(whole.state_dict(), shapes, number)))
    return made.train(whole.training)


def nested(whole: Transducer, config: ModelConfig, size: str) -> NestedNetwork:
    with torch.device("meta"):
        made = Transducer(config.at_size(size), FEATURES, LABELS)
    return NestedNetwork(whole, made, [one.name for one in config.sizes].index(size))


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.randn(2, 40, MEL_BINS), torch.tensor([40, 33]), torch.randint(1, LABELS, (2, 3)), torch.tensor([3, 2])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", list(ConvolutionNorm))
@pytest.mark.parametrize("size", ["middle", "small"])
def test_a_network_taken_out_computes_what_it_computed_within(batch, size, norm, training):
    config = config_with(convolution_norm=norm)
    whole = network(config).train(training)
    taken = alone(whole, config, size)
    with nested(whole, config, size).with_weights() as within:
        found = within(*batch)
    for own, other in zip(taken(*batch), found, strict=True):
        assert torch.equal(own, other)
    if training and norm is ConvolutionNorm.batch:  # the statistics that both have moved
        own = taken.encoder.blocks[0].convolution.batch_norm.running_mean
        number = ["middle", "small"].index(size)
        assert torch.equal(own, whole.encoder.blocks[0].convolution.size_norms[number].running_mean)


def test_gradients_reach_the_corner_alone_and_are_those_of_the_network_alone(batch):
    config = config_with()
    whole = network(config)
    taken = alone(whole, config, "small")
    with nested(whole, config, "small").with_weights() as within:
        within(*batch)[0].square().sum().backward()
    taken(*batch)[0].square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in whole.named_parameters() if parameter.grad is not None}
    shapes = {name: parameter.shape for name, parameter in taken.named_parameters()}
    for name, part in corners(gradients, shapes, 1):
        torch.testing.assert_close(part, taken.get_parameter(name).grad)
    for name, found in gradients.items():  # and nothing outside of the corner
        own = taken.get_parameter(name.replace("size_norms.1", "batch_norm")).grad
        torch.testing.assert_close(found.abs().sum(), own.abs().sum())
    assert not [name for name in gradients if name.startswith(("encoder.blocks.1.", "encoder.blocks.2."))]
    assert not [name for name in gradients if ".batch_norm." in name or ".size_norms.0." in name]


def test_the_gate_of_each_channel_that_is_kept_stays_its_own():
    """A gated linear unit has its gates in the second half of its outputs, not behind each value."""
    config = config_with()
    whole = network(config)
    taken = alone(whole, config, "small").encoder.blocks[0].convolution
    large, x = whole.encoder.blocks[0].convolution, torch.randn(1, 4, config.width)
    gated = torch.nn.functional.glu(large.pointwise1(large.norm(x)), dim=2)
    torch.testing.assert_close(torch.nn.functional.glu(taken.pointwise1(taken.norm(x)), dim=2), gated[..., :6])


def test_a_network_within_has_weights_only_while_it_is_used(batch):
    config = config_with()
    whole = network(config)
    small = nested(whole, config, "small")
    with small.with_weights():
        pass
    assert small.network.encoder.blocks[0].attention.query.weight.is_meta
    own = sum(parameter.numel() for parameter in whole.parameters())
    norms = [norm for block in whole.encoder.blocks for norm in block.convolution.size_norms]
    assert own == sum(p.numel() for p in network(config.whole).parameters()) + sum(2 * n.num_features for n in norms)
    with torch.no_grad():
        whole.encoder.blocks[0].attention.query.weight.add_(1)
    with small.with_weights() as within:
        corner = whole.encoder.blocks[0].attention.query.weight[:4]
        assert torch.equal(within.encoder.blocks[0].attention.query.weight, corner)


def test_norms_of_sizes_can_start_from_those_of_the_whole_network():
    whole = network(config_with())
    start_size_norms(whole)
    convolution = whole.encoder.blocks[0].convolution
    for name, tensor in convolution.size_norms[1].state_dict().items():
        expected = convolution.batch_norm.state_dict()[name]
        assert torch.equal(tensor, expected[:6] if expected.dim() else expected)


def test_the_whole_network_has_the_weights_that_it_has_without_sizes():
    config = config_with()
    whole, without = network(config), network(config.whole)
    assert without.state_dict().keys() <= whole.state_dict().keys()
    torch.manual_seed(0)
    drawn = Transducer(config, FEATURES, LABELS).state_dict()
    torch.manual_seed(0)
    for name, tensor in Transducer(config.whole, FEATURES, LABELS).state_dict().items():
        assert torch.equal(tensor, drawn[name]), name


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([SizeConfig("small", layers=4)], "small is not within the whole network: its layers"),
        ([SizeConfig("same")], "same is not within the whole network"),
        ([SizeConfig("a", layers=1), SizeConfig("b", layers=2)], "b is not within a: .* give the larger size first"),
        ([SizeConfig("a", layers=2), SizeConfig("a", layers=1)], "two are named a"),
    ],
)
def test_sizes_that_do_not_lie_in_one_another(sizes, message):
    with pytest.raises(UserError, match=message):
        config_with(sizes)


def test_other_wrong_sizes():
    with pytest.raises(UserError, match=r"model\.sizes: name='a b'; give a letter"):
        SizeConfig("a b")
    with pytest.raises(UserError, match=r"feed_forward=1\.5; give more than 0 and at most 1"):
        SizeConfig("a", feed_forward=1.5)
    with pytest.raises(UserError, match="tiny has no size=tall; it has: middle, small"):
        config_with().at_size("tall")
    with pytest.raises(UserError, match="of sizes layers and feed_forward"):
        config_with(chunk_frames=4)
    stream = config_with([SizeConfig("small", layers=1, feed_forward=0.5)], chunk_frames=4)
    assert stream.at_size("small").layers == 1
    assert replace(stream, sizes=[]).feed_forward_width == 64

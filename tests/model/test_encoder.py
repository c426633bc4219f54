import torch
from tiny_transducer import FEATURES, MEL_BINS, tiny_config

from nibble.model.conformer import ConformerEncoder


def test_output_is_zero_in_padding() -> None:
    torch.manual_seed(0)
    encoder = ConformerEncoder(tiny_config(), FEATURES)
    out, lengths = encoder(torch.randn(2, 60, MEL_BINS), torch.tensor([60, 30]))
    assert lengths.tolist() == [14, 6]
    assert out[1, 6:].abs().max() == 0
    assert out[1, :6].abs().min() > 0


def test_features_are_normalised_by_the_training_speech() -> None:
    torch.manual_seed(0)
    encoder = ConformerEncoder(tiny_config(), FEATURES)
    encoder.normalization.momentum = 1.0
    features = torch.randn(2, 60, MEL_BINS) * 4 - 8
    lengths = torch.tensor([60, 30])
    encoder(features, lengths)
    real = torch.cat((features[0], features[1, :30]))
    torch.testing.assert_close(encoder.normalization.running_mean, real.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(encoder.normalization.running_var, real.var(0), atol=1e-4, rtol=1e-4)


def test_every_convolution_and_product_sees_zeros_in_padding() -> None:
    """So that an activation scale taken over an utterance is that of its real frames."""
    torch.manual_seed(0)
    encoder = ConformerEncoder(tiny_config(), FEATURES).eval()
    alone, batched = {}, {}
    for target, frames in ((alone, 33), (batched, 80)):
        features = torch.zeros(1, frames, MEL_BINS)
        features[:, :33] = torch.randn(33, MEL_BINS, generator=torch.Generator().manual_seed(1)) * 4 - 8
        hooks = [
            module.register_forward_pre_hook(lambda _, args, name=name, target=target: target.update({name: args[0]}))
            for name, module in encoder.named_modules()
            if isinstance(module, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d)
        ]
        encoder(features, torch.tensor([33]))
        for hook in hooks:
            hook.remove()
    assert alone.keys() == batched.keys()
    for name in alone:
        torch.testing.assert_close(batched[name].abs().max(), alone[name].abs().max(), msg=name)

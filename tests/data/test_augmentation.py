"""Masks: how long they may be, that a seed repeats them, and that nothing else is touched."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nibble.data.augmentation import spec_augment
from nibble.data.options import SpecAugmentConfig


def masked(features: torch.Tensor, config: SpecAugmentConfig, seed: int) -> torch.Tensor:
    """(T, F) bool: where the result is the mean and not what it was."""
    out = spec_augment(features, config, seed)
    changed = out != features
    assert torch.all(out[changed] == float(features.mean()))
    return changed


@settings(max_examples=60, deadline=None)
@given(frames=st.integers(1, 300), seed=st.integers(0, 2**62), share=st.sampled_from([0.02, 0.1, 1.0]))
def test_one_time_mask_is_short_enough(frames: int, seed: int, share: float) -> None:
    features = torch.randn(frames, 20)
    config = SpecAugmentConfig(time_masks=1, max_time_frames=30, max_time_share=share)
    rows = masked(features, config, seed).all(dim=1).nonzero().flatten().tolist()
    assert len(rows) <= min(30, share * frames)
    assert rows == list(range(rows[0], rows[0] + len(rows))) if rows else True


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**62))
def test_one_frequency_mask_is_narrow_enough(seed: int) -> None:
    changed = masked(torch.randn(50, 80), SpecAugmentConfig(frequency_masks=1, max_frequency_bins=15), seed)
    columns = changed.all(dim=0).nonzero().flatten().tolist()
    assert len(columns) < 15
    assert changed.sum() == 50 * len(columns)


def test_masks_are_drawn() -> None:
    config = SpecAugmentConfig(time_masks=2, frequency_masks=2)
    features = torch.randn(200, 80)
    shares = [masked(features, config, seed).float().mean().item() for seed in range(20)]
    assert len(set(shares)) > 15
    assert 0.1 < sum(shares) / 20 < 0.5


def test_a_seed_repeats_its_masks_and_leaves_torchs_random_state() -> None:
    config = SpecAugmentConfig(time_masks=2, frequency_masks=2)
    features = torch.randn(200, 80)
    before = torch.random.get_rng_state()
    first = spec_augment(features, config, seed=7)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(3)
    assert torch.equal(first, spec_augment(features, config, seed=7))


def test_no_masks() -> None:
    features = torch.randn(10, 80)
    assert torch.equal(features, spec_augment(features, SpecAugmentConfig(), seed=0))

"""Simulates weights that are programmed into tiles of phase-change memory (PCM). Nothing here was measured on a chip.

A tile holds up to `tile` x `tile` weights, each as the difference of two conductances, one of which is 0. With
g = |w| over the largest weight of the tile, and n, m, k drawn from N(0, 1) for each conductance:

    programmed  g_p = max(g + noise sigma(g) n, 0)          sigma(g) = c0 + c1 g + c2 g^2
    drifted     g_d = g_p ((t + t_0) / t_0)^-v              v = drift |mean(g) + spread(g) m|
    read        g_r = max(g_d (1 + noise q(g_p) k), 0)      q(g) = Q(g) sqrt(log((t + t_0) / 2 t_r))

    Q(g) = min(0.0088 / g^0.65, 0.2)
    mean(g) = 0.0244 - 0.0155 log g within 0.049 ... 0.1    spread(g) = -0.0059 - 0.0125 log g within 0.008 ... 0.045

t is `after_s`, t_0 = 20 s the time of the first reading, t_r = 250 ns that of one reading. In the end one factor for
each tile restores the sum of its conductances to what it was when they were programmed (global drift compensation).

Equations and constants: Nandakumar et al. (2019, ICECS, "Phase-change memory models for deep learning training and
inference") and Joshi et al. (2020, Nature Communications 11, 2473), in the form of IBM's aihwkit. A simplification of
ours: noise of reading is drawn once, with the weights, and not anew for each product.
"""

import math
import zlib
from collections.abc import Callable

import torch
from torch import Tensor

from nibble.quant.analog_spec import AnalogSpec

_FIRST_READ_S = 20.0  # t_0
_READING_S = 250e-9  # t_r
_LEAST = 1e-7  # conductance whose logarithm is taken


def in_training(weight: Tensor, spec: AnalogSpec) -> Tensor:
    """A weight (N, ...) just after it was programmed, with new noise at each call."""
    return _by_tile(weight, spec, lambda pairs: _programmed(pairs, spec, spec.training_noise, None))


def in_use(weight: Tensor, spec: AnalogSpec, name: str, draw: int) -> Tensor:
    """A weight (N, ...) as it is `after_s` after it was programmed.

    Args:
        weight: exact.
        spec: of its layer.
        name: of the weight; each has random numbers of its own.
        draw: the number of the chip, the same for all weights; it gives the same result each time.
    """
    random = torch.Generator(weight.device).manual_seed(zlib.crc32(f"{name} {draw}".encode()))
    return _by_tile(weight, spec, lambda pairs: _used(pairs, spec, random))


def inputs_of_tile(weight: Tensor, spec: AnalogSpec) -> int:
    """How many inputs of a weight (N, K, ...) share a tile: a channel takes a row for each place of the filter."""
    return max(1, spec.tile // max(1, math.prod(weight.shape[2:])))


def largest_of_tiles(weight: Tensor, spec: AnalogSpec) -> Tensor:
    """The largest magnitude in each output's tile, for a weight whose inputs share one: (N,)."""
    return torch.cat([part.abs().amax().expand(len(part)) for part in weight.split(spec.tile)])


def _by_tile(weight: Tensor, spec: AnalogSpec, simulate: Callable[[Tensor], Tensor]) -> Tensor:
    """Replace the pairs of conductances (2, N, K, ...) of each tile, which are 0 to 1."""

    def of(tile: Tensor) -> Tensor:
        largest = tile.abs().amax()
        scaled = tile / largest.clamp(min=torch.finfo(tile.dtype).tiny)
        plus, minus = simulate(torch.stack([scaled.clamp(min=0), (-scaled).clamp(min=0)]))
        return (plus - minus) * largest

    inputs = inputs_of_tile(weight, spec)
    return torch.cat([torch.cat([of(tile) for tile in rows.split(inputs, 1)], 1) for rows in weight.split(spec.tile)])


def _programmed(pairs: Tensor, spec: AnalogSpec, noise: float, random: torch.Generator | None) -> Tensor:
    constant, linear, square = spec.programming
    deviation = (constant + linear * pairs + square * pairs.square()).clamp(min=0)
    return (pairs + noise * deviation * _normal(pairs, random)).clamp(min=0)


def _used(pairs: Tensor, spec: AnalogSpec, random: torch.Generator) -> Tensor:
    programmed = _programmed(pairs, spec, spec.noise, random)
    logarithm = pairs.clamp(min=_LEAST).log()
    mean = (0.0244 - 0.0155 * logarithm).clamp(0.049, 0.1)
    spread = (-0.0059 - 0.0125 * logarithm).clamp(0.008, 0.045)
    exponent = spec.drift * (mean + spread * _normal(pairs, random)).abs()
    since_s = spec.after_s + _FIRST_READ_S
    drifted = programmed * (since_s / _FIRST_READ_S) ** -exponent
    flicker = (0.0088 / programmed.clamp(min=_LEAST) ** 0.65).clamp(max=0.2)
    flicker *= math.sqrt(math.log(since_s / (2 * _READING_S)))
    read = (drifted * (1 + spec.noise * flicker * _normal(pairs, random))).clamp(min=0)
    return read * (programmed.sum() / read.sum().clamp(min=_LEAST))


def _normal(like: Tensor, random: torch.Generator | None) -> Tensor:
    return torch.empty_like(like).normal_(generator=random)

"""Low-rank factorisation: a matrix as the product of two thin ones, before anything is quantized.

    W (N, K)  ~  second first        first (r, K), second (N, r)
    W = U S V^T,   second = U_r S_r^(1/2),   first = S_r^(1/2) V_r^T

No matrix of rank r is nearer to W in the Frobenius norm (Eckart and Young, 1936); speech networks are compressed so
since Xue et al. (2013). The singular values are split evenly, so both factors have the same norm.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, skip_init

from nibble.errors import UserError, nearest
from nibble.quant.quantized_type import quantized_type
from nibble.quant.rules import matches
from nibble.quant.spec import LowRank


class LowRankLinear(nn.Module):
    """(..., K) -> (..., N) through r values: `first` (r, K) without bias, then `second` (N, r) with the layer's."""

    in_features: int  # K
    out_features: int  # N
    first: nn.Linear
    second: nn.Linear

    @property
    def rank(self) -> int:
        """r."""
        return self.first.out_features

    def forward(self, input: Tensor) -> Tensor:
        """input (..., K) -> (..., N)."""
        out: Tensor = self.second(self.first(input))
        return out


def factorize(model: nn.Module, rules: list[LowRank]) -> None:
    """Make each `nn.Linear` that a rule wins a `LowRankLinear`, in place, from the weights it has.

    The modules stay the same objects; their parameters are new ones, so this comes before an optimizer. A weight that
    another module shares stays there as it is. A model that these rules factorized before stays as it is.

    Raises:
        UserError: a rule wins no Linear, a share fits no rank of a layer that saves parameters, a weight is not
            finite, or the model is factorized by other rules.
    """
    ranks = _ranks(model, rules)
    present = {name: module.rank for name, module in low_rank_modules(model).items()}
    if present and present != ranks:
        name = min(present.items() ^ ranks.items())[0]
        raise UserError(
            f"the model is factorized already, and by other rules: {name} has rank {present.get(name, 'full')}, "
            f"quant.low_rank asks for {ranks.get(name, 'full')}; leave quant.low_rank out, or give the rules it has"
        )
    if not present:
        for name, rank in ranks.items():
            _split(name, model.get_submodule(name), rank)


def low_rank_modules(model: nn.Module) -> dict[str, LowRankLinear]:
    """Name -> module, for each module that `factorize` made."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LowRankLinear)}


def _ranks(model: nn.Module, rules: list[LowRank]) -> dict[str, int]:
    """Name -> rank, for each layer that a rule wins."""
    layers = _layers(model)
    won: dict[str, int] = {}
    for number, rule in enumerate(rules, 1):
        matched = [name for name in layers if matches(rule.match, name)]
        new = [name for name in matched if name not in won]
        if not new:
            why = f"nearest: {nearest(rule.match, layers) or 'none'}"
            why = f"earlier rules take {nearest(rule.match, matched)}" if matched else why
            raise UserError(f"quant.low_rank {number}: match={rule.match!r} wins no Linear layer; {why}")
        won |= {name: _rank(name, layers[name], rule) for name in new}
    return won


def _layers(model: nn.Module) -> dict[str, nn.Linear | LowRankLinear]:
    """The layers that rules can match: every Linear, and a factorized layer in place of its two factors."""
    found: dict[str, nn.Linear | LowRankLinear] = {}
    factors: set[nn.Module] = set()
    for name, module in model.named_modules():
        if isinstance(module, LowRankLinear):
            found[name] = module
            factors |= {module.first, module.second}
        elif isinstance(module, nn.Linear) and module not in factors and quantized_type(type(module)):
            found[name] = module  # not the output of nn.MultiheadAttention, which uses the weight without the layer
    return found


def _rank(name: str, layer: nn.Linear | LowRankLinear, rule: LowRank) -> int:
    rows, columns = layer.out_features, layer.in_features
    full = min(rows, columns)
    rank = int(rule.share * full + 1e-9)  # 0.29 x 100 is a little below 29
    highest = (rows * columns - 1) // (rows + columns)  # the largest r with r (N + K) < N K
    if 1 <= rank <= highest:
        return rank
    why = f"is rank {rank}" if rank < 1 else f"is rank {rank}, which saves nothing (at most {highest} does)"
    share = math.ceil((1 if rank < 1 else highest) / full * 10_000) / 10_000
    cure = f"nearest share: {share:g}" if highest else "no rank saves anything, so let no rule match this layer"
    raise UserError(f"quant.low_rank: {name} ({rows}, {columns}): share={rule.share:g} of {full} {why}; {cure}")


@torch.no_grad()
def _split(name: str, layer: nn.Module, rank: int) -> None:
    """Give a Linear two factors in place of its weight."""
    assert isinstance(layer, nn.Linear)
    if parametrize.is_parametrized(layer):
        raise UserError(f"quant.low_rank: {name} has a parametrized weight; remove that first, or match it by no rule")
    weight, bias = layer.weight, layer.bias
    try:
        left, values, right = torch.linalg.svd(weight.float(), full_matrices=False)
    except torch.linalg.LinAlgError as error:
        raise UserError(f"quant.low_rank: {name} cannot be factorized: {error}; give another checkpoint") from error
    root = values[:rank].sqrt()
    like = {"device": weight.device, "dtype": weight.dtype}
    first = skip_init(nn.Linear, layer.in_features, rank, bias=False, **like)
    second = skip_init(nn.Linear, rank, layer.out_features, bias=bias is not None, **like)
    first.weight.copy_(root.unsqueeze(1) * right[:rank])
    second.weight.copy_(left[:, :rank] * root)
    if bias is not None:
        second.bias.copy_(bias)
    del layer.weight, layer.bias
    layer.__class__ = LowRankLinear  # type: ignore[assignment]
    layer.first, layer.second = first, second
    layer.train(layer.training)

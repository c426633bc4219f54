"""Writes an assignment of bits as a few rules, in a file for `train.py`."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from nibble.quant.rules import matches
from nibble.quant.spec import ActivationSpec, Arithmetic, QuantConfig, Rule, WeightSpec


def rules_of(assignment: Mapping[str, int], look_ups: Collection[str] = ()) -> list[Rule]:
    """Few rules that give each layer its bits, and 8 to its activations.

    The last rule is for all layers, at the commonest width. Each rule before it names layers of one width only, so
    their order is free; the next is always the one that names most of the layers that are left.

    Args:
        assignment: layer -> bits, for every layer of a model that can be quantized.
        look_ups: layers without activations (embeddings).
    """
    common = Counter(assignment.values()).most_common(1)[0][0]
    left = {layer for layer, bits in assignment.items() if bits != common}
    rules = []
    while left:
        new = {pattern: _named(pattern, assignment) & left for layer in left for pattern in _patterns(layer)}
        pattern = min(new, key=lambda each: (-len(new[each]), each))
        named = _named(pattern, assignment)
        bits = assignment[next(iter(named))]
        rules.append(Rule(pattern, WeightSpec(bits=bits), None if named <= set(look_ups) else ActivationSpec()))
        left -= named
    return [*rules, Rule("**", WeightSpec(bits=common), ActivationSpec())]


def as_yaml(quant: QuantConfig, comments: Collection[str]) -> str:
    """conf/quant/<name>.yaml for weights of so many bits and activations of 8, with comments above."""
    lines = [f"# {comment}" for comment in comments]
    lines += [f"name: {quant.name}", "rules:"]
    for rule in quant.rules:
        assert rule.weight is not None
        activation = "" if rule.activation is None else f", activation: {{bits: {rule.activation.bits}}}"
        lines.append(f'  - {{match: "{rule.match}", weight: {{bits: {rule.weight.bits}}}{activation}}}')
    if quant.arithmetic is not Arithmetic.native:
        lines.append(f"arithmetic: {quant.arithmetic.value}")
    if quant.low_rank:
        lines.append("low_rank:")
        lines += [f'  - {{match: "{factor.match}", share: {factor.share}}}' for factor in quant.low_rank]
    return "\n".join(lines) + "\n"


def _named(pattern: str, assignment: Mapping[str, int]) -> set[str]:
    """The layers that a pattern matches; none if they have different widths."""
    named = {layer for layer in assignment if matches(pattern, layer)}
    return named if len({assignment[layer] for layer in named}) == 1 else set()


def _patterns(layer: str) -> Iterator[str]:
    """Patterns that match a layer: alone or with everything below one of its parents, in its block or in all blocks."""
    for parts in (layer.split("."), ["*" if part.isdigit() else part for part in layer.split(".")]):
        yield ".".join(parts)
        for length in range(1, len(parts)):
            yield ".".join(parts[:length]) + ".**"

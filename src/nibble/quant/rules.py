"""Finds the rule that applies to each module, and the parameters that the rules quantize."""

import re
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.utils import parametrize

from nibble.errors import UserError, nearest
from nibble.quant.layer import QuantizedLayer
from nibble.quant.quantized_type import quantized_type, why_not
from nibble.quant.spec import Rule

FLOAT_BITS = 16  # of the parameters that are not quantized, as stored


class Covered(NamedTuple):
    """One parameter, and the bits of each of its elements when it is frozen at the precision of the rules."""

    name: str
    elements: int
    bits: int


def assign(model: nn.Module, rules: list[Rule]) -> dict[str, Rule]:
    """Module name -> the first rule that matches it, for every module of `model` that can be quantized.

    A module that no rule matches is left out, and stays in float as under a rule without specs. A rule with an
    activation may match modules that take none (embeddings) along with others; alone they make it an error.

    Raises:
        UserError: a rule wins no module, or asks for what its modules cannot do.
    """
    names = [name for name, module in model.named_modules() if _quantizable(module)]
    won: dict[str, Rule] = {}
    for number, rule in enumerate(rules, 1):
        matched = [name for name in names if matches(rule.match, name)]
        new = [name for name in matched if name not in won]
        if not new:
            raise UserError(f"quant rule {number}: {_why_unused(model, rule, names, matched)}")
        won.update(dict.fromkeys(new, rule))
        _check_activation(model, number, rule, matched)
        _check_supported(model, number, rule, new)
    return {name: won[name] for name in names if name in won}


def matches(pattern: str, name: str) -> bool:
    """Whether a glob matches a dotted name: `*` stays within a part, `**` crosses dots, `**.x` matches `x` too.

    Of several globs with `|` between them, whether one does.
    """
    if "|" in pattern:
        return any(matches(one, name) for one in pattern.split("|"))
    if "*" not in pattern:
        return pattern == name
    # All places of the name that the pattern so far can end at: a regular expression would try them one by one, which
    # takes years for some patterns.
    ends = {0}
    for part in re.findall(r"\*\*\.|\*\*|\*|[^*]+", pattern):
        if not ends:
            return False
        first = min(ends)
        if part == "**":
            ends = set(range(first, len(name) + 1))
        elif part == "**.":
            ends |= {place + 1 for place in range(first, len(name)) if name[place] == "."}
        elif part == "*":
            ends = {place for end in ends for place in range(end, end + len(name[end:].partition(".")[0]) + 1)}
        else:
            ends = {end + len(part) for end in ends if name.startswith(part, end)}
    return len(name) in ends


def coverage(model: nn.Module) -> list[Covered]:
    """The bits of each parameter of a prepared model, whatever its present precision; frozen weights included.

    A parameter that several modules share is counted once, except in quantized modules: each has codes of its own.
    """
    found: list[Covered] = []
    counted: set[int] = set()
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, QuantizedLayer) and module.rule.weight is not None:
            frozen = module.frozen_weights()
            for weight in module.weight_names:
                elements = (frozen[weight].codes if frozen else getattr(module, weight)).numel()
                bits = module.weight_bits if frozen else module.rule.weight.bits
                found.append(Covered(prefix + weight, elements, bits or FLOAT_BITS))
                # The parameters from which weight_norm and the like compute the weight are gone when it is frozen.
                hidden = parametrize.is_parametrized(module, weight)
                sources = module.get_submodule(f"parametrizations.{weight}").parameters() if hidden else ()
                counted.update(id(source) for source in (module._parameters.get(weight), *sources))
        for parameter_name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in counted and not parameter_name.endswith("_log_scale"):  # becomes part of a scale
                counted.add(id(parameter))
                found.append(Covered(prefix + parameter_name, parameter.numel(), FLOAT_BITS))
    return found


def quantized_share(covered: list[Covered]) -> float:
    """The share of parameters that become integers."""
    total = sum(part.elements for part in covered)
    return sum(part.elements for part in covered if part.bits != FLOAT_BITS) / total if total else 0.0


def _quantizable(module: nn.Module) -> bool:
    return isinstance(module, QuantizedLayer) or quantized_type(type(module)) is not None


def _takes_activation(module: nn.Module) -> bool:
    layer = type(module) if isinstance(module, QuantizedLayer) else quantized_type(type(module))
    return layer is not None and issubclass(layer, QuantizedLayer) and layer.takes_activation


def _why_unused(model: nn.Module, rule: Rule, names: list[str], matched: list[str]) -> str:
    if matched:
        return (
            f"match={rule.match!r} never applies: earlier rules take all it matches ({_few(matched)}); "
            "put it before them or remove it"
        )
    others = [name for name, _ in model.named_modules() if matches(rule.match, name)]
    if others:
        kinds = {type(model.get_submodule(name)).__name__ for name in others}
        return (
            f"match={rule.match!r} matches only modules that cannot be quantized ({_few(others)}: "
            f"{', '.join(sorted(kinds))}); nearest that can: {nearest(rule.match, names)}"
        )
    return f"match={rule.match!r} matches no module; nearest: {nearest(rule.match, names) or 'none can be quantized'}"


def _check_activation(model: nn.Module, number: int, rule: Rule, matched: list[str]) -> None:
    if rule.activation is not None and not any(_takes_activation(model.get_submodule(name)) for name in matched):
        raise UserError(
            f"quant rule {number}: match={rule.match!r} asks for an activation, but {_few(matched)} "
            f"take{'s' if len(matched) == 1 else ''} none (a look-up is no product); remove activation from this rule"
        )


def _check_supported(model: nn.Module, number: int, rule: Rule, won: list[str]) -> None:
    if rule.is_float:
        return
    for name in won:
        module = model.get_submodule(name)
        layer = quantized_type(type(module))
        reason = _unsupported(layer, module, rule) if layer is not None else None
        if reason is not None:
            raise UserError(
                f"quant rule {number}: {name} ({type(module).__name__}) cannot be quantized with {reason}; "
                f'to leave it in float, put {{match: "{name}"}} first'
            )


def _unsupported(layer: type[QuantizedLayer], module: nn.Module, rule: Rule) -> str | None:
    """Why a float module cannot become this quantized layer as the rule says; None if it can."""
    if (reason := why_not(module, layer.weight_names)) is not None:
        return reason
    if rule.analog is not None and not layer.takes_activation:
        return "analog (a look-up is no product)"
    if rule.analog is not None and getattr(module, "groups", 1) > 1:
        return "analog (filters that hear some of the channels leave most of a tile empty)"
    for option, value in layer.supported_options.items():
        found = getattr(module, option)
        if isinstance(found, Tensor) or found != value:
            shown = "a parameter" if isinstance(found, Tensor) else found
            return f"{option}={shown} (only {option}={value} is supported)"
    for name in layer.weight_names:
        weight: Tensor = getattr(module, name)
        inputs = weight[0].numel()
        if rule.weight is not None and (size := rule.weight.group_size) is not None:
            if weight.dim() != 2:
                return f"group_size={size} (a convolution has one scale a channel: group_size=null)"
            if inputs % size:
                divisor = _divisor(inputs, size)
                return f"group_size={size}, which does not divide its K={inputs} (nearest that does: {divisor})"
        if rule.sparsity is not None and inputs % rule.sparsity.of:
            of, legal = rule.sparsity.of, [m for m in range(2, 17) if inputs % m == 0]
            closest = min(legal, key=lambda m: abs(m - of)) if legal else "none: leave sparsity out"
            return f"sparsity of={of}, which does not divide its K={inputs} (nearest that does: {closest})"
    return None


def _divisor(number: int, near: int) -> int:
    """The divisor of `number` nearest to `near`."""
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda divisor: abs(divisor - near))


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

"""How the specs of a rule change with the precision that the schedule asks for."""

from dataclasses import replace

from nibble.quant.spec import ActivationSpec, Precision, Range, WeightSpec


def weight_spec_at(precision: Precision, spec: WeightSpec | None) -> WeightSpec | None:
    """A weight's spec at a precision: None in float, the spec itself at `rules`, else the spec with other bits.

    The scale of other bits is their default, and is not learned.
    """
    if spec is None or precision is Precision.float:
        return None
    if precision is Precision.rules:
        return spec
    bits = int(precision.value.removeprefix("int"))
    symmetric = spec.symmetric or not 2 <= bits <= 7
    range_ = Range.narrow if bits == 1 else spec.range
    return replace(spec, bits=bits, scale=None, learned=False, symmetric=symmetric, range=range_)


def activation_spec_at(precision: Precision, spec: ActivationSpec | None) -> ActivationSpec | None:
    """An activation's spec at a precision: None in float, 8 bits at int8, else the spec itself."""
    if spec is None or precision is Precision.float:
        return None
    return replace(spec, bits=8) if precision is Precision.int8 else spec

"""torch.compile on the float steps between products: fewer kernels on a GPU, where each launch costs time.

A quantized layer runs as it is, so its integers stay those of the operators. What lies between two of them (norm and
mask, gated linear unit, batch norm and SiLU, dropout and residual) becomes one kernel each.
"""

import torch

from nibble.model.transducer import Transducer
from nibble.quant.convert import quantized_modules


def compile_blocks(model: Transducer, backend: str = "inductor") -> None:
    """Compile each Conformer block when it is first called, in place; one compilation serves all lengths.

    Args:
        model: a model whose layers are prepared for quantization, or one in float.
        backend: of torch.compile.
    """
    for kind in {type(layer) for layer in quantized_modules(model).values()}:
        if not hasattr(kind.forward, "_torchdynamo_disable"):
            # Of the type, not of the layer: a copy of a layer must not call the forward of its original.
            kind.forward = torch.compiler.disable(kind.forward)
    for block in model.encoder.blocks:
        block.compile(backend=backend, dynamic=True)

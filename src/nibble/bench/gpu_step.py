"""Saves and compares the loss and gradients of one step of conformer_l on a GPU, with the kernels that are loaded.

python -m nibble.bench.gpu_step save native.pt
NIBBLE_KERNELS=reference python -m nibble.bench.gpu_step save reference.pt
python -m nibble.bench.gpu_step compare native.pt reference.pt
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from nibble import stopping
from nibble.bench.train_step_gpu import MODEL, GpuStep

# Codes and sums of a product are the same integers. Float steps between them may be summed in another order, which
# moves a value across the middle between two codes now and then.
LOSS_DIFFERS = 1e-3  # relative
LEAST_COSINE = 0.999  # cosine of the angle between both gradients over all parameters


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 1 if the two steps differ by more than rounding."""
    parser = argparse.ArgumentParser(
        prog="python -m nibble.bench.gpu_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("save", "compare"))
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    if options.what == "save":
        torch.save(one_step(), options.files[0])
        return 0
    found = [torch.load(file, weights_only=True) for file in options.files]
    wrong = differences(found[0], found[1])
    print("\n".join(wrong) if wrong else "same loss and gradients, except for rounding")
    return int(bool(wrong))


def one_step() -> dict[str, Tensor]:
    """ "loss", and the gradient of each parameter under its name, on the CPU."""
    step = GpuStep(MODEL, "int4")
    loss = step.loss()
    loss.backward()
    gradients = {name: x.grad for name, x in step.model.named_parameters() if x.grad is not None}
    return {name: x.detach().float().cpu() for name, x in {"loss": loss, **gradients}.items()}


def differences(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """The differences of two steps, in words; empty if they are rounding alone."""
    if one.keys() != other.keys():
        return [f"gradients of other parameters: {sorted(one.keys() ^ other.keys())[:5]}"]
    wrong = [f"{name}: not finite" for name in one if not (one[name].isfinite().all() and other[name].isfinite().all())]
    if wrong:
        return wrong
    a, b = float(one["loss"]), float(other["loss"])
    print(f"loss {a:.6f} and {b:.6f}")
    if abs(a - b) > LOSS_DIFFERS * abs(b):
        wrong.append(f"the losses {a:.6f} and {b:.6f} differ by more than {LOSS_DIFFERS:g} of it")
    names = [name for name in one if name != "loss"]
    whole = [torch.cat([step[name].flatten().double() for name in names]) for step in (one, other)]
    cosine = float(torch.nn.functional.cosine_similarity(whole[0], whole[1], 0))
    print(f"cosine of the angle between gradients {cosine:.6f}, norms {whole[0].norm():.5g} and {whole[1].norm():.5g}")
    if cosine < LEAST_COSINE:
        wrong.append(f"the cosine between gradients is {cosine:.6f}, below {LEAST_COSINE}")
        apart = {name: float((one[name] - other[name]).norm() / (other[name].norm() + 1e-12)) for name in names}
        worst = sorted(apart, key=lambda name: -apart[name])[:5]
        wrong += [f"{name}: apart by {apart[name]:.3f} of its norm" for name in worst]
    return wrong


if __name__ == "__main__":
    stopping.run(main)

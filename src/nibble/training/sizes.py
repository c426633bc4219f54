"""Trains the smaller sizes of a network in the steps that train the whole one: `model.sizes`.

Sandwich rule (Yu and Huang, 2019, arXiv 1903.05134, section 3.1): each step trains the whole network, its smallest
size and one that is drawn from those between. They share the step's precision, so a run with `schedule=together` meets
every size at every precision.

The whole network teaches the smaller ones in place (the same paper, section 3.2): they learn the labels, and to match
its output of the same step. Here that is the encoder's output, which one joiner takes from all sizes. This choice is
ours; Li et al. (2024, arXiv 2406.10160), who train Conformers of many depths, widths and precisions in one run, are
what it is to be compared with.
"""

import random
from collections.abc import Iterator

from nibble.config import Config
from nibble.model.nested import NestedNetwork
from nibble.model.transducer import Transducer
from nibble.quant.convert import prepare, quantized_modules
from nibble.quant.weights_at_once import quantize_at_once
from nibble.shapes import shapes_only
from nibble.training.distillation import encoder_match
from nibble.training.losses import Encoded, Found, Loss, encode


class SmallerSizes:
    """The smaller sizes of a network in training.

    Args:
        whole: the network, prepared for quantization if it is to be quantized.
        config: of the run; `config.model.sizes` has at least one.
        vocabulary_size: V, blank included.
        objective: what a size minimises before it is taught.
    """

    def __init__(self, whole: Transducer, config: Config, vocabulary_size: int, objective: Loss) -> None:
        self.whole = whole
        self.objective = objective
        self.taught = config.distill.encoder_weight
        self.networks: dict[str, NestedNetwork] = {}
        for number, size in enumerate(config.model.sizes):
            with shapes_only():
                network = Transducer(config.model.at_size(size.name), config.features, vocabulary_size)
                prepare(network, config.quant)
            self.networks[size.name] = NestedNetwork(whole, network, number)

    def drawn(self, step: int) -> list[str]:
        """The sizes that an optimizer step trains. They depend on the step alone, as its precision does."""
        *between, smallest = self.networks
        return [smallest, *random.Random(f"size of step {step}").sample(between, min(1, len(between)))]

    def losses(self, encoded: Encoded, step: int) -> Iterator[tuple[str, Found]]:
        """The name and the loss of each size of a step.

        Args:
            encoded: the batch, as the whole network has heard it.
            step: optimizer steps before this one.
        """
        for name in self.drawn(step):
            with self.at_precision(name).with_weights() as network:
                quantize_at_once(network)
                heard = encode(network, encoded.batch, encoded.labels)
                found = self.objective(network, heard)
                if not self.taught:
                    yield name, found
                    continue
                match = encoder_match(heard.output, encoded.output.detach(), heard.lengths)
                yield name, Found(found.loss + self.taught * match, found.terms | {"encoder_match": match})

    def at_precision(self, name: str) -> NestedNetwork:
        """The network of a size, at the precision that the whole one is at."""
        layers = quantized_modules(self.whole)
        for layer_name, layer in quantized_modules(self.networks[name].network).items():
            whole = layers[layer_name]
            if layer is not whole:
                layer.set_precision(whole.precision, whole.blend)
                layer.scales_frozen = whole.scales_frozen
        return self.networks[name]

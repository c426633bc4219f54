"""The options of the network: `model=`."""

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum

from omegaconf import MISSING

from nibble.errors import UserError
from nibble.ranges import COUNT, POSITIVE, Range, check

MAX_ATTENDED_FRAMES = 1_000  # of a streaming model: a configuration from anywhere must not exhaust memory


class SubsamplingKind(StrEnum):
    """The strided convolutions between features and blocks."""

    conv = "conv"  # Gulati et al. (2020): two 3x3 convolutions without padding
    padded = "padded"  # the same with a frame of zeros on each side, as NeMo's Conformers
    depthwise = "depthwise"  # Rekesh et al. (2023), FastConformer: padded, depthwise-separable after the first


class ConvolutionNorm(StrEnum):
    """The norm after the depthwise convolution of a block."""

    batch = "batch"  # Gulati et al. (2020)
    layer = "layer"  # icefall, and NeMo's streaming models


class Predictor(StrEnum):
    """The label side of the transducer."""

    lstm = "lstm"  # Graves (2012)
    stateless = "stateless"  # Ghodsi et al. (2020): the last `context` labels
    stateless_linear = "stateless_linear"  # the same without ReLU, as icefall's transducer_stateless
    none = "none"  # a CTC network (Graves et al., 2006): one Linear on the encoder, trained with CTC alone


class Activation(StrEnum):
    """What follows the sum in the joiner."""

    tanh = "tanh"
    relu = "relu"  # NeMo


class FoundationKind(StrEnum):
    """Whose encoder of raw samples."""

    wav2vec2 = "wav2vec2"  # Baevski et al. (2020)
    hubert = "hubert"  # Hsu et al. (2021)


@dataclass
class FoundationConfig:
    """`model.foundation`: an encoder of transformers, as its checkpoints describe it.

    Its sizes are width, layers, heads and feed_forward_multiplier of `model`, and each dropout in it is model.dropout.
    """

    kind: FoundationKind = MISSING
    channels: list[int] = field(default_factory=lambda: [512] * 7)  # of each convolution over samples
    kernels: list[int] = field(default_factory=lambda: [10, 3, 3, 3, 3, 2, 2])  # of each, in frames of the one before
    strides: list[int] = field(default_factory=lambda: [5, 2, 2, 2, 2, 2, 2])  # of each; 320 samples in all are 20 ms
    bias: bool = False  # of the convolutions
    layer_norm: bool = False  # after each convolution (Large); false: after the first, over time (Base)
    norm_first: bool = False  # before attention and feed-forward (Large); false: after them (Base)
    position_kernel: int = 128  # of the convolution that says where a frame is
    position_groups: int = 16  # of the same; they divide the width

    def __post_init__(self) -> None:
        lists = (self.channels, self.kernels, self.strides)
        if len({len(one) for one in lists}) != 1 or not self.channels:
            raise UserError(
                f"model.foundation has {len(self.channels)} channels, {len(self.kernels)} kernels and "
                f"{len(self.strides)} strides; give each convolution one of each"
            )
        some = ("channels", "kernels", "strides", "position_kernel", "position_groups")
        check(self, "model.foundation.", **dict.fromkeys(some, Range(1, 2**16)))
        if any(kernel < stride for kernel, stride in zip(self.kernels, self.strides, strict=True)):
            raise UserError(
                f"model.foundation.kernels={self.kernels} with strides={self.strides} leave samples unheard; give each "
                "kernel at least its stride"
            )


@dataclass
class SizeConfig:
    """A smaller network within the trained one: its first blocks, and in each the first heads and channels."""

    name: str = MISSING  # as in size=NAME
    layers: int | None = None  # Conformer blocks that are kept; null: all
    feed_forward: float = 1.0  # share of the inner width of the feed-forward modules
    heads: int | None = None  # of attention, each as wide as in the trained network; null: all
    channels: int | None = None  # of the depthwise convolution; null: all

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z]\w*", self.name):
            raise UserError(f"model.sizes: name={self.name[:60]!r}; give a letter, then letters, digits and _")
        share = Range(0, 1, open_below=True)
        check(self, f"model.sizes: {self.name}.", layers=COUNT, feed_forward=share, heads=COUNT, channels=COUNT)


@dataclass
class ModelConfig:
    """`model=`: a Conformer-Transducer (Gulati et al., 2020), or another encoder or head in its place."""

    name: str = MISSING  # in records
    width: int = MISSING  # D, of the encoder
    layers: int = MISSING  # Conformer blocks, or of a foundation encoder its transformer's layers
    heads: int = MISSING  # of attention
    head_width: int | None = None  # of each; null: model.width / model.heads
    feed_forward_multiplier: float = 4  # inner width of the feed-forward modules, in widths
    foundation: FoundationConfig | None = None  # an encoder of raw samples (features=samples); null: a Conformer
    subsampling: SubsamplingKind = SubsamplingKind.conv
    subsampling_factor: int = 4  # feature frames in an encoded frame: 4, or with depthwise 8
    subsampling_channels: int | None = None  # of the strided convolutions; null: model.width, as the paper
    convolution_channels: int | None = None  # of the depthwise convolution; null: model.width
    kernel: int = 31  # of the depthwise convolution, in encoded frames: of 40 ms with a subsampling_factor of 4
    convolution_norm: ConvolutionNorm = ConvolutionNorm.batch
    final_norm: bool = False  # a LayerNorm after the last block, as icefall and ESPnet
    norm_epsilon: float = 1e-5  # added to the variance in each LayerNorm; ESPnet's is 1e-12
    chunk_frames: int | None = None  # streaming: frames of 40 ms that are encoded at once; null: whole utterances
    left_chunks: int = 4  # streaming: chunks before its own that a frame attends to
    dropout: float = 0.1  # share of the outputs of each residual module
    predictor: Predictor = Predictor.lstm
    predictor_width: int = 0  # of its output; predictor=none has none
    predictor_layers: int = 1  # lstm: layers
    embedding_width: int | None = None  # of a label; null: model.width
    context: int = 2  # stateless: labels seen
    joiner_width: int = 0  # where encoder and predictor are added; predictor=none has none
    joiner_activation: Activation = Activation.tanh
    # a token-and-duration transducer (TDT; Xu et al., 2023): most encoded frames that one label or blank may last, 4 in
    # Parakeet; 0: a transducer without durations
    max_duration_frames: int = 0
    sizes: list[SizeConfig] = field(default_factory=list)  # smaller networks trained with it, the largest first

    def __post_init__(self) -> None:
        check(
            self,
            "model.",
            width=COUNT,
            layers=COUNT,
            heads=COUNT,
            head_width=COUNT,
            feed_forward_multiplier=POSITIVE,
            subsampling_channels=COUNT,
            convolution_channels=COUNT,
            kernel=COUNT,
            norm_epsilon=Range(0, 1e-2, open_below=True),
            dropout=Range(0, 0.99),
            predictor_layers=Range(1, 8),
            embedding_width=COUNT,
            context=COUNT,
            max_duration_frames=Range(0, 64),
        )
        if self.predictor is not Predictor.none:
            check(self, "model.", predictor_width=COUNT, joiner_width=COUNT)
        elif self.max_duration_frames:
            raise UserError(
                f"model.max_duration_frames={self.max_duration_frames} is of a transducer, and model.predictor=none is "
                "trained with CTC; leave it out, or give another model.predictor"
            )
        if self.foundation is not None:
            self._check_foundation(self.foundation)
        if self.head_width is None and self.width % self.heads:
            raise UserError(
                f"model.heads={self.heads} does not divide model.width={self.width}; give model.heads that do, or "
                "model.head_width"
            )
        if self.kernel % 2 == 0:
            raise UserError(f"model.kernel={self.kernel} has no middle; give an odd number such as {self.kernel + 1}")
        if self.subsampling_factor not in (4, 8):
            raise UserError(f"model.subsampling_factor={self.subsampling_factor}; give 4 or 8")
        if self.subsampling_factor == 8 and self.subsampling is not SubsamplingKind.depthwise:
            raise UserError(
                f"model.subsampling={self.subsampling.value} has a factor of 4; give model.subsampling=depthwise, "
                "or model.subsampling_factor=4"
            )
        if self.predictor_layers > 1 and self.predictor is not Predictor.lstm:
            raise UserError(
                f"model.predictor={self.predictor.value} has one layer; give model.predictor=lstm, or "
                "model.predictor_layers=1"
            )
        if self.chunk_frames is not None:
            self._check_streaming(self.chunk_frames)
        self._check_sizes()

    @property
    def width_of_head(self) -> int:
        """Of a query, key or value."""
        return self.head_width or self.width // self.heads

    @property
    def feed_forward_width(self) -> int:
        """Inner width of the feed-forward modules."""
        return max(1, round(self.feed_forward_multiplier * self.width))

    @property
    def channels(self) -> int:
        """Of the depthwise convolution."""
        return self.convolution_channels or self.width

    @property
    def durations(self) -> int:
        """How many durations the joiner chooses from; 0 of a transducer without any."""
        return self.max_duration_frames + 1 if self.max_duration_frames else 0

    @property
    def whole(self) -> "ModelConfig":
        """The trained network without its smaller sizes."""
        return replace(self, sizes=[])

    def at_size(self, size: str) -> "ModelConfig":
        """The network of a size, as one would configure it to be trained alone.

        Raises:
            UserError: there is no such size.
        """
        for one in self.sizes:
            if one.name == size:
                return replace(
                    self,
                    name=f"{self.name}-{size}",
                    layers=one.layers or self.layers,
                    heads=one.heads or self.heads,
                    head_width=self.width_of_head,
                    feed_forward_multiplier=one.feed_forward * self.feed_forward_multiplier,
                    convolution_channels=one.channels or self.channels,
                    sizes=[],
                )
        known = ", ".join(one.name for one in self.sizes)
        raise UserError(
            f"{self.name} has no size={size[:60]}; "
            + (f"it has: {known}; leave size= out for the whole network" if known else "it was trained at one size")
        )

    def _check_sizes(self) -> None:
        larger, before = self, "the whole network"
        for size in self.sizes:
            if [other.name for other in self.sizes].count(size.name) > 1:
                raise UserError(f"model.sizes: two are named {size.name}; give each a name of its own")
            smaller = self.at_size(size.name)
            own, other = ((one.layers, one.feed_forward_width, one.heads, one.channels) for one in (smaller, larger))
            if any(mine > theirs for mine, theirs in zip(own, other, strict=True)) or own == other:
                names = "layers, feed-forward width, heads and channels"
                raise UserError(
                    f"model.sizes: {size.name} is not within {before}: its {names} are {own}, those of {before} "
                    f"{other}; give the larger size first, and let no number of the next be more"
                )
            larger, before = smaller, size.name

    def _check_foundation(self, foundation: FoundationConfig) -> None:
        if self.width % foundation.position_groups:
            raise UserError(
                f"model.foundation.position_groups={foundation.position_groups} does not divide "
                f"model.width={self.width}"
            )
        if self.chunk_frames is not None:
            raise UserError("model.foundation hears whole utterances; leave model.chunk_frames out")
        if self.sizes:
            raise UserError(
                "model.sizes cuts smaller networks out of a Conformer, and model.foundation is another encoder; leave "
                "model.sizes out"
            )
        if self.head_width is not None:
            raise UserError("model.foundation has heads of model.width / model.heads; leave model.head_width out")

    def _check_streaming(self, chunk_frames: int) -> None:
        if self.predictor is Predictor.none:
            raise UserError("model.predictor=none searches whole utterances; with model.chunk_frames give another")
        if chunk_frames < 1:
            raise UserError(
                f"model.chunk_frames={chunk_frames}; give at least 1 (16 are 640 ms), or null for whole utterances"
            )
        if self.subsampling is not SubsamplingKind.conv:
            raise UserError(
                f"model.subsampling={self.subsampling.value} sees zeros where a chunk ends and the speech goes on; "
                "with model.chunk_frames, give model.subsampling=conv"
            )
        # sherpa-onnx keeps the frames before a chunk in tensors of these sizes, and they may not be empty.
        if self.left_chunks < 1:
            raise UserError(f"model.left_chunks={self.left_chunks}; give at least 1, as a streaming model needs a past")
        if self.kernel < 3:
            raise UserError(f"model.kernel={self.kernel} sees no past; with model.chunk_frames, give at least 3")
        # sherpa-onnx keeps keys, values and convolution frames in tensors of one width.
        if not self.heads * self.width_of_head == self.channels == self.width:
            raise UserError(
                f"model.heads={self.heads} of width {self.width_of_head} and {self.channels} channels of convolution "
                f"need memory of other widths than model.width={self.width}; with model.chunk_frames, change "
                "model.layers and model.feed_forward_multiplier alone, and of sizes layers and feed_forward"
            )
        attended = chunk_frames * (1 + self.left_chunks)
        if attended > MAX_ATTENDED_FRAMES:
            raise UserError(
                f"model.chunk_frames={chunk_frames} with model.left_chunks={self.left_chunks} makes a frame attend to "
                f"{attended}; give at most {MAX_ATTENDED_FRAMES} in all (40 s)"
            )

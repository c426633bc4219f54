"""Every option of a run, typed, in the order data flows. Hydra fills it from conf/; all validation lives here.

`conf/<group>/<choice>.yaml` holds values, this file holds meaning: an option is documented where it is defined.
The quantization options are defined in `nibble.quant.spec`, because that room can be used without this file.
"""

import re
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from omegaconf import MISSING, DictConfig, OmegaConf

from nibble.errors import UserError, nearest
from nibble.quant.spec import QuantConfig, ScheduleConfig
from nibble.ranges import COUNT, COUNT_OR_NONE, DECIBELS, POSITIVE, SEED, SHARE, Range, check
from nibble.schema import build

Schema = TypeVar("Schema")

# ---- data ----------------------------------------------------------------------------------------------------------


class Corpus(StrEnum):
    """Where the speech comes from when `data.corpus_dir` doesn't say."""

    embedded = "embedded"  # synthesised commands, made on first use
    digits = "digits"  # connected digits built from the free-spoken-digit-dataset
    mini_librispeech = "mini_librispeech"  # downloaded
    librispeech = "librispeech"  # downloaded


class Tokens(StrEnum):
    """What a label is."""

    char = "char"
    bpe = "bpe"


@dataclass
class SpecAugmentConfig:
    """Masks on the log-mel features (Park et al., 2019)."""

    time_masks: int = 0  # 0 for none
    max_time_share: float = 0.15  # longest single time mask, as a share of the utterance
    max_time_frames: int = 40  # longest single time mask
    frequency_masks: int = 0  # 0 for none
    max_frequency_bins: int = 27  # widest single frequency mask
    probability: float = 1.0  # share of utterances masked

    def __post_init__(self) -> None:
        check(
            self,
            "data.spec_augment.",
            time_masks=COUNT_OR_NONE,
            max_time_share=SHARE,
            max_time_frames=COUNT_OR_NONE,
            frequency_masks=COUNT_OR_NONE,
            max_frequency_bins=COUNT_OR_NONE,
            probability=SHARE,
        )


class NoiseKind(StrEnum):
    """What is mixed into the speech."""

    none = "none"
    folder = "folder"  # any audio below `noise.dir`
    babble = "babble"  # several speakers of the LibriSpeech-layout folder `noise.dir` at once


@dataclass
class NoiseConfig:
    """Additive noise at a signal-to-noise ratio drawn uniformly between two bounds, per utterance."""

    kind: NoiseKind = NoiseKind.none
    dir: str | None = None  # where the noise lies
    train_parts: list[str] | None = None  # babble: parts of `dir` for training; null: all beginning with train
    dev_parts: list[str] | None = None  # babble: parts of `dir` for dev and test; null: all beginning with dev
    talkers: int = 4  # babble: voices at once
    train_snr_db: list[float] = field(default_factory=lambda: [0.0, 15.0])  # least and most
    dev_snr_db: float = 5.0  # dev and test: one level, the same noise in every run
    probability: float = 1.0  # share of training utterances mixed

    def __post_init__(self) -> None:
        if self.kind != NoiseKind.none and self.dir is None:
            raise UserError(f"data.noise.kind={self.kind.value} needs a folder of audio: data.noise.dir=DIR")
        if len(self.train_snr_db) != 2 or self.train_snr_db[0] > self.train_snr_db[1]:
            raise UserError(f"data.noise.train_snr_db is {self.train_snr_db}; give [least, most], such as [0, 15]")
        check(self, "data.noise.", talkers=COUNT, train_snr_db=DECIBELS, dev_snr_db=DECIBELS, probability=SHARE)


@dataclass
class DataConfig:
    """`data=`: which speech, which labels, which disturbances."""

    corpus: Corpus = MISSING
    corpus_dir: str | None = None  # any folder in LibriSpeech layout; null: data/<corpus>, made on first use
    train_parts: list[str] | None = None  # null: every part that begins with "train"
    dev_parts: list[str] | None = None  # null: every part that begins with "dev"
    test_parts: list[str] | None = None  # null: every part that begins with "test"
    fsdd_dir: str | None = None  # corpus=digits: a clone of the free-spoken-digit-dataset to build from
    max_bad_utterances: int = 0  # utterances with missing audio, text or broken files to skip before stopping
    tokens: Tokens = Tokens.char
    vocabulary_size: int = 1024  # bpe: pieces, blank and unknown included; char: not used
    min_duration_s: float = 0.1  # shorter training utterances are left out
    max_duration_s: float = 30.0  # longer training utterances are left out
    speed_perturbation: bool = False  # 0.9x and 1.1x copies of the training speech
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    overfit_utterances: int | None = None  # debug: train and validate on the first so many training utterances
    embedded_hours: float = 2.0  # corpus=embedded: hours of training speech to synthesise

    def __post_init__(self) -> None:
        check(
            self,
            "data.",
            max_bad_utterances=COUNT_OR_NONE,
            vocabulary_size=Range(3),
            min_duration_s=Range(0),
            max_duration_s=POSITIVE,
            overfit_utterances=COUNT,
            embedded_hours=Range(0, 1_000, open_below=True),
        )
        if self.min_duration_s >= self.max_duration_s:
            raise UserError(
                f"data.min_duration_s={self.min_duration_s:g} leaves nothing below "
                f"data.max_duration_s={self.max_duration_s:g}; give less"
            )


# ---- features ------------------------------------------------------------------------------------------------------


class FeatureStorage(StrEnum):
    """When log-mel features are computed."""

    on_the_fly = "on_the_fly"  # in the loader, from audio
    stored = "stored"  # once, to disk beside the corpus; excludes waveform augmentation


@dataclass
class FeatureConfig:
    """`features=`: log-mel filterbanks as sherpa-onnx computes them."""

    mel_bins: int = 80  # F, bands between 20 Hz and 7.6 kHz
    storage: FeatureStorage = FeatureStorage.on_the_fly

    def __post_init__(self) -> None:
        check(self, "features.", mel_bins=Range(7))  # what two strided convolutions need


# ---- model ---------------------------------------------------------------------------------------------------------

MAX_ATTENDED_FRAMES = 1_000  # of a model that streams: a file from anywhere must not make it take any memory


class Predictor(StrEnum):
    """The label side of the transducer."""

    lstm = "lstm"  # Graves (2012); one layer
    stateless = "stateless"  # Ghodsi et al. (2020): the last `context` labels


@dataclass
class ModelConfig:
    """`model=`: a Conformer-Transducer (Gulati et al., 2020)."""

    name: str = MISSING  # in records
    width: int = MISSING  # D, of the encoder
    layers: int = MISSING  # Conformer blocks
    heads: int = MISSING  # of attention; they divide the width
    feed_forward_multiplier: int = 4  # inner width of the feed-forward modules, in widths
    subsampling_channels: int | None = None  # of the two strided convolutions; null: model.width, as the paper
    kernel: int = 31  # of the depthwise convolution, in frames of 40 ms
    chunk_frames: int | None = None  # streaming: frames of 40 ms that are encoded at once; null: whole utterances
    left_chunks: int = 4  # streaming: chunks before its own that a frame attends to
    dropout: float = 0.1  # share of the outputs of each residual module
    predictor: Predictor = Predictor.lstm
    predictor_width: int = MISSING  # of its output
    context: int = 2  # stateless: labels seen
    joiner_width: int = MISSING  # where encoder and predictor are added

    def __post_init__(self) -> None:
        check(
            self,
            "model.",
            width=COUNT,
            layers=COUNT,
            heads=COUNT,
            feed_forward_multiplier=COUNT,
            subsampling_channels=COUNT,
            kernel=COUNT,
            dropout=Range(0, 0.99),
            predictor_width=COUNT,
            context=COUNT,
            joiner_width=COUNT,
        )
        if self.width % self.heads:
            raise UserError(f"model.heads={self.heads} does not divide model.width={self.width}")
        if self.kernel % 2 == 0:
            raise UserError(f"model.kernel={self.kernel} has no middle; give an odd number such as {self.kernel + 1}")
        if self.chunk_frames is not None:
            self._check_streaming(self.chunk_frames)

    def _check_streaming(self, chunk_frames: int) -> None:
        if chunk_frames < 1:
            raise UserError(
                f"model.chunk_frames={chunk_frames}; give at least 1 (16 are 640 ms), or null for whole utterances"
            )
        # sherpa-onnx keeps what is before a chunk in tensors of these sizes, and they may not be empty.
        if self.left_chunks < 1:
            raise UserError(f"model.left_chunks={self.left_chunks}; give at least 1, as a streaming model needs a past")
        if self.kernel < 3:
            raise UserError(f"model.kernel={self.kernel} sees no past; with model.chunk_frames, give at least 3")
        attended = chunk_frames * (1 + self.left_chunks)
        if attended > MAX_ATTENDED_FRAMES:
            raise UserError(
                f"model.chunk_frames={chunk_frames} with model.left_chunks={self.left_chunks} makes a frame attend to "
                f"{attended}; give at most {MAX_ATTENDED_FRAMES} in all (40 s)"
            )


# ---- loss ----------------------------------------------------------------------------------------------------------


@dataclass
class LossConfig:
    """`loss=`: the transducer loss (Graves, 2012), with CTC on the encoder as a training aid."""

    ctc_weight: float = 0.0  # 0 for none; the CTC layer exists in training only
    fused: bool = True  # the joiner a few utterances at a time; false: torchaudio's loss, of all logits at once
    norm_decay: float = 0.0  # times the sum of max|w| / rms(w) of quantized weights (RAND, arXiv:2305.15536); 0: none

    def __post_init__(self) -> None:
        check(self, "loss.", ctc_weight=Range(0), norm_decay=Range(0))


@dataclass
class DistillConfig:
    """`distill`: a float teacher whose encoder and lattice a quantized model learns to match (training only).

    The teacher hears the same batches; phases in float have none.
    """

    # none; self: this run at the end of its last phase at 8 bits or more, or where it trains float together with other
    # precisions, its float branch at each step; a float checkpoint, run or bundle of the same labels;
    # auto: self if a rule has weights of less than 4 bits and the schedule goes from float down to them, else none
    teacher: str = "auto"
    encoder_weight: float = 1.0  # of the squared difference of encoder outputs, in variances of the teacher's
    posterior_weight: float = 1.0  # of the divergence of the label distributions along alignments, in nats per label

    def __post_init__(self) -> None:
        check(self, "distill.", encoder_weight=Range(0), posterior_weight=Range(0))
        if self.encoder_weight == self.posterior_weight == 0 and self.teacher != "none":
            raise UserError(
                f"distill.teacher={self.teacher} with distill.encoder_weight=0 and distill.posterior_weight=0 "
                "teaches nothing; give one a weight, or distill.teacher=none"
            )


# ---- optimizer -----------------------------------------------------------------------------------------------------


class LearningRateSchedule(StrEnum):
    """How the learning rate moves after a linear warm-up."""

    cosine = "cosine"  # to zero at the last step
    noam = "noam"  # as 1 / sqrt(step) (Vaswani et al., 2017)


@dataclass
class OptimizerConfig:
    """`optimizer=`: AdamW."""

    learning_rate: float = MISSING  # at the end of warm-up
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])  # decay of the two moments
    weight_decay: float = 0.01  # of matrices; decoupled from the gradient
    schedule: LearningRateSchedule = LearningRateSchedule.cosine
    warmup_steps: int = MISSING  # from 0 to the learning rate, linearly

    def __post_init__(self) -> None:
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"optimizer.betas={self.betas}; give two, each at least 0 and less than 1: [0.9, 0.98]")
        check(self, "optimizer.", learning_rate=POSITIVE, weight_decay=Range(0), warmup_steps=COUNT_OR_NONE)


# ---- hardware ------------------------------------------------------------------------------------------------------


_ACCELERATORS = ("cpu", "gpu", "cuda", "auto")
_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")


class Strategy(StrEnum):
    """How several processes train together."""

    auto = "auto"  # ddp, or nothing of the kind for one process
    ddp = "ddp"  # each has the whole model
    fsdp = "fsdp"  # each keeps a share of parameters, gradients and optimizer state


@dataclass
class HardwareConfig:
    """`hardware=`: where it runs, what fits there, and what a deployment there may cost."""

    accelerator: str = "cpu"  # as Lightning: cpu, gpu, auto
    devices: int = 1  # on each machine, a process each; -1: all GPUs
    nodes: int = 1  # machines
    strategy: Strategy = Strategy.auto  # of several processes, one a device, each with a batch of batch_duration_s
    precision: str = "32-true"  # of the float parts, as Lightning: 32-true, bf16-mixed
    compile: bool = False  # torch.compile on what lies between two products; on a GPU, fewer kernels
    threads: int | None = None  # CPU threads; null: torch's choice
    batch_duration_s: float = 60.0  # speech in a batch, per device
    max_batch_utterances: int | None = None  # null: as many as batch_duration_s holds
    buckets: int = 10  # of similar duration
    workers: int = 1  # loader processes
    max_bundle_bytes: int | None = None  # budget, printed beside the measurement
    max_rtf: float | None = None  # budget: processing time / audio time

    def __post_init__(self) -> None:
        if self.devices != -1:
            check(self, "hardware.", devices=COUNT)
        check(
            self,
            "hardware.",
            nodes=COUNT,
            threads=Range(1, 4_096),
            batch_duration_s=POSITIVE,
            max_batch_utterances=COUNT,
            buckets=COUNT,
            workers=Range(0, 1_024),
            max_bundle_bytes=Range(1, 2**63),
            max_rtf=POSITIVE,
        )
        if self.accelerator not in _ACCELERATORS:
            raise UserError(
                f"hardware.accelerator={self.accelerator}; nearest: {nearest(self.accelerator, _ACCELERATORS)}"
            )
        if self.precision not in _PRECISIONS:
            raise UserError(f"hardware.precision={self.precision}; nearest: {nearest(self.precision, _PRECISIONS)}")


# ---- logger --------------------------------------------------------------------------------------------------------


class WandbMode(StrEnum):
    """Online needs an account; offline writes files that `wandb sync` sends later."""

    offline = "offline"
    online = "online"


@dataclass
class LoggerConfig:
    """`logger=`: where curves go. Several at once are fine."""

    csv: bool = True  # csv/metrics.csv in the run folder
    wandb: bool = False  # Weights & Biases
    tensorboard: bool = False  # needs pip install -e .[tensorboard]
    wandb_mode: WandbMode = WandbMode.offline
    wandb_project: str = "nibble"  # made on first use


# ---- trainer -------------------------------------------------------------------------------------------------------


@dataclass
class TrainerConfig:
    """`trainer=`: how long, how often, and what is kept."""

    max_epochs: int = 20  # times over the training speech
    max_steps: int | None = None  # optimizer steps; overrides max_epochs
    accumulate: int = 1  # batches a step
    gradient_clip: float = 5.0  # largest gradient norm
    ema_decay: float | None = None  # exponential moving average of the weights, such as 0.999; null: none
    validate_every_steps: int | None = None  # null: once an epoch
    checkpoint_every_steps: int | None = None  # null: at each validation
    early_stop_patience: int | None = None  # validations without a better WER; null: never
    max_validation_utterances: int | None = None  # null: the whole dev part
    log_every_steps: int = 10  # losses, learning rate and speed
    log_layers_every_steps: int = 100  # quantization statistics of each layer; 0: never
    profile: bool = False  # debug: print where time goes

    def __post_init__(self) -> None:
        counts = ("max_epochs", "max_steps", "accumulate", "validate_every_steps", "checkpoint_every_steps")
        more = ("early_stop_patience", "max_validation_utterances", "log_every_steps")
        check(
            self,
            "trainer.",
            **dict.fromkeys((*counts, *more), COUNT),
            gradient_clip=POSITIVE,
            ema_decay=Range(0, 0.99999),
            log_layers_every_steps=COUNT_OR_NONE,
        )


# ---- the whole -----------------------------------------------------------------------------------------------------


@dataclass
class Config:
    """One training run."""

    name: str = "default"  # of the experiment; a part of the run folder and of the record
    seed: int = 1  # of weights, order and augmentation
    run_dir: str = MISSING  # Hydra sets it: give hydra.run.dir=DIR instead
    # a run folder or checkpoint to go on from, exactly; true: the run of these options, wherever it stands: if complete
    # it is left as it is, if stopped it goes on, if not there it starts
    resume: str | None = None
    init_from: str | None = None  # a checkpoint to take the weights from
    records: str | None = "runs/records.jsonl"  # where the evaluation at the end is added; null: nowhere
    data: DataConfig = MISSING
    features: FeatureConfig = MISSING
    model: ModelConfig = MISSING
    loss: LossConfig = MISSING
    quant: QuantConfig = MISSING
    schedule: ScheduleConfig = MISSING
    distill: DistillConfig = field(default_factory=DistillConfig)
    optimizer: OptimizerConfig = MISSING
    hardware: HardwareConfig = MISSING
    logger: LoggerConfig = MISSING
    trainer: TrainerConfig = MISSING

    def __post_init__(self) -> None:
        check(self, "", seed=SEED)
        if self.resume in ("False", "false"):  # the text that resume=false becomes
            self.resume = None

    @property
    def resumes_itself(self) -> bool:
        """Whether it goes on with the run of its own options."""
        return self.resume in ("True", "true")


# ---- evaluation ----------------------------------------------------------------------------------------------------


class Backend(StrEnum):
    """What computes."""

    torch = "torch"
    bundle = "bundle"  # torch, on the integers of a bundle: of a run, those in its folder bundle/
    onnx = "onnx"  # ONNX Runtime on an exported folder, with the search of this project
    sherpa = "sherpa"  # sherpa-onnx on an exported folder: its features, and its search of one label a frame at most


class Search(StrEnum):
    """How labels are found in the network's output."""

    greedy = "greedy"
    beam = "beam"  # `beam_width` hypotheses at once


@dataclass
class NoiseOverrides:
    """Of `NoiseConfig`; null: as in training."""

    kind: NoiseKind | None = None
    dir: str | None = None
    dev_parts: list[str] | None = None
    talkers: int | None = None
    dev_snr_db: float | None = None

    def __post_init__(self) -> None:
        check(self, "data.noise.", talkers=COUNT, dev_snr_db=DECIBELS)


@dataclass
class DataOverrides:
    """What evaluation may change of the `DataConfig` that a model was trained with; null: as in training."""

    corpus: Corpus | None = None
    corpus_dir: str | None = None
    fsdd_dir: str | None = None
    dev_parts: list[str] | None = None
    test_parts: list[str] | None = None
    max_bad_utterances: int | None = None
    noise: NoiseOverrides = field(default_factory=NoiseOverrides)

    def __post_init__(self) -> None:
        check(self, "data.", max_bad_utterances=COUNT_OR_NONE)


@dataclass
class EvaluateConfig:
    """`python evaluate.py`: which models, on which speech, searched how."""

    checkpoint: Any = None  # a run folder, a .ckpt, a bundle or (backend onnx, sherpa) an exported folder; or a list
    backend: Backend = Backend.torch
    experiment: str | None = None  # instead of checkpoint: the run of this experiment that was trained last
    part: Any = None  # dev, test, or names of parts; one or a list; null: dev
    quant: QuantConfig | None = None  # quantize float checkpoints without training; null: as trained
    decoding: Search = Search.greedy
    beam_width: int = 8  # decoding=beam: hypotheses at once
    max_utterances: int | None = None  # null: all
    worst: int = 5  # utterances with most errors to show
    records: str | None = "runs/records.jsonl"  # a line is added there for each model; null: nowhere
    data: DataOverrides = field(default_factory=DataOverrides)
    hardware: HardwareConfig = MISSING

    def __post_init__(self) -> None:
        if bool(self.checkpoints) == (self.experiment is not None):
            raise UserError(
                "give either checkpoint=RUN, checkpoint=[RUN,RUN] (run folders, .ckpt files or bundles), "
                "or experiment=NAME for its latest run"
            )
        if self.exported and (self.experiment is not None or self.quant is not None):
            raise UserError(
                f"backend={self.backend.value} measures an exported folder as it is; "
                "give checkpoint=FOLDER from python -m nibble.export, and leave experiment= and quant= out"
            )
        check(self, "", beam_width=Range(1, 1_000), max_utterances=COUNT, worst=COUNT_OR_NONE)

    @property
    def exported(self) -> bool:
        """Whether the backend reads what `python -m nibble.export` wrote, and no checkpoint."""
        return self.backend in (Backend.onnx, Backend.sherpa)

    @property
    def checkpoints(self) -> list[str]:
        """`checkpoint` as a list, empty if it is null."""
        return _strings("checkpoint", self.checkpoint)

    @property
    def parts(self) -> list[str]:
        """`part` as a list."""
        return _strings("part", self.part) or ["dev"]


def overridden(run: Config, overrides: DataOverrides) -> Config:
    """The configuration of a run with what evaluation changes of its data."""
    noise = replace(run.data.noise, **_given(overrides.noise))
    return replace(run, data=replace(run.data, **{**_given(overrides), "noise": noise}))


def _given(overrides: NoiseOverrides | DataOverrides) -> dict[str, Any]:
    """The options that aren't null."""
    return {f.name: value for f in fields(overrides) if (value := getattr(overrides, f.name)) is not None}


def _strings(option: str, value: Any) -> list[str]:
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) and one for one in values):
        raise UserError(f"{option}={value}; give a name, or several as [first,second]")
    return values


# ---- quantization without training ---------------------------------------------------------------------------------


class Rounding(StrEnum):
    """How the weights of a float model become integers without training."""

    nearest = "nearest"
    gptq = "gptq"  # so that each layer's outputs change least on calibration speech (Frantar et al., 2022)


@dataclass
class QuantizeConfig:
    """`python -m nibble.quantize`: a float model to a bundle of fewer bits."""

    checkpoint: str | None = None  # a run folder, a .ckpt or a bundle, with float weights
    quant: QuantConfig = MISSING
    rounding: Rounding = Rounding.nearest
    calibration_utterances: int = 128  # drawn from the training speech, for gptq and static activation scales
    seed: int = 1  # of that draw
    output: str | None = None  # folder of the bundle; null: bundle_<quant>_<rounding> in the run folder
    data: DataOverrides = field(default_factory=DataOverrides)
    hardware: HardwareConfig = MISSING

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise UserError("give checkpoint=RUN: a run folder, a .ckpt file or a bundle with float weights")
        if not self.quant.rules and not self.quant.low_rank:
            raise UserError(f"quant={self.quant.name} has no rules, so nothing would change; give quant=int4 or so")
        check(self, "", seed=SEED, calibration_utterances=COUNT_OR_NONE)
        if self.needs_speech and self.calibration_utterances < 1:
            what = "rounding=gptq needs" if self.rounding is Rounding.gptq else "static activation scales need"
            raise UserError(f"calibration_utterances={self.calibration_utterances}, but {what} speech; 128 is enough")

    @property
    def needs_speech(self) -> bool:
        """Whether anything is calibrated."""
        static = any(rule.activation is not None and rule.activation.static for rule in self.quant.rules)
        return static or self.rounding is Rounding.gptq


# ---- export --------------------------------------------------------------------------------------------------------


class Target(StrEnum):
    """What a model is exported as."""

    bundle = "bundle"  # the smallest: what this project reads
    sherpa = "sherpa"  # ONNX files that sherpa-onnx loads as they are, and ONNX Runtime


class Encoding(StrEnum):
    """How an ONNX file holds weights, and what its products are of. `nibble.export.onnx_products` has the equations."""

    float = "float"  # 32 bits, float products
    w8a8 = "w8a8"  # 8-bit weights, 8-bit activations
    w4a8 = "w4a8"  # weights of up to 4 bits in 4 bits, 8-bit activations
    w4 = "w4"  # weights of up to 4 bits in 4 bits, float activations


@dataclass
class ExportConfig:
    """`python -m nibble.export`: a trained model to what runs elsewhere."""

    checkpoint: str | None = None  # a run folder, a .ckpt or a bundle
    target: Target = Target.sherpa
    encoding: Encoding | None = None  # null: w4a8 for weights of up to 4 bits, w8a8 for more, float for a float model
    # Of the ONNX file. With 21, weights of 4 bits load in half the memory, in sherpa-onnx from 1.12.20 (ONNX Runtime
    # from 1.23.2) on; older ones need 17. null: 21 for w4a8 and w4, else 17.
    opset: int | None = None
    quant: QuantConfig | None = None  # quantize a float checkpoint without training; null: as trained
    # How often each encoded frame is given. sherpa-onnx emits at most one label a frame; given twice, two, and its
    # timestamps are then twice too late. null: 2 for characters, which come that fast, and 1 for pieces; twice that
    # of a model that streams, which often says several at the end of a chunk.
    labels_per_frame: int | None = None
    parity: bool = False  # compare each layer of the export with torch's, and print a table
    output: str | None = None  # the folder; null: sherpa_<encoding> or bundle in the run folder

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise UserError("give checkpoint=RUN: a run folder, a .ckpt file or a bundle")
        check(self, "", labels_per_frame=Range(1, 10))
        if self.opset not in (None, 17, 21):
            raise UserError(f"opset={self.opset}; give 21, or 17 for ONNX Runtime before 1.23.2, or null")
        if self.target is Target.bundle:
            for name in ("encoding", "opset", "labels_per_frame"):
                if (value := getattr(self, name)) is not None:
                    raise UserError(f"{name}={value} is for target=sherpa; leave it out with target=bundle")


# ---- sensitivity ---------------------------------------------------------------------------------------------------


class DamageMethod(StrEnum):
    """How the damage of a layer at few bits is found."""

    loss = "loss"  # measured: the rise of the loss when that layer alone is lowered
    fisher = "fisher"  # estimated from one pass of gradients; knows nothing of activations


class SensitivityPart(StrEnum):
    """Which speech the damage is found on; dev only where its error rates are not reported afterwards."""

    train = "train"
    dev = "dev"


@dataclass
class SensitivityConfig:
    """`python -m nibble.sensitivity`: what fewer bits do to each layer, and the best bits under a budget."""

    checkpoint: str | None = None  # a run folder or a .ckpt with float weights
    bits: list[int] = field(default_factory=lambda: [2, 4, 8])  # the choices for each layer's weights
    average_bits: float | None = None  # budget: mean bits of the quantized weights, scales left out
    target_bytes: int | None = None  # budget: size of the whole bundle; without a budget nothing is assigned
    method: DamageMethod = DamageMethod.loss
    part: SensitivityPart = SensitivityPart.train  # without augmentation; noise at the level of dev
    max_utterances: int = 200  # evenly spread over the part
    name: str = "mixed"  # what is written is used as quant=<name>
    output: str | None = None  # null: conf/quant/<name>.yaml
    plot: str = MISSING  # a picture of layers against bits
    data: DataOverrides = field(default_factory=DataOverrides)
    hardware: HardwareConfig = MISSING

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise UserError("give checkpoint=RUN: a run folder or a .ckpt file with float weights")
        if self.average_bits is not None and self.target_bytes is not None:
            raise UserError(
                f"average_bits={self.average_bits:g} and target_bytes={self.target_bytes} are two budgets; give one"
            )
        if len(set(self.bits)) < 2 or not all(1 <= bits <= 8 for bits in self.bits):
            raise UserError(f"bits={self.bits}; give at least two widths from 1 to 8, such as [2,4,8]")
        check(self, "", max_utterances=COUNT, average_bits=Range(1, 8), target_bytes=Range(1, 2**63))
        if not re.fullmatch(r"[\w-]+", self.name):
            raise UserError(f"name={self.name} becomes a file and an option: give letters, digits, _ and - only")
        self.bits = sorted(set(self.bits))


# ---- composed by Hydra -> typed ------------------------------------------------------------------------------------


def typed(config: DictConfig) -> Config:
    """The composed configuration of a training run as dataclasses, every cross-check done.

    Raises:
        UserError: a value is missing or contradicts another; the text names the option.
    """
    return typed_as(Config, config)


def typed_as(schema: type[Schema], config: DictConfig) -> Schema:
    """As `typed`, for the configuration of any command."""
    reject_unknown(config)
    missing = OmegaConf.missing_keys(config)
    if missing:
        raise UserError(f"no value for {', '.join(sorted(missing))}")
    options = OmegaConf.to_object(config)
    if not isinstance(options, schema):
        raise UserError(f"not a {schema.__name__}: {type(options).__name__}")
    return options


def reject_unknown(config: DictConfig, prefix: str = "") -> None:
    """Refuse keys that no dataclass has: Hydra's `+option=value` can add one, and it would be ignored."""
    schema = OmegaConf.get_type(config)
    known = [f"{prefix}{field.name}" for field in fields(schema)] if is_dataclass(schema) else []
    for key in config:
        name = f"{prefix}{key!s}"
        if name not in known:
            raise UserError(f"no option {name!r}; nearest: {nearest(name, known)}")
        unresolved = OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, str(key))
        if not unresolved and isinstance(config[key], DictConfig):
            reject_unknown(config[key], f"{name}.")


def plain(run: Config) -> dict[str, Any]:
    """The configuration as dictionaries, lists, numbers and strings, for a checkpoint or JSON."""
    container = OmegaConf.to_container(OmegaConf.structured(run), enum_to_str=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def portable(run: Config) -> Config:
    """The configuration without where the run lives, for files that others get: they are the same wherever it was."""
    return replace(run, run_dir="", resume=None, records=None)


def from_plain(values: dict[str, Any]) -> Config:
    """The inverse of `plain`; unknown options and wrong types raise `UserError`."""
    try:
        return build(Config, values)
    except UserError as error:
        raise UserError(f"this configuration is not of this version of nibble: {error}") from error

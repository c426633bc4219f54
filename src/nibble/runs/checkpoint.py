"""Loads the model of a checkpoint of `train.py`, a run or a bundle, and quantizes it without training."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from nibble.config import Config, from_plain
from nibble.data.tokenizer import Tokenizer
from nibble.errors import UserError
from nibble.model.transducer import Transducer
from nibble.quant.convert import prepare, prune, set_precision
from nibble.quant.spec import Precision, QuantConfig
from nibble.runs.bundle import is_bundle, read_bundle
from nibble.runs.checkpoint_file import read_checkpoint
from nibble.runs.exported import is_exported
from nibble.runs.loaded import Loaded, check_sizes, check_state, float_model, prepared_model
from nibble.runs.locate import locate
from nibble.runs.method import Method
from nibble.runs.sizes import taken_out
from nibble.shapes import shapes_only

_PREFIX = "model."  # of the transducer's weights in `TransducerModule`; all others exist in training only


def load_checkpoint(path: Path, size: str | None = None) -> Loaded:
    """The model of a run folder (its best checkpoint, else its last), a checkpoint file, or a bundle folder.

    With averaged weights (`trainer.ema_decay`) the state in the file is the average.

    Args:
        path: where it lies.
        size: of a run with `model.sizes`, the smaller network to take out of it; None: the whole network.

    Raises:
        UserError: the file is absent, not a checkpoint, truncated, from another model or version, or without that size.
    """
    path = locate(path)
    if is_exported(path):
        raise UserError(
            f"{path} was exported for sherpa-onnx and ONNX Runtime: measure it with python evaluate.py "
            f"checkpoint={path} backend=sherpa or backend=onnx, or give the checkpoint that it came from"
        )
    if is_bundle(path):
        if size is not None:
            raise UserError(
                f"{path} is a bundle, which holds one size; leave size={size} out, or give the run's checkpoint"
            )
        return read_bundle(path)
    saved = read_checkpoint(path)
    try:
        state: dict[str, Tensor] = {
            name.removeprefix(_PREFIX): tensor
            for name, tensor in saved["state_dict"].items()
            if name.startswith(_PREFIX)
        }
        if other := [name for name, tensor in state.items() if not isinstance(tensor, Tensor)]:
            raise TypeError(f"{other[0]}, which is no tensor")
        ours = saved["nibble"]
        config = from_plain(ours["config"])
        tokenizer = Tokenizer(ours["tokenizer"])
        precision, blend = Precision(ours["precision"]), float(ours["blend"])
        corpus, step = str(ours["corpus"]), int(ours["step"])
        heard_s = None if ours.get("heard_s") is None else float(ours["heard_s"])  # absent in older checkpoints
        method = Method(ours.get("method", "qat"))  # absent before there was another way to train
    except (UserError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise UserError(
            f"{path} is not a checkpoint of this version of nibble: "
            + (str(error) if isinstance(error, UserError) else f"{type(error).__name__} at {error}")
        ) from error
    sizes = [one.name for one in config.model.sizes]
    if sizes or size is not None:
        check(path, config, tokenizer, state)
        config, state = taken_out(config, tokenizer.size, state, size)
    quantized = bool(config.quant.rules) and precision is not Precision.float
    return Loaded(
        path=path,
        config=config,
        tokenizer=tokenizer,
        model=build(path, config, tokenizer, state, precision, blend),
        precision=precision if quantized else Precision.float,
        corpus=corpus,
        step=step,
        method=method if quantized else Method.float,
        frozen=False,
        heard_s=heard_s,
        sizes=sizes,
    )


def quantize(loaded: Loaded, quant: QuantConfig) -> Loaded:
    """A float model at the precision of `quant`, without training; of a run for several precisions, as trained at it.

    Raises:
        UserError: the model is quantized already, a rule does not fit it, or it was not trained at that precision.
    """
    if loaded.method == Method.shared:
        return _at_trained(loaded, quant)
    if loaded.method != Method.float:
        raise UserError(
            f"{loaded.path} is at {loaded.quant} already; leave quant= out, or give a float checkpoint, "
            "such as checkpoints/phase_1_float.ckpt of a staged run"
        )
    factors = loaded.config.quant.low_rank
    config = replace(loaded.config, quant=replace(quant, low_rank=quant.low_rank or factors))
    if not quant.rules and config.quant.low_rank == factors:
        return replace(loaded, config=config)
    model = float_model(loaded.config, loaded.tokenizer.size)
    state = loaded.model.state_dict()
    model.load_state_dict({name: state[name] for name in model.state_dict()})  # without what only quantization uses
    prepare(model, config.quant)
    precision = Precision.rules if quant.rules else Precision.float
    set_precision(model, precision)
    prune(model)
    model.eval()
    return replace(loaded, config=config, model=model, precision=precision, method=Method.ptq)


def _at_trained(loaded: Loaded, quant: QuantConfig) -> Loaded:
    """A model of a run for several precisions, at the one that `quant` names."""
    trained = {precision.value: precision for precision in loaded.config.schedule.together}
    if loaded.frozen or quant.name not in trained:
        known = loaded.quant if loaded.frozen else ", ".join(trained)
        raise UserError(
            f"{loaded.path} has no weights for quant={quant.name}; it has: {known}"
            + ("; give the run's checkpoint for its other precisions" if loaded.frozen else "")
        )
    precision = trained[quant.name]
    set_precision(loaded.model, precision)
    return replace(loaded, precision=precision)


def build(
    path: Path, config: Config, tokenizer: Tokenizer, state: dict[str, Tensor], precision: Precision, blend: float
) -> Transducer:
    """The transducer of a run with these weights, prepared for its rules, at a precision, in eval mode.

    Raises:
        UserError: names or shapes of the weights are not those of this model.
    """
    check(path, config, tokenizer, state)
    model = prepared_model(config, tokenizer.size)
    model.load_state_dict(state)
    set_precision(model, precision, blend)
    return model.eval()


def check(path: Path, config: Config, tokenizer: Tokenizer, state: dict[str, Tensor]) -> None:
    """Raise `UserError` unless these are the weights of the network of a run, by names and shapes."""
    check_sizes(path, config, len(state), path.stat().st_size)
    try:
        with shapes_only():  # what a file describes may be larger than what it holds
            check_state(path, prepared_model(config, tokenizer.size), state)
    except (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        text = str(error).partition("\n")[0]
        raise UserError(f"{path} describes a model that cannot be: {text}") from error

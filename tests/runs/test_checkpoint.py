import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from nibble.config import portable
from nibble.errors import UserError
from nibble.quant.convert import quantized_modules
from nibble.quant.spec import ActivationSpec, Precision, QuantConfig, Rule, WeightSpec
from nibble.runs.bundle import write_bundle
from nibble.runs.checkpoint import load_checkpoint, quantize
from nibble.runs.checkpoint_file import read_checkpoint
from nibble.runs.locate import latest_run


def test_a_run_folder_a_file_and_a_bundle_give_the_same_model(write_run, tmp_path: Path) -> None:
    run = write_run("int4", "rules")
    first = load_checkpoint(run)
    write_bundle(first, run / "bundle")
    for path in (run / "checkpoints" / "last.ckpt", run / "bundle"):
        other = load_checkpoint(path)
        assert (other.quant, other.method, other.corpus, other.step) == ("int4", "qat", "tiny", 3)
        assert not other.model.training
        assert portable(other.config) == portable(first.config)
        assert other.tokenizer.model == first.tokenizer.model
    assert first.path == run / "checkpoints" / "last.ckpt"


def test_the_best_checkpoint_comes_before_the_last(write_run) -> None:
    run = write_run()
    (run / "checkpoints" / "best.ckpt").write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())
    assert load_checkpoint(run).path.name == "best.ckpt"


def test_the_phase_it_was_saved_in(write_run) -> None:
    floating = load_checkpoint(write_run("int4", "float"))
    assert (floating.quant, floating.method) == ("float", "float")
    ramp = load_checkpoint(write_run("int4", "rules", blend=0.5))
    assert {layer.blend for layer in quantized_modules(ramp.model).values()} == {0.5}
    nothing = load_checkpoint(write_run("float", "rules"))
    assert (nothing.method, nothing.precision) == ("float", Precision.float)


def test_a_float_phase_can_be_quantized_otherwise(write_run) -> None:
    rule = Rule(weight=WeightSpec(bits=2), activation=ActivationSpec())
    found = quantize(load_checkpoint(write_run("int4", "float")), QuantConfig("int2", [rule]))
    assert (found.quant, found.method) == ("int2", "ptq")
    assert {layer.weight_bits for layer in quantized_modules(found.model).values()} == {2}
    with pytest.raises(UserError, match="leave quant= out"):
        quantize(load_checkpoint(write_run("int4", "rules")), QuantConfig("int2", [rule]))


def test_nothing_there(write_run, tmp_path: Path) -> None:
    run = write_run()
    with pytest.raises(UserError, match=r"lost\.ckpt does not exist; in .* there is: last\.ckpt"):
        load_checkpoint(run / "checkpoints" / "lost.ckpt")
    with pytest.raises(UserError, match="neither a run"):
        load_checkpoint(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        load_checkpoint(Path("no/such/place"))


def test_truncated(write_run, tmp_path: Path) -> None:
    content = (write_run() / "checkpoints" / "last.ckpt").read_bytes()
    for share in (0.02, 0.5, 0.99):
        (tmp_path / "short.ckpt").write_bytes(content[: int(share * len(content))])
        with pytest.raises(UserError, match=r"short\.ckpt is truncated"):
            load_checkpoint(tmp_path / "short.ckpt")


def test_damaged_inside(write_run, tmp_path: Path) -> None:
    content = bytearray((write_run() / "checkpoints" / "last.ckpt").read_bytes())
    start = content.index(b"data.pkl") + 200
    content[start : start + 400] = b"\0" * 400
    (tmp_path / "damaged.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"damaged\.ckpt"):
        load_checkpoint(tmp_path / "damaged.ckpt")


@pytest.mark.parametrize("content", [b"", b"PK", b"not a checkpoint at all", os.urandom(1000)])
def test_not_a_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.ckpt").write_bytes(content)
    with pytest.raises(UserError, match="is not a checkpoint"):
        load_checkpoint(tmp_path / "other.ckpt")


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=r"not written by nibble's train\.py"):
        load_checkpoint(tmp_path / "other.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(UserError, match=r"not written by nibble's train\.py"):
        load_checkpoint(tmp_path / "list.ckpt")


class Trap:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    torch.save({"nibble": Trap(tmp_path / "sprung"), "state_dict": {}}, tmp_path / "trap.ckpt")
    with pytest.raises(UserError, match="nothing in it was executed"):
        read_checkpoint(tmp_path / "trap.ckpt")
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(UserError, match="not a checkpoint"):
        read_checkpoint(tmp_path / "old.ckpt")
    assert not (tmp_path / "sprung").exists()


def test_weights_of_another_model(write_run, tmp_path: Path) -> None:
    saved = read_checkpoint(write_run() / "checkpoints" / "last.ckpt")
    for option, value, text in [("layers", 2, "weights are missing, such as"), ("width", 64, "have another shape")]:
        changed = {**saved["nibble"], "config": {**saved["nibble"]["config"]}}
        changed["config"]["model"] = {**changed["config"]["model"], option: value}
        torch.save({**saved, "nibble": changed}, tmp_path / "other.ckpt")
        with pytest.raises(UserError, match=f"weights of another model: .*{text}"):
            load_checkpoint(tmp_path / "other.ckpt")


def test_another_version(write_run, tmp_path: Path) -> None:
    saved = read_checkpoint(write_run() / "checkpoints" / "last.ckpt")
    del saved["nibble"]["precision"]
    torch.save(saved, tmp_path / "old.ckpt")
    with pytest.raises(UserError, match="not a checkpoint of this version"):
        load_checkpoint(tmp_path / "old.ckpt")
    saved["nibble"].update(precision="rules", config={**saved["nibble"]["config"], "colour": "red"})
    torch.save(saved, tmp_path / "new.ckpt")
    with pytest.raises(UserError, match="not of this version"):
        load_checkpoint(tmp_path / "new.ckpt")


def test_the_latest_run_of_an_experiment(tmp_path: Path) -> None:
    for age, name in enumerate(["digits/b", "digits/sweep/a", "demo/c"]):
        checkpoints = tmp_path / name / "checkpoints"
        checkpoints.mkdir(parents=True)
        (checkpoints / "last.ckpt").write_text("")
        os.utime(checkpoints / "last.ckpt", (age, age))
    assert latest_run("digits", tmp_path) == tmp_path / "digits/sweep/a"
    with pytest.raises(UserError, match=r"runs of: digits.*train\.py experiment=digitz"):
        latest_run("digitz", tmp_path)
    with pytest.raises(UserError, match="no finished run"):
        latest_run("digits", tmp_path / "none")


def rewritten(source: Path, target: Path, change, compression: int = zipfile.ZIP_STORED) -> Path:
    """A copy of a checkpoint with right checksums: `change` makes the bytes of each file in it, given its name."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for member in old.infolist():
            new.writestr(member.filename, change(member.filename, old.read(member)))
    return target


def test_one_flipped_bit_is_found(write_run, tmp_path: Path) -> None:
    content = (write_run() / "checkpoints" / "last.ckpt").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        weights = max(archive.infolist(), key=lambda member: member.file_size)
    for place in range(weights.header_offset + 200, weights.header_offset + weights.file_size, weights.file_size // 8):
        damaged = bytearray(content)
        damaged[place] ^= 1
        (tmp_path / "flipped.ckpt").write_bytes(damaged)
        with pytest.raises(UserError, match=r"flipped\.ckpt is damaged: .*checksum.*copy it again"):
            load_checkpoint(tmp_path / "flipped.ckpt")


def test_compressed_files_could_hold_anything(write_run, tmp_path: Path) -> None:
    run = write_run()
    source = run / "checkpoints" / "last.ckpt"
    bomb = rewritten(source, tmp_path / "bomb.ckpt", lambda _, content: content, zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match=r"is compressed, which torch\.save never does"):
        load_checkpoint(bomb)


def test_a_file_describes_no_more_than_it_holds(write_run, tmp_path: Path, monkeypatch) -> None:
    """A model of 12,288 channels, whose tensors are one number each, repeated: it must not be built."""
    saved = read_checkpoint(write_run() / "checkpoints" / "last.ckpt")
    saved["nibble"]["config"]["model"]["width"] = 12288
    torch.save(saved, tmp_path / "large.ckpt")
    with pytest.raises(UserError, match=r"weights of another model: .*have another shape"):
        load_checkpoint(tmp_path / "large.ckpt")
    saved["state_dict"] = {name: torch.zeros(()).expand(9999, 9999) for name in saved["state_dict"]}
    torch.save(saved, tmp_path / "repeated.ckpt")
    with pytest.raises(UserError, match=r"damaged: a tensor \(9999, 9999\) has 4 bytes"):
        load_checkpoint(tmp_path / "repeated.ckpt")


def test_a_tensor_has_the_bytes_that_the_file_holds(tmp_path: Path) -> None:
    torch.save({"nibble": {}, "state_dict": {"a": torch.arange(10.0)}}, tmp_path / "ten.ckpt")
    changed = rewritten(
        tmp_path / "ten.ckpt",
        tmp_path / "more.ckpt",
        lambda name, content: content.replace(b"K\x0a", b"K\xc8") if name.endswith("data.pkl") else content,
    )
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(changed)


def test_whatever_the_unpickler_raises_is_one_message(write_run, tmp_path: Path) -> None:
    source = write_run() / "checkpoints" / "last.ckpt"
    for program in (b"", b"\x80\x02.", b"\x80\x02K\x01R.", b"\x80\x02(u.", b"\x80\x02j\x00\x00\x00\x00.", b"no pickle"):

        def change(name: str, content: bytes, program: bytes = program) -> bytes:
            return program if name.endswith("data.pkl") else content

        with pytest.raises(UserError, match="damaged"):
            read_checkpoint(rewritten(source, tmp_path / "program.ckpt", change))


def test_weights_that_are_no_numbers_become_no_bundle(write_run, tmp_path: Path) -> None:
    loaded = load_checkpoint(write_run())
    next(loaded.model.buffers())[0] = torch.nan
    with pytest.raises(UserError, match=r"running_mean is not finite, so no bundle"):
        write_bundle(loaded, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda saved: saved["state_dict"].update({"model.joiner.output.weight": "w"}),
            "weight, which is no tensor",
        ),
        (lambda saved: saved["nibble"].update(tokenizer=b"\x0a\xff" * 50), "it is not a SentencePiece model"),
        (lambda saved: saved["nibble"].update(method="magic"), "'magic' is not a valid Method"),
        (lambda saved: saved["nibble"]["config"].update(seed="one"), "seed is 'one'; give a whole number"),
    ],
)
def test_what_no_checkpoint_holds(write_run, change, message):
    path = write_run() / "checkpoints" / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    change(saved)
    torch.save(saved, path)
    with pytest.raises(UserError, match=rf"last\.ckpt is not a checkpoint of this version of nibble: .*{message}"):
        load_checkpoint(path)

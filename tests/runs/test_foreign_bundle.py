"""Bundles that are damaged, of another version, or made to do harm: each ends in one line that says what is wrong."""

import hashlib
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nibble.errors import UserError
from nibble.quant.spec import ActivationSpec, QuantConfig, Rule, Sparsity, WeightSpec
from nibble.runs.bundle import read_bundle, write_bundle
from nibble.runs.checkpoint import load_checkpoint, quantize

CHECKED = ("model.safetensors", "tokenizer.model", "tokens.txt")
FILES = ("config.json", *CHECKED)


@pytest.fixture(scope="module")
def written(write_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "bundle"
    write_bundle(load_checkpoint(write_run("int4", "rules")), folder)
    return folder


@pytest.fixture
def bundle(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "bundle"))


def sign(bundle: Path, said: dict[str, Any]) -> None:
    """Write config.json with checksums that fit: what someone who means harm would do."""
    others = {name: value for name, value in said.items() if name != "sha256"}
    own = json.dumps(others, sort_keys=True, separators=(",", ":"))
    sums = {name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in CHECKED}
    sums = {"config.json": hashlib.sha256(own.encode()).hexdigest()} | sums | said.get("sha256", {})
    (bundle / "config.json").write_text(json.dumps({**others, "sha256": sums}))


def described(bundle: Path) -> dict[str, Any]:
    said = json.loads((bundle / "config.json").read_text())
    del said["sha256"]
    return said


def change_tensors(bundle: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(bundle / "model.safetensors")
    change(tensors)
    save_file(tensors, bundle / "model.safetensors")
    sign(bundle, described(bundle))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(UserError, match=f"not a whole bundle: {name} is missing; copy the bundle again"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_file_is_named(bundle: Path, name: str, share: float) -> None:
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=f"{name} is damaged.*copy the bundle again"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_no_flipped_bit_goes_unnoticed(bundle: Path, name: str) -> None:
    content = (bundle / name).read_bytes()
    draw = random.Random(name)
    for _ in range(40):
        place = draw.randrange(len(content))
        flipped = bytes([content[place] ^ 1 << draw.randrange(8)])
        (bundle / name).write_bytes(content[:place] + flipped + content[place + 1 :])
        with pytest.raises(UserError, match=re.escape(str(bundle))):
            read_bundle(bundle)


def test_a_card_may_be_changed_or_left_out(bundle: Path) -> None:
    (bundle / "README.md").write_text("My model.")
    read_bundle(bundle)
    (bundle / "README.md").unlink()
    read_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "bundle of version 99; this nibble reads 3. Write it again from its checkpoint: python -m"),
        ({"version": "9" * 999}, "bundle of version 9{20};"),
        ({"format": "other"}, "not of a nibble bundle"),
        ({"run": "rm -rf /"}, "no option 'run'; nearest: "),
        ({"presicion": "rules"}, "no option 'presicion'; nearest: precision"),
        ({"precision": "int9"}, "precision is 'int9'; give one of float, int8"),
        ({"step": "many"}, "step is 'many'; give a whole number"),
        ({"config": None}, "config is None; give names with values"),
        ({"sha256": {"../../etc/passwd": "0"}}, r"'../../etc/passwd' is no file of a bundle; nearest: "),
        ({"sha256": {"/bin/sh": "0"}}, "'/bin/sh' is no file of a bundle"),
        ({"sha256": {"config.json": "0"}}, "config.json is damaged or was changed"),
        ({"sha256": {"tokens.txt": "0"}}, "tokens.txt is damaged or was changed"),
    ],
)
def test_an_entry_that_cannot_be(bundle: Path, change: dict[str, Any], message: str) -> None:
    sign(bundle, described(bundle) | change)
    with pytest.raises(UserError, match=message):
        read_bundle(bundle)


def test_an_entry_that_is_missing(bundle: Path) -> None:
    said = described(bundle)
    del said["method"]
    sign(bundle, said)
    with pytest.raises(UserError, match="no value for method"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("group", "change", "message"),
    [
        ("model", {"wdth": 32}, "no option 'config.model.wdth'; nearest: width"),
        ("model", {"width": "32"}, "config.model.width is '32'; give a whole number"),
        ("model", {"_target_": "os.system"}, "no option 'config.model._target_'"),
        ("model", {"width": 10**9}, r"model.width=1000000000 is more than \d+ tensors in \d+ bytes can be of"),
        ("model", {"width": 10**30}, "config.model.width is 10{30}; give a whole number"),
        ("model", {"layers": 10**9}, "model.layers=1000000000 is more than"),
        ("model", {"subsampling_channels": 10**9}, "model.subsampling_channels=1000000000 is more than"),
        ("features", {"mel_bins": 10**9}, "features.mel_bins=1000000000 is more than"),
        # What the file could hold in all, but not as one matrix: 3 GB that are never asked for.
        ("model", {"width": 30_000}, "weights of another model: .*another shape or type, such as .*30000"),
        ("model", {"layers": 2}, "weights of another model: .*weights are missing"),
        ("model", {"width": -32}, "model.width=-32; give at least 1"),
        ("model", {"heads": 0}, "model.heads=0; give at least 1"),
        ("model", {"dropout": 7.0}, "model.dropout=7.0; give 0 to 0.99"),
        ("features", {"mel_bins": 1}, "features.mel_bins=1; give at least 7"),
        ("quant", {"rules": []}, "weights of another model: .*are unknown, such as "),
        ("quant", {"rules": [{"match": "nothing"}]}, "describes a model that cannot be: quant rule 1"),
        ("quant", {"rules": [{"match": "**a" * 60}]}, "describes a model that cannot be: quant rule 1"),
        ("quant", {"rules": [{"weight": {"bits": 64}}]}, "weight bits is 64; give 1 to 8"),
    ],
)
def test_a_configuration_that_cannot_be(bundle: Path, group: str, change: dict[str, Any], message: str) -> None:
    said = described(bundle)
    said["config"][group].update(change)
    sign(bundle, said)
    with pytest.raises(UserError, match=message):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "config.json is damaged: "),
        (b"[]", "config.json is not of a nibble bundle"),
        (b"[" * 500_000, "config.json is damaged: it is nested too deep"),
        (b'{"a":' * 90_000 + b"1" + b"}" * 90_000, "config.json is damaged: it is nested too deep"),
        (b'{"format": "nibble bundle\xff"}', "config.json is damaged: 'utf-8' codec can't decode byte 0xff"),
        (b'\xff\xfe{"format": 1}', "config.json is damaged: 'utf-8' codec"),
        (b'{"format": NaN}', "config.json is damaged: NaN is no number in JSON"),
        (b'{"version": 1' + b"0" * 9999 + b"}", "config.json is damaged: "),
        (b" " * 2_000_000, "config.json has 2000000 bytes, and a bundle's has less than 1048576"),
    ],
    ids=["empty", "a list", "deep lists", "deep names", "not UTF-8", "UTF-16", "NaN", "long number", "huge"],
)
def test_content_that_is_no_description(bundle: Path, content: bytes, message: str) -> None:
    (bundle / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_bundle(bundle)


NORM = "encoder.blocks.0.attention.norm.weight"
CODES = "joiner.output.weight_codes"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(NORM), f"1 weights are missing, such as {NORM}"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "1 are unknown, such as extra"),
        (lambda tensors: tensors.update({NORM: torch.ones(33).half()}), rf"{NORM}: F16 \(33,\) not F16 \(32,\)"),
        (lambda tensors: tensors.update({NORM: torch.ones(32)}), rf"{NORM}: F32 \(32,\) not F16 \(32,\)"),
        (lambda tensors: tensors.update({NORM: torch.ones(32).bfloat16()}), rf"{NORM}: BF16 \(32,\) not F16"),
        (lambda tensors: tensors.update({CODES: tensors[CODES][:-1].clone()}), rf"{CODES}: U8 \(\d+,\) not U8"),
        (lambda tensors: tensors.update({CODES: tensors[CODES].char()}), rf"{CODES}: I8 \(\d+,\) not U8"),
    ],
)
def test_tensors_of_something_else(bundle: Path, change: Callable, message: str) -> None:
    change_tensors(bundle, change)
    with pytest.raises(UserError, match=f"weights of another model: .*{message}"):
        read_bundle(bundle)


def test_places_of_pruned_weights_that_cannot_be(write_run, tmp_path: Path) -> None:
    """2:4: the places of both survivors of each group stand at the end, two bits each; both the same is none."""
    rules = [
        Rule("joiner.output", WeightSpec(bits=4), ActivationSpec(), Sparsity(2, 4)),
        Rule(weight=WeightSpec(bits=4), activation=ActivationSpec()),
    ]
    write_bundle(quantize(load_checkpoint(write_run()), QuantConfig("pruned", rules)), tmp_path / "bundle")
    read_bundle(tmp_path / "bundle")
    change_tensors(tmp_path / "bundle", lambda tensors: tensors[CODES][-1:].fill_(0))
    with pytest.raises(UserError, match=rf"model\.safetensors is damaged: {CODES}: places in a group that do not incr"):
        read_bundle(tmp_path / "bundle")


def test_a_tokenizer_that_is_none(bundle: Path) -> None:
    (bundle / "tokenizer.model").write_bytes(b"\x0a\xff" * 50)
    sign(bundle, described(bundle))
    with pytest.raises(UserError, match=r"tokenizer\.model is not a tokenizer: it is not a SentencePiece model"):
        read_bundle(bundle)


def test_a_tokenizer_without_labels_or_with_one_that_is_no_text(bundle: Path) -> None:
    whole = (bundle / "tokenizer.model").read_bytes()
    assert b"\n\x01O" in whole
    for content, message in [(b"", "it has 0 labels"), (whole.replace(b"\n\x01O", b"\n\x01\xff"), "not UTF-8 text")]:
        (bundle / "tokenizer.model").write_bytes(content)
        sign(bundle, described(bundle))
        with pytest.raises(UserError, match=rf"tokenizer\.model is not a tokenizer: .*{message}"):
            read_bundle(bundle)


def test_no_expression_is_resolved(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "told")
    said = described(bundle)
    said["config"]["name"] = "${oc.env:SECRET}"
    sign(bundle, said)
    assert read_bundle(bundle).config.name == "${oc.env:SECRET}"

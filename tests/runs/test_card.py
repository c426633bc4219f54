import re
from dataclasses import replace
from pathlib import Path

import pytest

from nibble import provenance
from nibble.errors import UserError
from nibble.runs.bundle import bundle_bytes, read_bundle, write_bundle
from nibble.runs.card import Measured, write_card
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.loaded import float_parameters

MEASURED = Measured("digits", "dev-digits", 0.0196, (0.0129, 0.0271), 900, 200, "native greedy")


def test_says_what_the_model_is_worth_and_how_large_the_folder_is(write_run, tmp_path: Path) -> None:
    trained = load_checkpoint(write_run("int4", "rules"))
    folder = tmp_path / "bundle"
    for measured in (None, MEASURED):
        if measured is None:
            assert write_bundle(trained, folder) == bundle_bytes(folder)
        else:
            write_card(folder, trained, bundle_bytes(folder), measured)
        text = (folder / "README.md").read_text()
        parameters = float_parameters(trained.config, trained.tokenizer.size)
        ratio = 4 * parameters / bundle_bytes(folder)
        assert f"Size: {bundle_bytes(folder):,} bytes without this page" in text
        assert re.search(rf" {ratio:.2f} times smaller than its {parameters:,} parameters", text)
        assert text.startswith("# tiny at int4")
        assert "int4, trained at this precision" in text
        assert "Trained on tiny: 3 steps, seed 1, experiment tiny" in text
        assert re.search(r"commit [0-9a-f]{40}|no commit", text)
        assert "`encoder.**.weight_scale` (" in text
    assert "**1.96 %** (95 %: 1.29 … 2.71 %) on dev-digits of digits, 900 words in 200 utterances" in text
    assert read_bundle(folder).quant == "int4"


def test_a_bundle_is_as_large_however_the_run_was_typed(
    write_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = load_checkpoint(write_run("int4", "rules"))
    found = set()
    for number, word in enumerate(["python train.py", f"python train.py resume={'long/' * 50}"]):
        monkeypatch.setenv(provenance.COMMAND, word)
        config = replace(trained.config, run_dir=word, resume=word, records=word)
        write_bundle(replace(trained, config=config), tmp_path / str(number))
        found.add(tuple((tmp_path / str(number) / name).read_bytes() for name in ("config.json", "README.md")))
    assert len(found) == 1


def test_of_a_float_model(write_run, tmp_path: Path) -> None:
    write_bundle(load_checkpoint(write_run()), tmp_path / "bundle")
    text = (tmp_path / "bundle" / "README.md").read_text()
    assert "# tiny at float" in text
    assert "not measured yet" in text
    assert "all weights are in float32" in text


def test_a_full_disk(write_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = load_checkpoint(write_run("int4", "rules"))
    write_bundle(trained, tmp_path / "bundle")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match=r"README\.md cannot be written: No space left on device"):
        write_card(tmp_path / "bundle", trained, bundle_bytes(tmp_path / "bundle"), MEASURED)
    assert read_bundle(tmp_path / "bundle").quant == "int4"

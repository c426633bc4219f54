"""A run that was killed, at every kind of moment, ends with the bundle of one that never was."""

import pytest
from commands import Commands
from kills import MOMENTS, QUANT, bundle_of, differing


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    (folder / "data").mkdir()
    started = Commands(folder)
    yield started
    started.close()


@pytest.fixture(scope="module")
def whole(commands, tiny_corpus):
    options = [*QUANT["int4"], f"data.corpus_dir={tiny_corpus}"]
    return bundle_of(commands, commands.folder / "whole", options, ""), options


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_changes_nothing(commands, whole, moment):
    bundle, options = whole
    found = bundle_of(commands, commands.folder / moment.replace(" ", "_"), options, MOMENTS[moment])
    assert differing(bundle, found) == []

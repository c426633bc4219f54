"""The dashboard is sent by one command; without network. What its panels show: tests/training/test_logged.py."""

import json
import re

import pytest

from nibble.commands.dashboard import main, send
from nibble.errors import UserError

workspaces = pytest.importorskip("wandb_workspaces.workspaces", reason="pip install -e .[dashboard]")
wandb = pytest.importorskip("wandb")


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)


@pytest.fixture
def sent(monkeypatch) -> list:
    """What would have gone to W&B."""
    views: list = []

    def upsert(view):
        views.append(view)
        return {"upsertView": {"view": {"name": "nw-abc-v", "id": "1"}}}

    monkeypatch.setattr(workspaces.interface.internal, "upsert_view2", upsert)
    monkeypatch.setattr(workspaces.interface, "get_app_url", lambda _api: "https://wandb.ai")
    monkeypatch.setattr(wandb, "Api", object)
    return views


def test_one_command_sends_it_and_says_where_it_is(key, sent, capsys):
    main(["me/nibble"])
    assert capsys.readouterr().out.startswith("https://wandb.ai/me/nibble")
    (view,) = sent
    spec = json.loads(view.spec.model_dump_json(by_alias=True))
    titles = [section["name"] for section in spec["section"]["panelBankConfig"]["sections"]]
    assert titles == ["Results", "Worst utterances", "Training", "Speed and memory", "Layers"]
    assert "quant/.*/sqnr_db" in json.dumps(spec)


@pytest.mark.parametrize("name", ["nibble", "/nibble", "me/", "me/nibble/runs"])
def test_a_name_that_is_no_project(name, key, sent):
    with pytest.raises(UserError, match="give ENTITY/PROJECT"):
        send(name)
    assert not sent


def test_without_a_key_nothing_is_sent(sent, monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert main(["me/nibble"]) == 1
    assert re.match(r"error: a dashboard needs a key.*wandb login", capsys.readouterr().err)
    assert not sent


def test_what_wandb_refuses_is_said_in_one_line(key, sent, monkeypatch):
    def refuse(_view):
        raise wandb.errors.CommError("permission denied")

    monkeypatch.setattr(workspaces.interface.internal, "upsert_view2", refuse)
    with pytest.raises(UserError, match=r"dashboard of me/nibble: permission denied"):
        send("me/nibble")


def test_without_a_key_its_definition_is_written(sent, monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    path = tmp_path / "runs" / "dashboard.json"
    assert main([f"output={path}"]) == 0
    assert capsys.readouterr().out.strip() == str(path)
    panels = json.dumps(json.loads(path.read_text())["section"]["panelBankConfig"])
    assert "result/bundle_bytes" in panels
    assert "speed/waiting_share" in panels
    assert not sent
    assert main([f"output={path / 'below_a_file'}"]) == 1
    assert re.match(r"error: .* cannot be written.*give another output=FILE", capsys.readouterr().err)

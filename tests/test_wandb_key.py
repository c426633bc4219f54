"""Where a key of W&B may be, and what is said where there is none."""

import pytest

from nibble.errors import UserError
from nibble.wandb_key import check_wandb_key


@pytest.fixture(autouse=True)
def netrc(tmp_path, monkeypatch):
    """A file for keys that isn't there yet, and no variable that gives one."""
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


def test_no_key_says_what_to_type():
    with pytest.raises(
        UserError, match=r"a dashboard needs a key of api\.wandb\.ai: run `wandb login`, or set WANDB_API"
    ):
        check_wandb_key("a dashboard")


def test_the_variable_is_enough(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    check_wandb_key("a dashboard")


def test_the_file_of_wandb_login_is_enough_for_its_host_only(netrc, monkeypatch):
    netrc.write_text("machine api.wandb.ai\n  login user\n  password secret\n")
    check_wandb_key("a dashboard")
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    with pytest.raises(UserError, match=r"key of wandb\.example\.org"):
        check_wandb_key("a dashboard")


def test_a_damaged_file_is_named(netrc):
    netrc.write_text("machine\n")
    with pytest.raises(UserError, match=r"netrc cannot be read"):
        check_wandb_key("a dashboard")

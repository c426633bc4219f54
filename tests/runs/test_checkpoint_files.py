"""A checkpoint with a number that is not finite is never written, and the older one stays as it was."""

import pytest
import torch

from nibble.errors import UserError
from nibble.runs.checkpoint_writer import CheckpointFiles

BAD = torch.tensor([1.0, torch.nan])
WHOLE = {"global_step": 7, "state_dict": {"encoder.weight": torch.ones(2)}, "optimizer_states": []}


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ({"state_dict": {"encoder.weight": BAD}}, "encoder.weight"),
        ({"state_dict": {"norm.running_var": BAD / 0}}, "norm.running_var"),
        ({"current_model_state": {"encoder.weight": BAD}}, "encoder.weight"),
        ({"optimizer_states": [{"state": {3: {"step": 7, "exp_avg_sq": BAD}}}]}, "exp_avg_sq of parameter 3"),
    ],
    ids=["weights", "statistics", "weights beside their average", "optimizer"],
)
def test_what_is_not_finite_is_not_written(tmp_path, damage, named):
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    CheckpointFiles().save_checkpoint(WHOLE, path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=rf"{named} is not finite after step 7.*lower optimizer\.learning_rate"):
        CheckpointFiles().save_checkpoint(WHOLE | damage, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]

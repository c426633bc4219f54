"""One short run with every logger: what it logs, under the same names everywhere, and what the dashboard shows."""

import csv
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nibble import composition
from nibble.training import run as training
from nibble.training.loggers import _wandb_id
from nibble.training.run import train
from nibble.training.wandb_result import alignment_html

ONLY_ON_A_GPU = {"memory/gpu_bytes"}
EVERYTHING = [
    *("quant=int4", "loss=rnnt_ctc", "distill.teacher=self", "logger=wandb", "logger.tensorboard=true"),
    *("trainer.max_steps=10", "trainer.validate_every_steps=5", "trainer.log_every_steps=1"),
    "trainer.log_layers_every_steps=5",
]


@dataclass
class Logged:
    """What each logger of the run has."""

    record: dict
    folder: Path
    summary: dict = field(default_factory=dict)  # W&B's own, of all that was logged
    config: dict = field(default_factory=dict)
    artifacts: list = field(default_factory=list)

    @property
    def csv(self) -> list[dict]:
        with (self.folder / "csv" / "metrics.csv").open() as file:
            return list(csv.DictReader(file))

    def tensorboard(self) -> EventAccumulator:
        return EventAccumulator(str(self.folder / "tensorboard")).Reload()


@pytest.fixture(scope="module")
def logged(tiny_overrides, tmp_path_factory) -> Logged:
    found = Logged({}, Path("runs/logged"))

    def finish(loggers):
        names = wandb.run.summary.keys()
        found.summary = {name: wandb.run.summary[name] for name in names}
        found.config = dict(wandb.run.config)
        original(loggers)

    original = training.finish_loggers
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("logged")
        patch.chdir(folder)
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("WANDB_DATA_DIR", str(folder))
        patch.setattr(training, "finish_loggers", finish)
        patch.setattr(wandb.Run, "log_artifact", lambda _self, artifact: found.artifacts.append(artifact))
        words = [*tiny_overrides, f"run_dir={found.folder}", *EVERYTHING]
        found.record = training.train(composition.training_config(words))
        found.folder = folder / found.folder
    return found


def test_wandb_writes_offline_by_default(logged):
    (file,) = (logged.folder / "wandb").glob("offline-run-*/*.wandb")
    assert file.stem.endswith(_wandb_id(logged.folder)), "the name that the run keeps when it goes on"
    assert logged.config["quant"]["name"] == "int4"
    assert wandb.run is None


@pytest.mark.parametrize(
    "name",
    [
        *("train_loss", "train_transducer", "train_ctc", "train_posterior", "val_loss", "val_wer", "learning_rate"),
        *("speed/audio_hours_per_hour", "speed/waiting_share", "memory/process_bytes"),
        *("quant/joiner.output/weight/sqnr_db", "quant/joiner.output/weight/clipped"),
        *("quant/joiner.output/weight/codes_used", "result/wer", "result/bundle_bytes"),
    ],
)
def test_scalars_have_one_name_in_every_logger(logged, name):
    assert name in logged.summary
    assert any(row[name] for row in logged.csv)
    assert name in logged.tensorboard().Tags()["scalars"]


def test_the_result_is_the_record_s(logged):
    assert logged.summary["result/wer"] == logged.record["wer"]
    assert logged.summary["result/bundle_bytes"] == logged.record["bundle_bytes"]
    (last,) = [row for row in logged.csv if row["result/wer"]]
    assert int(last["step"]) == 10


def test_speed_is_of_the_time_since_it_was_last_logged(logged):
    rows = [row for row in logged.csv if row["speed/waiting_share"]]
    assert [int(row["step"]) for row in rows] == list(range(1, 11))
    assert all(0 <= float(row["speed/waiting_share"]) < 1 for row in rows)
    assert all(float(row["speed/audio_hours_per_hour"]) > 1 for row in rows)
    assert float(rows[0]["memory/process_bytes"]) > 2**26


def test_the_worst_utterances_can_be_heard_and_read(logged):
    wrong = sum(errors > 0 for _, errors, _ in logged.record["utterance_errors"])
    table = logged.summary["worst_utterances"]
    (file,) = (logged.folder / "wandb").glob(f"offline-run-*/files/{table['path']}")
    content = json.loads(file.read_text())
    first = dict(zip(content["columns"], content["data"][0], strict=True))
    assert len(content["data"]) == wrong
    assert first["errors"] == max(errors for _, errors, _ in logged.record["utterance_errors"])
    assert first["words"] == len(first["reference"].split())
    (sent,) = [artifact for artifact in logged.artifacts if artifact.type == "run_table"]
    for kind in ("wav", "html"):
        assert sum(name.endswith(f".{kind}") for name in sent.manifest.entries) == wrong


def test_an_alignment_keeps_its_colours_and_columns():
    html = alignment_html("GO LEFT NOW", "GO RIGHT NOW")
    assert html.startswith("<pre>")
    spoken, recognised = html.splitlines()[:2]
    assert re.search(r"color[^>]*>LEFT", spoken)
    assert re.search(r"color[^>]*>RIGHT", recognised)
    assert "color" not in spoken.partition("LEFT")[2]


def test_the_bundle_is_an_artifact_with_its_record(logged):
    (artifact,) = [artifact for artifact in logged.artifacts if artifact.type == "bundle"]
    assert artifact.metadata["wer"] == logged.record["wer"]
    assert "utterance_errors" not in artifact.metadata
    assert set(artifact.manifest.entries) == {path.name for path in (logged.folder / "bundle").iterdir()}


def test_panels_of_the_dashboard_show_what_is_logged(logged):
    layout = pytest.importorskip("nibble.dashboard.layout", reason="pip install -e .[dashboard]")
    for section in layout.workspace("me", "nibble").sections:
        for panel in section.panels:
            names = shown(panel)
            assert names, panel
            for name in names - ONLY_ON_A_GPU:
                assert any(re.fullmatch(name, key) for key in logged.summary), (panel.title, name)


def shown(panel) -> set[str]:
    """The metrics of a panel, by name or by pattern."""
    fields = vars(panel)
    names = [fields.get(name) for name in ("table_name", "metric_regex")] + fields.get("metrics", [])
    names += fields["y"] if isinstance(fields.get("y"), list) else [fields.get("y")]
    if not isinstance(fields.get("y"), list):
        names.append(fields.get("x"))  # of a scatter plot; of a curve it is the step
    return {getattr(name, "name", name) for name in names if name is not None}


def test_wandb_keeps_the_name_of_a_run_that_goes_on(tmp_path):
    first = _wandb_id(tmp_path)
    assert first == _wandb_id(tmp_path)
    assert first != _wandb_id(tmp_path / "another")


def test_debug_profile_prints_where_time_goes(make_config, capfd):
    train(make_config("trainer.profile=true", "trainer.max_steps=1", "trainer.validate_every_steps=9", "records=null"))
    assert "run_training_batch" in capfd.readouterr().out

"""The dashboard: sections of panels for the metrics that runs log."""

from wandb_workspaces.reports.v2 import (
    BarPlot,
    Config,
    LinePlot,
    ScatterPlot,
    SummaryMetric,
    WeavePanelSummaryTable,
)
from wandb_workspaces.workspaces import Config as Group
from wandb_workspaces.workspaces import RunsetSettings, Section, Workspace, WorkspaceSettings

STEP = "trainer/global_step"
PRECISION = "quant.name"


def workspace(entity: str, project: str) -> Workspace:
    """Build the dashboard without sending it. Runs that differ only in their seed share one line in each panel."""
    return Workspace(
        entity=entity,
        project=project,
        name="The cost of low precision",
        settings=WorkspaceSettings(x_axis=STEP),
        runset_settings=RunsetSettings(
            groupby=[Group("name"), Group(PRECISION)],
            pinned_columns=[f"summary:result/{name}" for name in ("wer", "wer_low", "wer_high", "bundle_bytes", "rtf")],
        ),
        sections=[
            Section(name="Results", panels=worth(), is_open=True),
            Section(
                name="Worst utterances", panels=[WeavePanelSummaryTable(table_name="worst_utterances")], is_open=True
            ),
            Section(name="Training", panels=training(), is_open=True),
            Section(name="Speed and memory", panels=speed()),
            Section(name="Layers", panels=layers()),
        ],
    )


def worth() -> list[ScatterPlot | BarPlot]:
    """One point or bar a precision."""
    wer, size_bytes, rtf = (SummaryMetric(f"result/{name}") for name in ("wer", "bundle_bytes", "rtf"))
    return [
        ScatterPlot(title="WER against bytes", x=size_bytes, y=wer, log_x=True),
        ScatterPlot(title="WER against real-time factor", x=rtf, y=wer),
        BarPlot(title="WER", metrics=["result/wer"], groupby=Config(PRECISION)),
        BarPlot(title="Times smaller than float32", metrics=["result/ratio"], groupby=Config(PRECISION)),
    ]


def training() -> list[LinePlot]:
    """Curves over optimizer steps."""
    return [
        curve("Loss", "train_loss", "val_loss"),
        curve("Terms of the loss", "train_transducer", "train_ctc", "train_encoder_match", "train_posterior"),
        curve("WER on the dev part", "val_wer"),
        curve("Learning rate", "learning_rate"),
    ]


def speed() -> list[LinePlot]:
    """Speed and memory over optimizer steps."""
    return [
        curve("Hours of audio an hour", "speed/audio_hours_per_hour"),
        curve("Share of time waiting for data", "speed/waiting_share"),
        curve("Memory, bytes", "memory/process_bytes", "memory/gpu_bytes"),
    ]


def layers() -> list[LinePlot]:
    """Quantization error of the weights: one line for each layer."""
    return [
        LinePlot(title="Signal to quantization noise, dB", x=STEP, metric_regex="quant/.*/sqnr_db"),
        LinePlot(title="Share of weights clipped", x=STEP, metric_regex="quant/.*/clipped"),
        LinePlot(title="Share of codes used", x=STEP, metric_regex="quant/.*/codes_used"),
    ]


def curve(title: str, *metrics: str) -> LinePlot:
    """Metrics over steps."""
    return LinePlot(title=title, x=STEP, y=list(metrics))

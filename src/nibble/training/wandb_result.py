"""Sends a result to W&B: a table of utterances to listen to, and the bundle as an artifact."""

import io
from dataclasses import asdict
from pathlib import Path

import wandb

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.evaluation.alignment import aligned
from nibble.evaluation.listening import listen
from nibble.evaluation.result import Result
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.records import Record
from nibble.terminal import Console

WORST = 20  # utterances in the table


def worst_utterances(bundle: Path, result: Result) -> dict[str, wandb.Table]:
    """A table of the utterances with most errors: the audio, and both texts word by word."""
    worst = result.worst(WORST)
    batches = listen(load_checkpoint(bundle), result.record.part, [one.transcript.id for one in worst])
    heard = {batch.ids[0]: batch.samples[0].numpy() for batch in batches if batch.samples is not None}
    table = wandb.Table(columns=["id", "errors", "words", "audio", "reference", "hypothesis", "aligned"])
    for (id_, reference, hypothesis), errors, words in worst:
        audio = wandb.Audio(heard[id_], sample_rate=SAMPLE_RATE_HZ)
        html = wandb.Html(alignment_html(reference, hypothesis))
        table.add_data(id_, errors, words, audio, reference, hypothesis, html)
    return {"worst_utterances": table}


def alignment_html(reference: str, hypothesis: str) -> str:
    """Both texts under each other as in the terminal, with its colours."""
    console = Console(record=True, file=io.StringIO(), width=100)
    console.print(aligned(reference, hypothesis, console.width))
    return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def artifact(bundle: Path, record: Record) -> wandb.Artifact:
    """The bundle with its record, without the errors of each utterance, which are thousands of numbers."""
    metadata = {name: value for name, value in asdict(record).items() if name not in ("utterance_errors", "groups")}
    found = wandb.Artifact(f"{record.experiment}-{record.quant}-seed{record.seed}", type="bundle", metadata=metadata)
    found.add_dir(str(bundle), policy="immutable")  # else W&B copies it to the home folder first
    return found

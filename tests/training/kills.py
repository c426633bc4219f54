"""Kills runs at all kinds of moments, lets them go on, and compares what they end with.

PYTHONPATH=tests python tests/training/kills.py FOLDER CORPUS KILLS

Half of the KILLS are of a float run, half of int4; each takes about ten seconds.

The dev WER is set, such that the best step is an earlier one: a validation that is left out would change the bundle.
"""

import filecmp
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from commands import Commands
from tiny_options import WITH_CTC

from nibble.runs.card import CARD

TINY = [*WITH_CTC, "model.heads=2", "hardware.max_batch_utterances=3", "optimizer.warmup_steps=10"]
RUN = [
    "trainer.max_steps=12",
    "trainer.validate_every_steps=3",
    "trainer.checkpoint_every_steps=3",
    "trainer.ema_decay=0.9",
    "trainer.early_stop_patience=2",
]
QUANT = {
    "float": ["quant=float"],
    "int4": ["quant=int4", "schedule.phases=[{at: 0, precision: float}, {at: 0.25, precision: rules}]"],
}
BEST_STEP = 6  # of validations at 3, 6, 9 and 12, the third of which is no better, nor the last: training stops early
WER = f"""
from nibble.training.module import TransducerModule
end = TransducerModule.on_validation_epoch_end
def with_set_wer(self):
    end(self)
    self.log("val_wer", 0.5 if self.global_step == {BEST_STEP} else 0.9)
TransducerModule.on_validation_epoch_end = with_set_wer
"""


def killed_in(module: str, name: str, when: str, after: bool = False) -> str:
    """A patch: the process ends, as if killed, in a call of a function for which `when` holds."""
    module, _, owner = module.partition(":")
    return f"""
import os, {module} as module
owner = module{f".{owner}" if owner else ""}
original = owner.{name}
calls = []
def killed(*arguments, **options):
    calls.append(arguments)
    {"found = original(*arguments, **options)" if after else "found = None"}
    if {when}: os._exit(9)
    return {"found" if after else "original(*arguments, **options)"}
owner.{name} = killed
"""


_STEP = "arguments[0].global_step"
MOMENTS = {
    "in the validation of the best step": killed_in(
        "nibble.training.module:TransducerModule", "validation_step", f"{_STEP} == {BEST_STEP}"
    ),
    "between the file of best.ckpt and its rename": killed_in(
        "pathlib:Path", "replace", "arguments[0].name == 'best.ckpt' and arguments[0].parent.suffix == '.partial'"
    ),
    "between best.ckpt and last.ckpt of that step": killed_in(
        "nibble.training.checkpoints:Checkpoints",
        "_save",
        f"arguments[1].global_step == {BEST_STEP} and arguments[2] == 'last'",
    ),
    "in the validation that ends training": killed_in(
        "nibble.training.module:TransducerModule", "validation_step", f"{_STEP} == {BEST_STEP + 6}"
    ),
    "after the decision to stop": killed_in("nibble.training.checkpoints:Checkpoints", "on_train_end", "True"),
    "while the bundle is written": killed_in("nibble.runs.bundle", "write_description", "True"),
    "before the record": killed_in("nibble.training.run", "evaluate_run", "True", after=True),
}


def bundle_of(commands: Commands, folder: Path, options: list[str], moments: Sequence[str | float]) -> Path | None:
    """Run in `folder`, be killed at each moment, a patch or after some seconds, and go on; the bundle of the run.

    None if the run ended before those seconds were over.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "data").symlink_to(commands.folder / "data")
    words = ["train.py", "hydra.run.dir=run", "resume=true", "records=records.jsonl", *TINY, *RUN, *options]
    for moment in moments:
        if isinstance(moment, float):
            done = commands(*words, cwd=folder, patch=WER, meanwhile=partial(kill_after, moment))
            if done.code == 0:
                return None
        else:
            done = commands(*words, cwd=folder, patch=WER + moment)
        assert done.code in (9, 137), f"it was not killed: {done.said}"
    for _ in range(2):
        done = commands(*words, cwd=folder, patch=WER)
        assert done.code == 0, done.said
    assert json.loads((folder / "run" / "run.json").read_text())["record"], "the run is not complete"
    assert len((folder / "records.jsonl").read_text().splitlines()) == 1, "one record, however often it goes on"
    assert not list(folder.rglob(".*.partial")), "what the killed process left is still there"
    return folder / "run" / "bundle"


def kill_after(wait_s: float, pid: int) -> None:
    """Kill a process, unless it ends by itself before."""
    time.sleep(wait_s)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def differing(bundle: Path, other: Path) -> list[str]:
    """The names of files that differ, without the card: it says the commit, which someone may change meanwhile."""
    names = sorted({file.name for folder in (bundle, other) for file in folder.iterdir()} - {CARD})
    return [name for name in names if name not in filecmp.cmpfiles(bundle, other, names, shallow=False)[0]]


def main(folder: Path, corpus: Path, kills: int) -> int:
    draw = random.Random(1)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    commands = Commands(folder)
    equal = 0
    for quant, few in QUANT.items():
        options = [*few, f"data.corpus_dir={corpus}"]
        whole = bundle_of(commands, folder / quant / "whole", options, [])
        started = time.monotonic()
        commands("train.py", "hydra.run.dir=timed", *TINY, *RUN, *options, cwd=folder, patch=WER)
        takes_s = time.monotonic() - started
        placed = list(MOMENTS.items())
        moments = [*placed, *(("", 0.0) for _ in range(kills // 2 - len(placed)))][: kills // 2]
        for number, (name, moment) in enumerate(moments):
            after_s = draw.uniform(0.1, 0.9) * takes_s
            while (bundle := bundle_of(commands, folder / quant / str(number), options, [moment or after_s])) is None:
                after_s *= 0.8  # it was faster this time
            different = differing(whole, bundle)
            equal += not different
            print(f"{quant}, {name or f'after {after_s:.1f} s'}: {different or 'equal'}", flush=True)
    commands.close()
    print(f"{equal} of {kills} bundles are equal")
    return int(equal != kills)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), int(sys.argv[3])))

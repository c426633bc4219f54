"""One of several processes that train a run together.

python -m nibble.commands.training_process RUN_DIR, which `nibble.training.launch` starts.
"""

import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

from nibble import distributed, stopping
from nibble.commands import hydra_command
from nibble.config import from_plain
from nibble.errors import Interrupted, UserError
from nibble.runs import run_file
from nibble.runs.run_folder import RunFolder
from nibble.training.run import fit
from nibble.writing import write_text


def main(folder: Path) -> int:
    """Returns 0, or the exit code of an error, whose text is left for the process that started this one."""
    stopping.catch_signals()
    hydra_command.quieten()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    run = run_file.read(folder)
    assert run is not None
    try:
        fit(replace(from_plain(run.config), run_dir=str(folder)))
    except UserError as error:
        write_text(RunFolder(folder).error(distributed.started()[0]), hydra_command.message(error))
        return 1
    except Interrupted as stop:
        return stop.exit_code
    return 0


def _end_with_parent() -> None:
    """End this process when its parent ends, which closes standard input."""
    while os.read(0, 1):  # not sys.stdin, whose lock this thread would hold when Python ends
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

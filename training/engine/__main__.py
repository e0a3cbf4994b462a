"""`python -m training.engine RUN_DIR`: train one run as a child process.

Exit status: 0 done, 75 may be tried again and resumes (out of memory, disk full, folder held by another process), 76
stopped by SIGTERM or by the file RUN_DIR/cancel with all progress saved, 77 cannot be trained as asked, 78 diverged, 1 a
fault of the program. With 75, 77, 78 and 1, RUN_DIR/error.json has {"sentence", "retry"}. For the other files see
`run_files`, for run.json see `recipe`.

Several processes train one run together when a launcher starts them, on one machine or several that share the folder:

    accelerate launch --multi_gpu --num_processes 4 -m training.engine RUN_DIR
    torchrun --nproc-per-node 4 -m training.engine RUN_DIR
    python -m training.engine.processes 4 RUN_DIR

The last is what workers use: on one machine, and with the exit status of the first process.
With "sharded" in run.json each of them keeps a part of the weights; see `sharding`.
"""

import argparse
import errno
import faulthandler
import os
import sys
import traceback
from contextlib import nullcontext, suppress
from pathlib import Path

from generation.engine.folders import FolderRefused
from generation.engine.importing import uncollected
from generation.engine.waiting import spin_where_idle
from training.engine.bands import TableRefused
from training.engine.host import keep_memory
from training.engine.lifeline import StopRequest, die_with_parent, hold_folder, is_main_process
from training.engine.recipe import RunRefused, load_run
from training.engine.run_files import write_json

DONE, RESUMABLE, CANCELLED, REFUSED, DIVERGED, FAULT = 0, 75, 76, 77, 78, 1
# A disk without room, or a share of it that is used up.
FULL = (errno.ENOSPC, errno.EDQUOT)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.engine", description="Train one run.")
    parser.add_argument("folder", type=Path, metavar="RUN_DIR", help="the folder that holds run.json")
    folder: Path = parser.parse_args(arguments).folder.resolve()
    die_with_parent()
    if not folder.is_dir():
        sys.stderr.write("The run's folder does not exist.\n")
        return REFUSED
    stop = StopRequest(folder)
    stop.listen()
    try:
        with hold_folder(folder) if is_main_process() else nullcontext():
            if is_main_process():
                (folder / "error.json").unlink(missing_ok=True)
            # Before torch is imported, which takes seconds: most refusals need none of it.
            load_run(folder / "run.json")
            keep_memory()
            spin_where_idle()
            return _train(folder, stop)
    except RunRefused as refused:
        return _refuse(folder, refused.sentence, RESUMABLE if refused.retry else REFUSED)
    except OSError as error:
        _log(traceback.format_exc())
        reason = "The disk is full." if _is_full_disk(error) else "A file could not be read or written."
        return _refuse(folder, reason, RESUMABLE)


def _train(folder: Path, stop: StopRequest) -> int:
    with uncollected():
        from training.engine.memory import ShortOfMemory, is_out_of_memory
        from training.engine.result import Diverged
        from training.engine.run import Stopped
        from training.engine.trainer import run_training

    try:
        run_training(folder, stop)
    except Stopped:
        return CANCELLED
    except Diverged as diverged:
        return _refuse(folder, diverged.sentence, DIVERGED)
    except (FolderRefused, TableRefused) as refused:
        return _refuse(folder, refused.sentence, REFUSED)
    except ShortOfMemory as short:
        _log(traceback.format_exc())
        return _refuse(folder, short.sentence, RESUMABLE)
    except (RunRefused, OSError):
        raise
    except Exception as error:
        _log(traceback.format_exc())
        if is_out_of_memory(error):
            return _refuse(folder, "There was not enough memory to go on; the trainer's log says what for.", RESUMABLE)
        return _refuse(folder, "The trainer failed by a fault of its own; its log has the details.", FAULT)
    return DONE


def _refuse(folder: Path, sentence: str, status: int) -> int:
    # The others of a group only say that they lost the main process.
    if is_main_process():
        # A disk that is full may have no room for it either; the exit status says the most of it.
        with suppress(OSError):
            write_json(folder / "error.json", {"sentence": sentence, "retry": status in (RESUMABLE, FAULT)})
    _log(f"{sentence}\n")
    return status


def _is_full_disk(error: OSError) -> bool:
    # What copies a whole folder only quotes what each file met.
    return error.errno in FULL or any(f"[Errno {number}]" in str(error) for number in FULL)


def _log(text: str) -> None:
    """Say it in the log, which may lie on a full disk too."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        # What could not be written would be tried again at the end, and change the exit status.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


if __name__ == "__main__":
    # Where a library breaks the process itself, the log says at least in which of our lines.
    faulthandler.enable()
    sys.exit(main())

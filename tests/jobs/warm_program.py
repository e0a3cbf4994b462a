"""What tests of warm starts fork: it says what it was given, and does as it is told."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

IMPORTED_IN = os.getpid()


def main(arguments: list[str]) -> int:
    """say FOLDER | exit STATUS | sleep FOLDER SECONDS | save FOLDER"""
    match arguments:
        case ["say", folder]:
            said = {
                "cwd": str(Path.cwd()),
                "name": os.environ.get("WARM_NAME"),
                "pid": os.getpid(),
                "imported_in": IMPORTED_IN,
                "group": os.getpgrp(),
                "parent": [os.getppid(), int(os.environ["ATELIER_PARENT_PID"])],
                "argv": sys.argv[1:],
                "terminates": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
                "input": sys.stdin.read(),
                # What the process began with, or the one that it was forked from, which is what the C library goes by.
                "began_with": dict(
                    line.split("=", 1) for line in Path("/proc/self/environ").read_text().split("\0") if line
                ),
            }
            Path(folder, "said.json").write_text(json.dumps(said))
            print("to the log")  # noqa: T201 - The test reads it.
        case ["exit", status]:
            return int(status)
        case ["sleep", folder, seconds]:
            other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
            partial = Path(folder, "pids.partial")
            partial.write_text(f"{os.getpid()} {other.pid}")
            partial.rename(Path(folder, "pids"))
            time.sleep(float(seconds))
            other.kill()
        case ["save", folder]:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(76))
            Path(folder, "ready").touch()
            time.sleep(120)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

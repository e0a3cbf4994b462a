"""What a trainer's process asks of its machine."""

import os
import subprocess
import sys

import pytest

# Sixteen blocks of 4 MiB, taken, written and given back, as often as it takes glibc to see what sizes come; then how many
# pages the system had to give for the last time.
ROUNDS = """
import resource, sys
from training.engine.host import keep_memory
asked = keep_memory() if sys.argv[1] == "keep" else False
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytearray(4 * 2**20) for _ in range(16)]
    del blocks
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(asked, faults)
"""


WAITS = """
import os, sys
import training.engine.__main__
print(os.environ["OMP_WAIT_POLICY"], os.environ.get("GOMP_SPINCOUNT", ""), "torch" in sys.modules, sep=",")
"""


def run_python(program: str, *arguments: str, **environment: str) -> str:
    unset = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True, env=unset | environment
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("given", "waits"),
    [
        ({}, ["PASSIVE", "2000"]),
        ({"GOMP_SPINCOUNT": "7"}, ["PASSIVE", "7"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", ""]),
    ],
)
def test_threads_spin_briefly_unless_the_environment_says_how_they_wait(
    given: dict[str, str], waits: list[str]
) -> None:
    # Set before torch, which has the environment read, is there.
    said = run_python(WAITS, **given)
    assert said.split(",") == [*waits, "False"]


def test_memory_that_was_given_back_comes_again_without_a_fault() -> None:
    kept, plain = (run_python(ROUNDS, each).split() for each in ("keep", "not"))
    assert kept[0] == "True"
    assert int(kept[1]) < int(plain[1]) / 10

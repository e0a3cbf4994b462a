"""How threads that compute together wait for the slowest of them: awake while the machine has nothing else to do.

A step on a CPU is thousands of short pieces. A thread that sleeps at the end of each takes longer to be woken than most pieces
take, and one that spins takes the core from whoever it waits for once other processes want it: alone on two cores a training step
is a quarter quicker with threads that spin, and beside one process that fills a core it takes twice as long. So it depends on
the moment. OpenMP's GNU library reads how long to spin once, when torch is imported, but spins hardly at all whenever there are
more threads in its teams than the machine has cores. `heed_machine` looks at what other processes use and keeps such teams,
asleep, for as long as they use much. Nothing that is computed depends on it.

Elsewhere than on Linux, with another OpenMP, and where the environment says how threads wait, all stays as it is.
"""

import atexit
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

# What `generation.engine` asks for: a few microseconds, whatever else goes on.
BRIEF = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}
# Some hundred microseconds; a thousand rounds where there are more threads than cores.
LONG = {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "20000"}
LOOK_SECONDS = 0.5
# Cores that others use: from so many on threads no longer spin, and below so few, twice in a row, they do again.
MUCH, LITTLE = 0.12, 0.06
# torch gives a thread no less than this many numbers of a simple operation.
GRAIN = 32768
# Where more teams would have to be held, few threads compute on many cores, and spinning is left.
MOST_TEAMS = 8

_may_spin = False
_heed: "Heed | None" = None


def spin_where_idle() -> None:
    """Ask for threads that spin, before torch is imported; `heed_machine` must follow once it is."""
    global _may_spin
    asked = {name: os.environ.get(name) for name in BRIEF}
    if "torch" in sys.modules or not sys.platform.startswith("linux") or asked not in (BRIEF, LONG) or not _has_gnu():
        return
    os.environ.update(LONG)
    _may_spin = True


def _has_gnu() -> bool:
    """Whether torch brings OpenMP's GNU library, as its wheels do; others take the same words for something else."""
    found = find_spec("torch")
    if found is None or found.origin is None or "omp" in os.environ.get("LD_PRELOAD", ""):
        return False
    package = Path(found.origin).parent
    return any(any(folder.glob("libgomp*.so*")) for folder in (package / "lib", package.with_name("torch.libs")))


def heed_machine(threads: int) -> bool:
    """Let the `threads` that torch computes with spin while the machine is idle, from now until the process ends or asks again
    with another number; says whether that can be."""
    global _heed
    if not _may_spin:
        return False
    if _heed is None:
        _heed = Heed(threads)
        # A thread that comes out of torch while the interpreter ends takes the process down with it.
        atexit.register(_heed.stop)
        threading.Thread(target=_heed.watch, name="heed-machine", daemon=True).start()
    else:
        _heed.change(threads)
    return True


class Heed:
    """Whether threads spin, by what others use; not until somebody has looked. `others()` gives the cores that other processes
    used since it was last asked."""

    def __init__(self, threads: int, others: Callable[[], float] | None = None, cores: int | None = None) -> None:
        allowed = sorted(os.sched_getaffinity(0))
        self.threads = threads
        self.cores = cores or len(allowed)
        self._others = others or Others(allowed)
        self._held: list[tuple[threading.Thread, threading.Event]] = []
        self._quiet = 0
        self._has_ended = False
        # A share of the machine's time: what is spun away is missing later.
        self._is_rationed = rationed_cores() < self.cores
        self._lock = threading.Lock()
        self.hold_back()

    @property
    def spins(self) -> bool:
        return not self._held

    def watch(self) -> None:
        while not self._has_ended:
            time.sleep(LOOK_SECONDS)
            with self._lock:
                if not self._has_ended:
                    self.look()

    def stop(self) -> None:
        """Look no more, and leave no thread behind that may still be in torch."""
        with self._lock:
            self._has_ended = True
            held = [thread for thread, _ in self._held]
            self.let_go()
        for thread in held:
            thread.join()

    def change(self, threads: int) -> None:
        """Other threads compute from now on."""
        if threads == self.threads:
            return
        with self._lock:
            self.let_go()
            self.threads = threads
            self._quiet = 0
            self.hold_back()

    def look(self) -> None:
        """Go by what others used since the last look, beyond the cores that are not computed with."""
        used = self._others() - (self.cores - self.threads)
        self._quiet = self._quiet + 1 if used < LITTLE and not self._is_rationed else 0
        if self.spins and used > MUCH:
            self.hold_back()
        elif not self.spins and self._quiet > 1:
            self.let_go()

    def hold_back(self) -> None:
        """Keep so many threads asleep in teams of their own that all teams have more threads than there are cores."""
        if self._held or self.threads < 2 or self.cores < self.threads:
            return
        for _ in range(self._teams()):
            done, ready = threading.Event(), threading.Event()
            thread = threading.Thread(
                target=_hold_team, args=(self.threads, ready, done), name="held-team", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                return  # No more threads are to be had here.
            ready.wait()
            self._held.append((thread, done))

    def _teams(self) -> int:
        return min(MOST_TEAMS, math.ceil((self.cores - self.threads + 1) / (self.threads - 1)))

    def let_go(self) -> None:
        for _, done in self._held:
            done.set()
        self._held.clear()


class Others:
    """The cores that other processes use of `cores`, by the kernel's count in `stat`."""

    def __init__(self, cores: list[int], stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._names = {f"cpu{core}" for core in cores}
        self._before = self._read()

    def __call__(self) -> float:
        """Infinite where nobody counts, as in some sandboxes."""
        before, self._before = self._before, self._read()
        seconds, busy, counted, own = (now - then for now, then in zip(self._before, before, strict=True))
        if counted <= 0:
            return math.inf
        return max(0.0, busy - own) / seconds

    def _read(self) -> tuple[float, float, float, float]:
        """(the clock, seconds in which the cores were busy, those and in which they were not, seconds of this process)."""
        busy = counted = 0
        with suppress(OSError):
            for line in self._stat.read_text().splitlines():
                name, *counts = line.split()
                if name in self._names:
                    user, nice, system, _idle, _wait, interrupts, soft, *_ = every = [int(count) for count in counts]
                    busy += user + nice + system + interrupts + soft
                    counted += sum(every)
        tick, mine = os.sysconf("SC_CLK_TCK"), os.times()
        return time.monotonic(), busy / tick, counted / tick, mine.user + mine.system


def rationed_cores(root: Path = Path("/")) -> float:
    """How many cores' time the process's control groups give it; infinite where they say nothing. `root` holds proc and sys."""
    return min(_rations(root), default=math.inf)


def _rations(root: Path) -> Iterator[float]:
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            # The second version of control groups has one tree, the first one for each controller.
            if not controllers:
                top, read = root / "sys/fs/cgroup", _read_second
            elif "cpu" in controllers.split(","):
                top, read = root / "sys/fs/cgroup" / controllers, _read_first
            else:
                continue
            # In a container the own path may be that outside of it, and the limit lies at the top.
            folder = top / path.strip("/")
            for place in dict.fromkeys((folder, *folder.parents, top)):
                if top in (place, *place.parents):
                    with suppress(OSError, ValueError):
                        quota, period = read(place)
                        # "max", or less than nothing: no limit.
                        if float(quota) > 0:
                            yield float(quota) / float(period)


def _read_second(place: Path) -> list[str]:
    return (place / "cpu.max").read_text().split()


def _read_first(place: Path) -> list[str]:
    return [(place / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")]


def _hold_team(threads: int, ready: threading.Event, done: threading.Event) -> None:
    import torch

    try:
        torch.zeros(2 * threads * GRAIN).add_(1)
    finally:
        ready.set()
    # The team is there for as long as the thread that it was made for.
    done.wait()


def _forget() -> None:
    """A fork has none of the threads, and whatever lock they held."""
    global _heed, _may_spin
    if _heed is not None:
        atexit.unregister(_heed.stop)
    _heed, _may_spin = None, _may_spin and _heed is None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

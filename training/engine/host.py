"""What a trainer's process asks of the machine that it computes on: that memory which it gives back stays its own.

glibc gives the top of its heap back to the system whenever much of it is free, which it is after each step, to ask for the
same pages, one fault each, in the next. Nothing that is computed depends on it. (How threads wait for each other, the other
thing that a step on a CPU hangs on, stands in `generation.engine`, since drawing does the same.)
"""

import ctypes
import sys

# glibc's names for them, in malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# The largest that glibc takes: what is larger than this is mapped on its own and given back, as before.
OWN_MAPPING_BYTES = 32 * 2**20
NEVER = -1


def keep_memory() -> bool:
    """Keep freed memory for the next step; says whether the C library can be asked for that, which glibc can."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    asked = (M_MMAP_THRESHOLD, OWN_MAPPING_BYTES), (M_TRIM_THRESHOLD, NEVER)
    return all(mallopt(name, value) == 1 for name, value in asked)

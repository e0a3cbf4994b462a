"""Importing torch and the libraries upon it, which is seconds of work, as fast as it goes."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Import torch in here. The garbage collector would look through a million objects again and again while they come, and find
    little, since modules stay: that was a third of the time. Nor does it look at them afterwards, not even when the process ends.

    Once in a process: what a program has at some later time may well become garbage.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()

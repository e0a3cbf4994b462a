"""Becomes another program, under the right account, and dies with the process that asked for it.

Run by path as `python -I -S launch.py PARENT SIGNAL UID GID CAPABILITIES -- PROGRAM ...`, never imported: it starts in a few
milliseconds because it imports next to nothing. UID -1 keeps the account; CAPABILITIES is a comma-separated list of numbers.
The order matters: the kernel forgets the death signal when the account changes, so it is asked for last.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
LINUX_CAPABILITY_VERSION_3 = 0x20080522


def main() -> None:
    parent, signal, uid, gid, capabilities = sys.argv[1:6]
    program = sys.argv[7:]
    if int(uid) >= 0:
        _change_account(int(uid), int(gid), [int(number) for number in capabilities.split(",") if number])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal), 0, 0, 0)
    # The parent may have died before the kernel was asked to watch it.
    if os.getppid() != int(parent):
        sys.exit(1)
    os.execvp(program[0], program)  # noqa: S606


def _change_account(uid: int, gid: int, capabilities: list[int]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if capabilities:
        libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if not capabilities:
        return
    bits = sum(1 << number for number in capabilities)
    header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(bits, bits, bits, 0, 0, 0)
    if libc.capset(header, sets) != 0:
        sys.exit(f"capset: {os.strerror(ctypes.get_errno())}")
    for number in capabilities:
        if libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0) != 0:
            sys.exit(f"ambient capability {number}: {os.strerror(ctypes.get_errno())}")


main()

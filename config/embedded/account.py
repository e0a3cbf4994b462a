"""Under which account Postgres runs: it refuses to be root, so root lends it another one."""

import os
import pwd
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from config.embedded.problem import Problem

LAUNCH = Path(__file__).with_name("launch.py")
NOBODY = 65534

# Capabilities that let an ordinary account pass folders that are closed to it, such as a home folder of mode 0700: the
# weakest that works is given, and to this one process only. Numbers from linux/capability.h.
DAC_READ_SEARCH = 2
DAC_OVERRIDE = 1
LADDER: tuple[tuple[int, ...], ...] = ((), (DAC_READ_SEARCH,), (DAC_OVERRIDE,))


@dataclass(frozen=True)
class Account:
    """Who a child process is: uid and gid (-1 keeps our own), and the capabilities that it needs beside them."""

    uid: int = -1
    gid: int = -1
    capabilities: tuple[int, ...] = ()


OURSELVES = Account()


def wrap(arguments: list[str], account: Account = OURSELVES, death_signal: int = 9) -> list[str]:
    """The command line that runs `arguments` as `account` and sends it `death_signal` when this process dies."""
    capabilities = ",".join(str(number) for number in account.capabilities)
    head = [sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), str(int(death_signal))]
    return [*head, str(account.uid), str(account.gid), capabilities, "--", *arguments]


def account_for(folder: Path, program: Path) -> Account:
    """The account that owns `folder` (made here when missing) and may run `program`.

    An ordinary user is his own account. Root lends `nobody`, or the account that owns the folder already. Raises Problem when
    the folder belongs to somebody else, or when this machine lets root change into no other account.
    """
    if os.geteuid() != 0:
        if folder.exists() and folder.stat().st_uid != os.geteuid():
            raise Problem(
                f"{folder} belongs to the account {_name(folder.stat().st_uid)}, probably because Atelier was once started as root. "
                "Start it as root again, or choose another DATA_DIR."
            )
        return OURSELVES
    if not folder.exists() or folder.stat().st_uid == 0:
        uid, gid = _nobody()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            os.chown(folder, uid, gid)
        except OSError as error:
            raise Problem(
                f"Postgres does not run as root, and {folder} cannot be given to another account ({error.strerror}). "
                "Start Atelier as an ordinary user, or set DATABASE_URL to a Postgres server."
            ) from error
    owner = folder.stat()
    refusal = ""
    for capabilities in LADDER:
        account = Account(owner.st_uid, owner.st_gid, capabilities)
        refusal = _try(account, folder, program)
        if not refusal:
            return account
    raise Problem(
        f"Postgres does not run as root, and as {_name(owner.st_uid)} it cannot use {folder} ({refusal}). Start Atelier as an "
        "ordinary user, choose a DATA_DIR that others may enter, or set DATABASE_URL to a Postgres server."
    )


def _try(account: Account, folder: Path, program: Path) -> str:
    """What goes wrong when `account` runs `program` and enters `folder`; empty when nothing does."""
    entered = subprocess.run(
        wrap(["/bin/sh", "-c", 'cd "$1" && exec "$2" --version', "sh", str(folder), str(program)], account),
        capture_output=True,
        text=True,
        cwd="/",
        timeout=30,
        check=False,
    )
    return "" if entered.returncode == 0 else (entered.stderr.strip().splitlines() or ["no reason given"])[-1]


def _nobody() -> tuple[int, int]:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return NOBODY, NOBODY
    return entry.pw_uid, entry.pw_gid


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"number {uid}"

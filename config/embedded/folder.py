"""The data folder: what lies where, files that are never half written, and the lock that lets one supervisor in."""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from config.embedded.problem import Problem


def prepare_folder(data_dir: Path) -> None:
    """Makes the data folder with its `run` and `logs`; raises Problem where that is not possible."""
    try:
        for folder in (data_dir, data_dir / "run", data_dir / "logs"):
            folder.mkdir(parents=True, exist_ok=True)
        probe = data_dir / "run" / f"writable.{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise Problem(
            f"The data folder {data_dir} cannot be written ({(error.strerror or str(error)).lower()}). "
            "Make it writable, or choose another with DATA_DIR=... or --data-dir."
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in the file; empty where there is none or it is damaged."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes the object under a temporary name (mode 0600), then renames it: readers see the old one or the new one."""
    write_secret(path, json.dumps(value, indent=1))


def write_secret(path: Path, text: str) -> None:
    """Writes the text with mode 0600, whole or not at all."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def kept_secret(path: Path) -> str:
    """The random text in the file, made at first use."""
    if path.exists() and (text := path.read_text().strip()):
        return text
    text = secrets.token_urlsafe(32)
    write_secret(path, text)
    return text


@contextmanager
def hold_lock(data_dir: Path) -> Iterator[None]:
    """Holds DATA_DIR/supervisor.lock, so that a data folder has one supervisor.

    The kernel drops the lock with the process, however that ends, so it is never stale. Raises Problem when another has it.
    """
    path = data_dir / "supervisor.lock"
    descriptor = _take_lock(path)
    if descriptor is None:
        raise Problem(
            f"Atelier is already running with the data folder {data_dir} (process {_holder(path)}). "
            "Stop that one first, or choose another DATA_DIR and PORT."
        )
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _take_lock(path: Path) -> int | None:
    # Whoever only looks whether somebody holds the lock takes it for an instant, so one refusal says nothing.
    for _ in range(20):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one who held it before removes the file: a lock on a removed file keeps nobody out.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except OSError:
            pass
        os.close(descriptor)
        time.sleep(0.05)
    return None


def _holder(path: Path) -> str:
    try:
        return path.read_text().strip() or "unknown"
    except OSError:
        return "unknown"


def is_locked(data_dir: Path) -> bool:
    """Whether a supervisor holds the data folder now."""
    try:
        descriptor = os.open(data_dir / "supervisor.lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False

"""Settings that come from the environment: read once, checked, and refused with a sentence when they are nonsense."""

import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off", ""}


def env_str(name: str, default: str = "") -> str:
    """The variable's text, or the default where it is unset or empty."""
    return os.environ.get(name, "").strip() or default


def env_bool(name: str, default: bool) -> bool:
    """The variable as a truth value; anything but the usual words raises ImproperlyConfigured."""
    raw = os.environ.get(name)
    if raw is None:
        return default
    value = raw.strip().lower()
    if value in TRUE:
        return True
    if value in FALSE:
        return False
    raise ImproperlyConfigured(f"{name} is {raw!r}, but must be one of 1, 0, true, false, yes, no, on, off.")


def env_int(name: str, default: int, *, least: int, most: int) -> int:
    """The variable as a whole number within [least, most]; else ImproperlyConfigured."""
    raw = os.environ.get(name, "").strip()
    if not raw:
        return default
    try:
        value = int(raw)
    except ValueError:
        raise ImproperlyConfigured(f"{name} is {raw!r}, but must be a whole number.") from None
    if not least <= value <= most:
        raise ImproperlyConfigured(f"{name} is {value}, but must lie between {least} and {most}.")
    return value


def env_list(name: str, default: list[str]) -> list[str]:
    """The variable split at commas."""
    raw = os.environ.get(name, "").strip()
    return [part.strip() for part in raw.split(",") if part.strip()] if raw else default


def secret_key(data_dir: Path) -> str:
    """SECRET_KEY from the environment, or from DATA_DIR/secret-key, which is made (mode 0600) at first use.

    The file is made with O_EXCL, so that two processes that start together end with one key.
    """
    if key := env_str("SECRET_KEY"):
        if len(key) < 50:
            raise ImproperlyConfigured("SECRET_KEY is shorter than 50 characters; give a longer random one.")
        return key
    path = data_dir / "secret-key"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"secret-key.{os.getpid()}.{secrets.token_hex(4)}")
        if not path.exists():
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(64))
            try:
                os.link(fresh, path)
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        key = path.read_text().strip()
    except OSError as error:
        raise ImproperlyConfigured(
            f"The secret key cannot be kept in {path} ({error.strerror}). Make the folder writable, "
            "choose another with DATA_DIR, or set SECRET_KEY."
        ) from error
    if len(key) < 50:
        raise ImproperlyConfigured(
            f"{path} does not hold a usable key. Remove it and a new one is made; people then sign in again."
        )
    return key

"""Settings that come from the environment: read once, checked, and refused with a sentence when they are nonsense."""

import os
import secrets
from collections.abc import Collection
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dj_database_url
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


def env_choice(name: str, default: str, choices: Collection[str]) -> str:
    """The variable's text, which must be one of the choices; else ImproperlyConfigured."""
    value = env_str(name, default)
    if value not in choices:
        raise ImproperlyConfigured(f"{name} is {value!r}, but must be one of {', '.join(choices)}.")
    return value


def env_time_zone(name: str, default: str) -> str:
    """The variable as a time zone that this machine knows; else ImproperlyConfigured."""
    value = env_str(name, default)
    if value != default:
        try:
            ZoneInfo(value)
        except (LookupError, OSError, ValueError):
            raise ImproperlyConfigured(f"{name} is {value!r}, which is no time zone such as Europe/Berlin.") from None
    return value


def database(url: str) -> dict[str, Any]:
    """A database's address as Django has it. Anything but the address of a Postgres raises ImproperlyConfigured."""
    try:
        parsed: dict[str, Any] = dict(dj_database_url.parse(url, conn_max_age=60, conn_health_checks=True))
    except ValueError:
        parsed = {}
    if parsed.get("ENGINE") != "django.db.backends.postgresql" or not parsed.get("NAME"):
        # The address itself is not repeated: it may hold a password.
        raise ImproperlyConfigured("DATABASE_URL must look like postgres://user:password@host:port/name.")
    return parsed


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

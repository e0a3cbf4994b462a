"""Settings: what comes from the environment is checked, the secret key is kept safe, and production is deployable."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from config.environment import env_bool, env_int, secret_key

PROJECT = Path(__file__).resolve().parents[2]


def manage(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    # Tests with a browser need it in the process that they share with these.
    ours = {key: value for key, value in os.environ.items() if key != "DJANGO_ALLOW_ASYNC_UNSAFE"}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env={**ours, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_production_settings_pass_the_deployment_check(tmp_path):
    done = manage(
        "check",
        "--deploy",
        "--fail-level=WARNING",
        PRODUCTION="1",
        ALLOWED_HOSTS="atelier.example.org",
        DATA_DIR=str(tmp_path),
    )
    assert (done.returncode, done.stdout.strip()) == (0, "System check identified no issues (0 silenced)."), done.stderr


def test_models_and_migrations_agree(tmp_path):
    done = manage("makemigrations", "--check", "--dry-run", DATA_DIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_secret_key_is_made_once_and_is_private(tmp_path, monkeypatch):
    monkeypatch.delenv("SECRET_KEY", raising=False)
    key = secret_key(tmp_path)
    assert len(key) >= 64
    assert secret_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / "secret-key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret-key"]


def test_secret_key_of_the_environment_wins_and_must_be_long(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "k" * 50)
    assert secret_key(tmp_path) == "k" * 50
    monkeypatch.setenv("SECRET_KEY", "short")
    with pytest.raises(ImproperlyConfigured, match="shorter than 50"):
        secret_key(tmp_path)


def test_unusable_key_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("SECRET_KEY", raising=False)
    (tmp_path / "secret-key").write_text("oops")
    with pytest.raises(ImproperlyConfigured, match="does not hold a usable key"):
        secret_key(tmp_path)


def test_key_that_cannot_be_kept_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.delenv("SECRET_KEY", raising=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(ImproperlyConfigured, match="cannot be kept"):
        secret_key(tmp_path / "file" / "data")


@pytest.mark.parametrize(("value", "says"), [("maybe", "must be one of"), ("2", "must be one of")])
def test_nonsense_truth_values_are_refused(monkeypatch, value, says):
    monkeypatch.setenv("PRODUCTION", value)
    with pytest.raises(ImproperlyConfigured, match=says):
        env_bool("PRODUCTION", False)


@pytest.mark.parametrize(("value", "says"), [("ten", "must be a whole number"), ("0", "must lie between 3 and 3600")])
def test_nonsense_numbers_are_refused(monkeypatch, value, says):
    monkeypatch.setenv("JOB_LEASE_SECONDS", value)
    with pytest.raises(ImproperlyConfigured, match=says):
        env_int("JOB_LEASE_SECONDS", 30, least=3, most=3600)


def test_web_process_knows_no_torch(tmp_path):
    """Everything that a web process imports, its URLs and views too, and none of it is torch or what rests on it."""
    program = (
        "import sys, config.wsgi\n"
        "from django.urls import get_resolver\n"
        "get_resolver().url_patterns\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'open_clip', 'accelerate', 'peft', 'torchvision', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings", "DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip().splitlines()[-1:] == ["[]"], done.stderr


def test_what_the_database_address_asks_for_is_kept(tmp_path):
    done = manage(
        "shell",
        "--no-imports",
        "-c",
        "from django.conf import settings; import json; print(json.dumps(settings.DATABASES['default']['OPTIONS']))",
        DATABASE_URL="postgres://somebody:secret@db.example.org/atelier?sslmode=verify-full&connect_timeout=9",
        DATA_DIR=str(tmp_path),
    )
    assert json.loads(done.stdout) == {
        "application_name": "atelier",
        "connect_timeout": 9,
        "options": "-c idle_in_transaction_session_timeout=60s -c plan_cache_mode=force_generic_plan",
        "prepare_threshold": 5,
        "sslmode": "verify-full",
    }, done.stderr

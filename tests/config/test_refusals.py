"""What keeps Atelier from starting is said in a sentence, by `up` and beforehand by `doctor`."""

import ast
import os
import socket
import subprocess
import sys

import psutil
import pytest

from config.embedded.account import DAC_READ_SEARCH, NOBODY, OURSELVES, Account
from config.embedded.processes import PROJECT

from .installation import free_port, manage


@pytest.fixture
def busy_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_busy_port_is_named_with_its_process(tmp_path, busy_port):
    for command in ("up", "doctor"):
        said = manage(tmp_path, command, "--port", str(busy_port))
        assert said.returncode == 1
        assert f"Port {busy_port} is in use by {_own_name()} (process {os.getpid()})" in said.stdout + said.stderr
        assert "PORT=" in said.stdout + said.stderr
        assert "Traceback" not in said.stderr
    assert not (tmp_path / "postgres").exists()


def test_folder_that_cannot_be_written_is_named(tmp_path):
    # Root passes every mode, but nobody makes a folder below a file.
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "data"
    for command in (["up"], ["doctor"], ["migrate"], ["verify"]):
        said = manage(folder, *command, PORT=str(free_port()))
        assert said.returncode == 1
        assert f"The data folder {folder} cannot be written" in said.stdout + said.stderr
        assert "Traceback" not in said.stderr


def test_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    # Root may write everywhere, so it asks as somebody else, who may enter its folders and no more.
    account = Account(NOBODY, NOBODY, (DAC_READ_SEARCH,)) if os.geteuid() == 0 else OURSELVES
    said = manage(tmp_path / "data", "up", "--port", str(free_port()), account=account)
    assert said.returncode == 1
    assert f"The data folder {tmp_path / 'data'} cannot be written (permission denied)" in said.stderr


def test_data_of_another_postgres_is_left_alone(tmp_path):
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("16\n")
    for command in ("up", "doctor"):
        said = manage(tmp_path, command, "--port", str(free_port()))
        assert said.returncode == 1
        assert "was made by Postgres 16, but this Atelier has Postgres 18" in said.stdout + said.stderr
    assert {path.name for path in (tmp_path / "postgres").iterdir()} == {"PG_VERSION"}


def test_database_and_broker_that_do_not_answer_are_named(tmp_path):
    port = free_port()
    refused = {
        "DATABASE_URL": (f"postgres://nobody@127.0.0.1:{port}/none", "The database of DATABASE_URL does not answer"),
        "CELERY_BROKER_URL": (f"redis://127.0.0.1:{port}/0", "The broker of CELERY_BROKER_URL does not answer"),
    }
    for name, (value, sentence) in refused.items():
        said = manage(tmp_path, "up", "--port", str(free_port()), **{name: value})
        assert said.returncode == 1
        assert sentence in said.stderr
        assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("PORT", "99999", "from 1 to 65535"),
        ("PORT", "0", "from 1 to 65535"),
        ("DEBUG", "maybe", "DEBUG is 'maybe'"),
        ("JOB_LEASE_SECONDS", "1e9", "JOB_LEASE_SECONDS is '1e9'"),
        ("SECRET_KEY", "short", "SECRET_KEY is shorter"),
        ("TIME_ZONE", "Mars/Phobos", "TIME_ZONE is 'Mars/Phobos'"),
        ("LOG_LEVEL", "LOUD", "LOG_LEVEL is 'LOUD'"),
        ("MEDIA_STORAGE", "ftp://x", "MEDIA_STORAGE is 'ftp://x'"),
        ("RATERS", "many", "RATERS is 'many'"),
        ("DATABASE_URL", "garbage", "DATABASE_URL must look like"),
        ("DATABASE_URL", "mysql://root@localhost/atelier", "DATABASE_URL must look like"),
        ("DATABASE_URL", "postgres://[bad/x", "DATABASE_URL must look like"),
    ],
)
def test_nonsense_in_the_environment_is_named(tmp_path, name, value, sentence):
    environment = {"PORT": str(free_port()), name: value}
    for command in ("up", "doctor"):
        said = manage(tmp_path, command, **environment)
        assert said.returncode in (1, 2)
        assert sentence in said.stdout + said.stderr
        assert "Traceback" not in said.stdout + said.stderr
    assert not (tmp_path / "postgres").exists()


def test_other_commands_name_nonsense_too(tmp_path):
    said = manage(tmp_path, "verify", DATABASE_URL="garbage")
    assert (said.returncode, said.stderr) == (
        1,
        "DATABASE_URL must look like postgres://user:password@host:port/name.\n",
    )


def test_doctor_is_content_where_nothing_is_wrong(tmp_path):
    said = manage(tmp_path, "doctor", "--port", str(free_port()))
    problems = [line for line in said.stdout.splitlines() if line.startswith("problem")]
    assert problems == []
    assert said.returncode == 0
    assert "data folder: " in said.stdout


def test_old_python_gets_a_sentence():
    program = (PROJECT / "manage.py").read_text()
    # The first statements must be readable by an interpreter that knows nothing new; they are run as one that is old.
    start = f"import sys; sys.version_info = (3, 9, 2, 'final', 0); exec(compile({program!r}, 'manage.py', 'exec'))"
    said = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert said.stderr == "Atelier needs Python 3.11 or newer; this is Python 3.9. Run it with a newer one.\n"
    ast.parse(program, feature_version=(3, 7))


def _own_name() -> str:
    return psutil.Process().name()

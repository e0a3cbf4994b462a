"""Ten kills at random moments while the loop goes round: it ends, nothing is lost, and nothing is there twice."""

import json
import random
import signal
import subprocess
import sys
import time

import psutil
import psycopg
import pytest

from config.embedded.processes import PROJECT
from tests.config.installation import Installation, environment, manage

pytestmark = [pytest.mark.processes, pytest.mark.model]
KILLS = 10
QUICK = {"JOB_LEASE_SECONDS": "6", "JOB_SWEEP_SECONDS": "2", "JOB_BACKOFF_SECONDS": "1"}
NAME = "Killed loop"
LOOP = ["demo_loop", "--json", "--name", NAME, "--images", "1", "--steps", "30", "--batch-size", "8"]


def victims(installation: Installation) -> list[psutil.Process]:
    """Everything below the supervisor that is alive: some ends by itself while it is looked at."""
    return [process for process in installation.look() if is_alive(process)]


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_ten_kills_while_the_loop_goes_round_lose_nothing(tmp_path):
    chance = random.Random(20_311)
    data_dir = tmp_path / "data"
    installation = Installation(data_dir, **QUICK)
    killed = []
    loop = None
    try:
        installation.wait_up(180)
        with (tmp_path / "loop.err").open("w") as errors:
            loop = subprocess.Popen(
                [sys.executable, str(PROJECT / "manage.py"), *LOOP],
                cwd=PROJECT,
                env=environment(data_dir, **QUICK),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        while len(killed) < KILLS and loop.poll() is None:
            time.sleep(chance.uniform(2, 7))
            if len(killed) == KILLS // 2:
                # The supervisor itself, and with it everything; then somebody starts it again.
                installation.process.send_signal(signal.SIGKILL)
                installation.process.wait(30)
                killed.append("supervisor")
                installation = Installation(data_dir, port=installation.port, **QUICK)
                installation.wait_up(180)
                continue
            if on_last_attempt(installation):
                # A job that dies as often as is allowed is given up, and rightly so: ten kills may all hit the same one.
                continue
            victim = chance.choice(victims(installation))
            try:
                killed.append(" ".join(victim.cmdline()[-6:]) or victim.name())
                victim.kill()
            except psutil.NoSuchProcess:
                killed.pop()
        output, _ = loop.communicate(timeout=900)
        said = (tmp_path / "loop.err").read_text()[-3000:]
        assert loop.returncode == 0, f"{output}\n{said}\nkilled: {killed}"
        assert len(killed) == KILLS, killed
        report = json.loads(output)
        assert report["ok"]
        checked = manage(data_dir, "verify", **QUICK)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert exactly_once(installation) == {
            "samples": report["steps"]["draw"]["samples"],
            "places": report["steps"]["draw"]["samples"],
            "batches": 3,
            "judgments": report["judgments"],
            "runs": 1,
            "versions": 2,
            "evaluations": 1,
            "campaigns": 3,
            "open jobs": 0,
        }
    finally:
        if loop is not None:
            # What went wrong above must not leave it to the tests that follow.
            loop.kill()
            loop.communicate()
        if installation.process.poll() is None:
            installation.stop()


def on_last_attempt(installation: Installation) -> bool:
    """Whether another death would end a job; also where nobody can say, since the database is just coming back."""
    try:
        return bool(
            installation.query(
                "select 1 from jobs_job where state in ('queued', 'running') and attempt >= max_attempts - 1 limit 1"
            )
        )
    except psycopg.OperationalError:
        return True


def exactly_once(installation: Installation) -> dict[str, int]:
    """What is there after the loop, counted in the database itself."""
    counts = {
        "samples": "select count(*) from generation_sample s join generation_generationbatch b on b.id = s.batch_id "
        f"where b.name = '{NAME}: stickers'",
        "places": "select count(distinct (s.prompt_id, s.index)) from generation_sample s "
        f"join generation_generationbatch b on b.id = s.batch_id where b.name = '{NAME}: stickers'",
        "batches": "select count(*) from generation_generationbatch",
        # Of each item as many answers as were asked for, and of one rater at most one.
        "judgments": "select count(distinct (item_id, rater_id)) from curation_judgment",
        "runs": "select count(*) from training_trainingrun",
        "versions": "select count(*) from generation_modelversion",
        "evaluations": "select count(*) from training_evaluation",
        "campaigns": "select count(*) from curation_campaign",
        "open jobs": "select count(*) from jobs_job where state in ('queued', 'running')",
    }
    return {name: installation.query(statement)[0][0] for name, statement in counts.items()}

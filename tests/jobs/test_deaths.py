"""Kills real workers, brokers and databases in the middle of jobs. Each time the job ends done once."""

import signal
import sys
import time
from collections import Counter

import psutil
import pytest
from django.db import connections

from jobs.doorbell import forget_connection, ring
from jobs.integrity import problems
from jobs.models import Job, JobState, OutboxMessage, Worker
from jobs.precedence import put_first
from jobs.queue import enqueue, request_cancel
from tests.jobs import work  # noqa: F401 - Registers the kinds.
from tests.jobs.site import LEASE_SECONDS, Site, running_site, wait_for, wait_until

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def _installation(tmp_path_factory, django_db_blocker):
    with django_db_blocker.unblock(), running_site(tmp_path_factory.mktemp("site")) as site:
        site.start_scheduler()
        yield site


@pytest.fixture
def site(_installation):
    """The installation without jobs and without workers but the control worker; afterwards nothing may be inconsistent."""
    Job.objects.all().delete()
    _installation.broker().flushall()
    # A test before may have taken the broker away: this process then keeps silent for a while.
    forget_connection()
    wait_for(lambda: Worker.objects.filter(queues="control").exists(), 30)
    yield _installation
    found = list(problems())
    for name in [name for name in _installation.processes if name not in ("control", "beat")]:
        process = _installation.processes.pop(name)
        for one in [*psutil.Process(process.pid).children(recursive=True), process]:
            one.kill()
        process.wait()
    assert found == []


def note(measured: str) -> None:
    """Kept with the test's output, which `pytest -rA` shows."""
    sys.stdout.write(f"{measured}\n")


def writes(job: Job) -> Counter:
    return Counter(event.detail.get("step") for event in job.events.filter(kind="wrote"))


def start_steps(site: Site, steps: int = 12, seconds: float = 0.2) -> Job:
    """A job of a few seconds that has begun to write."""
    job = enqueue("tests.steps", {"steps": steps, "seconds": seconds}, label="Steps")
    wait_for(lambda: len(writes(job)) >= 2)
    return job


def assert_done_once(job: Job, steps: int = 12) -> None:
    assert job.state == JobState.SUCCEEDED
    assert writes(job) == Counter(range(steps))
    assert job.attempts.filter(outcome="succeeded").count() == 1


def outcomes(job: Job) -> list[str]:
    return list(job.attempts.order_by("number").values_list("outcome", flat=True))


def test_killed_worker_loses_its_job_to_the_next(site):
    site.start_worker("one")
    job = start_steps(site)
    pool = site.pool_process("one")
    site.kill("one")
    wait_for(lambda: not pool.is_running() or pool.status() == psutil.STATUS_ZOMBIE)
    site.start_worker("two", wait=False)
    seconds = wait_until(job, JobState.SUCCEEDED)
    assert_done_once(job)
    assert outcomes(job) == ["lost", "succeeded"]
    note(f"kill -9 of the worker: done again after {seconds:.1f} s")


def test_killed_pool_process_is_replaced_and_the_job_done(site):
    site.start_worker("one")
    job = start_steps(site)
    site.pool_process("one").kill()
    note(f"kill -9 of the pool process: {wait_until(job, JobState.SUCCEEDED):.1f} s")
    assert_done_once(job)
    assert outcomes(job) == ["lost", "succeeded"]


def test_stopped_worker_gives_its_job_back_at_once(site):
    site.start_worker("one")
    job = start_steps(site, steps=20)
    begun = time.monotonic()
    site.kill("one", signal.SIGTERM)
    note(f"SIGTERM: worker ended after {time.monotonic() - begun:.1f} s")
    job.refresh_from_db()
    assert (job.state, outcomes(job)) == (JobState.QUEUED, ["released"])
    assert not Worker.objects.filter(name__startswith="one@").exists()
    site.start_worker("two", wait=False)
    wait_until(job, JobState.SUCCEEDED)
    assert_done_once(job, 20)
    assert job.attempt == 2
    assert job.max_attempts == 4  # An attempt that was given back does not count.


def test_stopped_worker_with_a_deaf_job_gives_it_back_too(site):
    site.start_worker("one")
    job = enqueue("tests.deaf", {"seconds": 60}, label="Deaf")
    wait_until(job, JobState.RUNNING)
    begun = time.monotonic()
    site.kill("one", signal.SIGTERM)
    assert time.monotonic() - begun < 30  # Half of what the job takes.
    wait_until(job, JobState.QUEUED)
    site.start_worker("two", wait=False)
    wait_until(job, JobState.SUCCEEDED)
    assert [event.detail["attempt_number"] for event in job.events.filter(kind="wrote")] == [2]


def test_wiped_broker_loses_no_job(site):
    jobs = [enqueue("tests.add", {"a": number, "b": 1}, label="Add") for number in range(5)]
    assert OutboxMessage.objects.filter(published_at__isnull=False).count() == 5
    site.broker().flushall()
    site.start_worker("one")
    for job in jobs:
        seconds = wait_until(job, JobState.SUCCEEDED)
    note(f"FLUSHALL: all done {seconds:.1f} s after the last one before")
    assert {job.attempt for job in jobs} == {1}


def test_broker_wiped_under_a_running_job_loses_neither_it_nor_the_next(site):
    site.start_worker("one")
    running = start_steps(site)
    waiting = enqueue("tests.add", {"a": 1, "b": 1}, label="Add")
    site.broker().flushall()
    wait_until(waiting, JobState.SUCCEEDED)
    wait_until(running, JobState.SUCCEEDED)
    assert_done_once(running)
    assert (running.attempt, waiting.attempt) == (1, 1)


def test_job_asked_for_while_the_broker_is_down_is_done_later(site):
    site.start_worker("one")
    site.valkey.stop()
    try:
        begun = time.monotonic()
        job = enqueue("tests.add", {"a": 1, "b": 1}, label="Add")
        first = time.monotonic() - begun
        begun = time.monotonic()
        other = enqueue("tests.add", {"a": 2, "b": 1}, label="Add")
        second = time.monotonic() - begun
        assert not OutboxMessage.objects.filter(published_at__isnull=False).exists()
    finally:
        site.valkey.start()
        site.valkey.wait_ready()
    note(f"enqueue with the broker down: {first * 1000:.0f} ms, then {second * 1000:.0f} ms")
    assert first < 5
    assert second < 1
    note(f"broker back: done after {wait_until(job, JobState.SUCCEEDED, 60):.1f} s")
    wait_until(other, JobState.SUCCEEDED)


def test_restarted_database_under_a_running_job_costs_it_nothing(site):
    # However slow the machine, the database is back before the lease ends.
    site.start_worker("one", lease_seconds=60)
    job = start_steps(site, steps=20)
    site.restart_postgres()
    note(f"restarted Postgres: done after {wait_until(job, JobState.SUCCEEDED):.1f} s")
    assert_done_once(job, 20)
    assert job.attempt == 1


def test_database_killed_at_the_end_of_a_job_is_waited_for(site):
    site.start_worker("one")
    job = enqueue("tests.deaf", {"seconds": 2}, label="Deaf")
    wait_until(job, JobState.RUNNING)
    site.postgres.process.send_signal(signal.SIGINT)
    site.postgres.process.wait(10)
    time.sleep(2)
    site.restart_postgres(pause=0)
    wait_until(job, JobState.SUCCEEDED)
    assert job.events.filter(kind="wrote").count() == 1


def test_page_without_database_says_503_and_no_more(site, client):
    assert client.get("/healthz").status_code == 200
    site.postgres.stop()
    try:
        connections.close_all()
        for path in ("/healthz", "/readyz"):
            response = client.get(path)
            assert (response.status_code, response.content) == (503, b"unavailable\n")
    finally:
        site.postgres.start()
        site.postgres.wait_ready()
    connections.close_all()
    assert client.get("/readyz").status_code == 200


def test_duplicate_messages_do_a_job_once(site):
    job = enqueue("tests.steps", {"steps": 5, "seconds": 0.1}, label="Steps")
    for _ in range(20):
        ring([job.pk])
    job.outbox.refresh_from_db()
    # The sweeper may ring as well, where it comes between a job's being written and its ring's being noted.
    assert job.outbox.publications >= 21
    site.start_worker("one")
    site.start_worker("two")
    wait_until(job, JobState.SUCCEEDED)
    wait_for(lambda: site.broker().llen("cpu") == 0)
    assert_done_once(job, 5)
    assert job.attempt == 1


def test_frozen_worker_is_fenced_after_its_lease(site):
    site.start_worker("one")
    job = enqueue("tests.deaf", {"seconds": 0.5}, label="Deaf")
    wait_until(job, JobState.RUNNING)
    pool = site.pool_process("one")
    pool.suspend()
    site.kill("one", signal.SIGSTOP)
    site.start_worker("two", wait=False)
    note(f"SIGSTOP: done by another after {wait_until(job, JobState.SUCCEEDED):.1f} s")
    pool.resume()
    psutil.Process(site.processes["one"].pid).resume()
    wait_for(lambda: "not the one that counts any more" in site.log("one"))
    assert [event.detail["attempt_number"] for event in job.events.filter(kind="wrote")] == [2]
    assert outcomes(job) == ["lost", "succeeded"]


def test_running_job_is_cancelled_at_a_heartbeat(site):
    site.start_worker("one")
    job = start_steps(site, steps=200)
    assert request_cancel(job, by=None)
    assert job.is_cancelling
    note(f"cancel: over after {wait_until(job, JobState.CANCELLED):.1f} s")
    assert outcomes(job) == ["cancelled"]


def test_poison_job_is_given_up_after_its_attempts(site):
    site.start_worker("one")
    job = enqueue("tests.poison", {}, label="Poison")
    wait_until(job, JobState.FAILED, 120)
    assert outcomes(job) == ["lost", "lost", "lost"]
    assert "given up" in job.error
    after = enqueue("tests.add", {"a": 1, "b": 1}, label="Add")
    wait_until(after, JobState.SUCCEEDED)


def test_child_and_grandchild_die_with_a_killed_worker(site, tmp_path):
    site.start_worker("one", "train")
    job = enqueue("tests.child", {"folder": str(tmp_path), "seconds": 60}, label="Child")
    family = child_pids(tmp_path)
    site.pool_process("one").kill()
    wait_for(lambda: not any(lives(pid) for pid in family), 20)
    wait_until(job, JobState.SUCCEEDED)
    assert job.result == {"status": 0, "attempt": 2}


def test_child_of_a_killed_worker_dies_with_it(site, tmp_path):
    site.start_worker("one", "train")
    job = enqueue("tests.child", {"folder": str(tmp_path), "seconds": 60}, label="Child")
    family = child_pids(tmp_path)
    site.kill("one")
    wait_for(lambda: not any(lives(pid) for pid in family), 20)
    site.start_worker("two", "train", wait=False)
    wait_until(job, JobState.SUCCEEDED)


def test_child_of_a_cancelled_job_is_ended(site, tmp_path):
    site.start_worker("one", "train")
    job = enqueue("tests.child", {"folder": str(tmp_path), "seconds": 60}, label="Child")
    family = child_pids(tmp_path)
    request_cancel(job, by=None)
    wait_until(job, JobState.CANCELLED)
    assert not any(lives(pid) for pid in family)


def test_child_of_a_stopped_worker_has_time_to_save(site, tmp_path):
    site.start_worker("one", "train")
    # Longer than a lease: it is kept alive meanwhile.
    job = enqueue("tests.saving_child", {"folder": str(tmp_path), "seconds": 2 * LEASE_SECONDS}, label="Saving")
    family = child_pids(tmp_path)
    site.kill("one", signal.SIGTERM)
    assert (tmp_path / "saved").exists()
    job.refresh_from_db()
    assert (job.state, outcomes(job)) == (JobState.QUEUED, ["released"])
    assert not any(lives(pid) for pid in family)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_a_saving_child_at_once(site, tmp_path, number):
    site.start_worker("one", "train")
    job = enqueue("tests.saving_child", {"folder": str(tmp_path), "seconds": 25}, label="Saving")
    family = child_pids(tmp_path)
    site.processes["one"].send_signal(number)
    wait_for(lambda: (tmp_path / "saving").exists(), 20)
    begun = time.monotonic()
    site.kill("one", number)
    note(f"second signal: worker ended after {time.monotonic() - begun:.1f} s")
    assert time.monotonic() - begun < 15
    assert not (tmp_path / "saved").exists()
    assert not any(lives(pid) for pid in family)
    job.refresh_from_db()
    assert (job.state, outcomes(job)) == (JobState.QUEUED, ["released"])


def test_work_goes_on_without_scheduler_and_control_worker(site):
    beat, control = site.processes["beat"], site.processes["control"]
    for process in (beat, control):
        process.send_signal(signal.SIGSTOP)
    try:
        site.start_worker("one")
        job = start_steps(site)
        site.pool_process("one").kill()
        site.broker().flushall()
        wait_until(job, JobState.SUCCEEDED, 120)
        assert_done_once(job)
    finally:
        for process in (beat, control):
            process.send_signal(signal.SIGCONT)


def child_pids(folder) -> list[int]:
    wait_for(lambda: any(path.read_text() for path in folder.glob("pids-*")))
    return [int(pid) for path in folder.glob("pids-*") for pid in path.read_text().split()]


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_running_job_gives_way_to_an_urgent_one_and_goes_on_behind_it(site):
    site.start_worker("one")
    # Until the workers of tests before are seen to be gone, one of them may be taken for idle.
    job = start_steps(site, steps=150)
    waiting, urgent = (enqueue("tests.steps", {"steps": 3, "seconds": 0.1}, label=name) for name in ("Waits", "Urgent"))
    assert put_first(urgent, by=None)
    note(f"An urgent job was done {wait_until(urgent, JobState.SUCCEEDED):.1f} s after it was put first.")
    assert Job.objects.get(pk=job.pk).state != JobState.SUCCEEDED
    for each in (job, waiting):
        wait_until(each, JobState.SUCCEEDED)
    job.refresh_from_db()
    assert_done_once(job, 150)
    assert outcomes(job) == ["released", "succeeded"]

"""What monitoring sees."""

import pytest
from django.db import connection
from django.urls import reverse

from accounts.api import create_token
from accounts.models import Role, Scope, User
from jobs import doorbell, health
from jobs.models import Worker
from jobs.queue import enqueue
from jobs.testing import run_due_jobs
from tests.jobs import work  # noqa: F401 - Registers the kinds.


@pytest.fixture
def _broken_broker(monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://:wrong-secret@127.0.0.1:1/0")
    doorbell.forget_connection()
    yield
    doorbell.forget_connection()


@pytest.mark.django_db
def test_all_is_well(client):
    for name in ("healthz", "readyz"):
        response = client.get(reverse(name))
        assert (response.status_code, response.content, response["Content-Type"]) == (200, b"ok\n", "text/plain")
        assert "no-store" in response["Cache-Control"]
        assert not response.cookies
        assert client.post(reverse(name)).status_code == 405


@pytest.mark.usefixtures("_broken_broker")
@pytest.mark.django_db
def test_without_broker_it_is_healthy_and_not_ready(client):
    assert client.get(reverse("healthz")).status_code == 200
    response = client.get(reverse("readyz"))
    assert (response.status_code, response.content) == (503, b"unavailable\n")


@pytest.mark.django_db
def test_a_missing_migration_is_not_ready(client, monkeypatch):
    monkeypatch.setattr(health, "_is_migrated", False)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'jobs'")
    assert client.get(reverse("readyz")).status_code == 503


@pytest.mark.django_db
def test_metrics_come_from_the_tables(client):
    enqueue("tests.add", {"a": 1, "b": 1}, label="Add")
    run_due_jobs()
    enqueue("tests.add", {"a": 1, "b": 1}, label="Add")
    Worker.objects.create(name="cpu@here", queues="cpu", memory_mb=100)
    token = create_token(User.objects.create_user("o@example.org", roles=[Role.AUDITOR]), scopes=[Scope.READ])
    text = client.get(reverse("metrics"), headers={"Authorization": f"Bearer {token}"}).content.decode()
    for line in (
        'atelier_jobs{queue="cpu",state="queued"} 1.0',
        'atelier_jobs{queue="cpu",state="succeeded"} 1.0',
        'atelier_jobs{queue="train",state="queued"} 0.0',
        'atelier_job_attempts{outcome="succeeded"} 1.0',
        'atelier_worker_memory_bytes{worker="cpu@here"} 1.048576e+08',
        "atelier_workers_live 1.0",
    ):
        assert line in text.splitlines()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("role", "status"), [(Role.OPERATOR, 200), (Role.AUDITOR, 200), (Role.CURATOR, 403), (Role.RATER, 403)]
)
def test_metrics_are_for_operators_and_auditors(client, role, status):
    assert client.get(reverse("metrics")).status_code == 401
    assert client.get(reverse("metrics"), headers={"Authorization": "Bearer atl_wrong"}).status_code == 401
    client.force_login(User.objects.create_user("someone@example.org", roles=[role]))
    assert client.get(reverse("metrics")).status_code == status

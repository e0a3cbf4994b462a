"""Who sees what of the jobs, and who may stop them."""

import pytest
from django.urls import reverse

from accounts.models import Role, User
from jobs.models import JobState, Worker
from jobs.queue import enqueue
from jobs.testing import run_due_jobs
from tests.jobs import work  # noqa: F401 - Registers the kinds.

pytestmark = pytest.mark.django_db


def sign_in(client, *roles):
    user = User.objects.create_user(f"{'-'.join(roles)}@example.org", "a long password", roles=list(roles))
    client.force_login(user)
    return user


def test_board_shows_jobs_workers_and_filters(client):
    sign_in(client, Role.OPERATOR)
    Worker.objects.create(name="cpu@here", queues="cpu", device="CPU, 2 cores", memory_mb=120)
    done = enqueue("tests.add", {"a": 1, "b": 1}, label="Adding up")
    run_due_jobs()
    enqueue("tests.fail", {"sentence": "No."}, label="Failing")
    page = client.get(reverse("jobs")).content.decode()
    assert "Adding up" in page and "Failing" in page and "cpu@here" in page and "<html" in page
    page = client.get(reverse("jobs"), {"state": "queued"}, headers={"HX-Request": "true"}).content.decode()
    assert "Adding up" not in page and "Failing" in page and "<html" not in page
    assert "hx-trigger" in page
    page = client.get(reverse("job", args=[done.pk])).content.decode()
    assert "Adding up" in page and "hx-trigger" not in page and "Attempt 1 was begun by test" in page
    assert JobState.SUCCEEDED.label in page

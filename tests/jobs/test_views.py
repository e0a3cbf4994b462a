"""Who sees what of the jobs, and who may stop them."""

from datetime import timedelta

import pytest
from django.db.models import F
from django.urls import reverse

from accounts.models import Role, User
from jobs.models import Job, JobState, Worker
from jobs.queue import enqueue, request_cancel, request_pause
from jobs.testing import run_due_jobs
from jobs.views import PAGE_SIZE
from tests.jobs import work  # noqa: F401 - Registers the kinds.
from tests.jobs.factories import make_job

pytestmark = pytest.mark.django_db


def sign_in(client, *roles, name=""):
    email = f"{name or '-'.join(roles) or 'nobody'}@example.org"
    user = User.objects.create_user(email, "a long password", roles=list(roles))
    client.force_login(user)
    return user


def queued(label="Adding up", **more):
    return enqueue("tests.add", {"a": 1, "b": 1}, label=label, **more)


def read(client, name, *arguments, **query):
    response = client.get(reverse(name, args=arguments), query)
    assert response.status_code == 200
    return response.content.decode()


def test_board_shows_jobs_and_workers(client):
    sign_in(client, Role.OPERATOR)
    Worker.objects.create(name="cpu@here", queues="cpu", device="CPU, 2 cores", memory_mb=120)
    queued()
    page = read(client, "jobs")
    for text in ("Adding up", "cpu@here", "CPU, 2 cores", "120 MB", "<html", "hx-trigger"):
        assert text in page


def test_board_polls_only_while_something_moves(client):
    sign_in(client, Role.OPERATOR)
    assert "No jobs yet" in read(client, "jobs")
    queued()
    assert "hx-trigger" in read(client, "jobs")
    run_due_jobs()
    assert "hx-trigger" not in read(client, "jobs")


def test_polled_board_is_the_part_alone(client):
    sign_in(client, Role.OPERATOR)
    queued()
    part = client.get(reverse("jobs"), headers={"HX-Request": "true"}).content.decode()
    assert part.lstrip().startswith('<div class="stack" id="board"')
    assert "<html" not in part


def test_board_filters_by_state_and_kind(client):
    sign_in(client, Role.OPERATOR)
    queued("Done already")
    run_due_jobs()
    queued("Still waiting")
    enqueue("tests.fail", {}, label="Another kind")
    page = read(client, "jobs", state="queued", kind="tests.add")
    assert "Still waiting" in page
    assert "Done already" not in page
    assert "Another kind" not in page
    assert "No job matches" in read(client, "jobs", state="asleep")
    assert "Still waiting" in read(client, "jobs", state="queued\x00")


def test_board_pages_by_key_in_both_directions(client):
    sign_in(client, Role.OPERATOR)
    for number in range(PAGE_SIZE + 2):
        job = make_job(label=f"<{number:03}>")
        Job.objects.filter(pk=job.pk).update(created_at=F("created_at") + timedelta(seconds=number))
    first = client.get(reverse("jobs")).context
    assert [row.label for row, _ in first["jobs"]] == [f"<{n:03}>" for n in range(PAGE_SIZE + 1, 1, -1)]
    assert not first["newer"]
    second = client.get(reverse("jobs"), {"before": first["older"]}).context
    assert [row.label for row, _ in second["jobs"]] == ["<001>", "<000>"]
    assert not second["older"]
    back = client.get(reverse("jobs"), {"after": second["newer"]}).context
    assert [row.label for row, _ in back["jobs"]] == [row.label for row, _ in first["jobs"]]


@pytest.mark.parametrize("cursor", ["x", "_", "2026-01-01_x", "2026-01-01T00:00:00_%s", "\x00"])
def test_nonsense_cursors_show_the_first_page(client, cursor):
    sign_in(client, Role.OPERATOR)
    queued()
    assert "Adding up" in read(client, "jobs", before=cursor)


def test_board_takes_as_many_queries_for_three_rows_as_for_one(client, django_assert_num_queries):
    sign_in(client, Role.OPERATOR)
    for count in (1, 3):
        while Job.objects.count() < count:
            queued(created_by=User.objects.create_user(f"person{Job.objects.count()}@example.org"))
            Worker.objects.create(name=f"cpu{Job.objects.count()}@here", queues="cpu")
        with django_assert_num_queries(11):
            client.get(reverse("jobs"))


def test_job_page_tells_its_history(client):
    sign_in(client, Role.OPERATOR)
    job = enqueue("tests.fail", {"sentence": "The set has no prompts."}, label="Drawing", url="/batches/7/")
    run_due_jobs()
    page = read(client, "job", job.pk)
    for text in ("Attempt 1 was begun by test.", "Failed: The set has no prompts.", 'href="/batches/7/"', "Try again"):
        assert text in page
    assert "hx-trigger" not in page


def test_polling_job_page_loads_anew_when_the_job_is_over(client):
    sign_in(client, Role.OPERATOR)
    job = queued()
    part = client.get(reverse("job", args=[job.pk]), headers={"HX-Request": "true"})
    assert "hx-trigger" in part.content.decode()
    assert "HX-Refresh" not in part
    run_due_jobs()
    assert client.get(reverse("job", args=[job.pk]), headers={"HX-Request": "true"})["HX-Refresh"] == "true"


def test_texts_of_jobs_are_escaped(client):
    sign_in(client, Role.OPERATOR)
    job = queued("<script>alert(1)</script>")
    for page in (read(client, "jobs"), read(client, "job", job.pk)):
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page


def test_tracebacks_are_for_operators_and_auditors(client):
    job = enqueue("tests.fail", {}, label="Drawing")
    run_due_jobs(skip_waits=True)
    for role, sees in ((Role.OPERATOR, True), (Role.AUDITOR, True), (Role.CURATOR, False)):
        sign_in(client, role)
        assert ("secret detail" in read(client, "job", job.pk)) == sees


@pytest.mark.parametrize("roles", [[], [Role.RATER]])
def test_jobs_are_closed_to_raters_and_strangers(client, roles):
    job = queued()
    sign_in(client, *roles)
    assert client.get(reverse("jobs")).status_code == 403
    assert client.get(reverse("job", args=[job.pk])).status_code == 403
    assert client.post(reverse("job_cancel", args=[job.pk])).status_code == 403
    assert client.post(reverse("job_retry", args=[job.pk])).status_code == 403
    job.refresh_from_db()
    assert job.state == JobState.QUEUED


def test_jobs_ask_the_unknown_to_sign_in(client):
    response = client.get(reverse("jobs"))
    assert (response.status_code, response.url) == (302, "/accounts/login/?next=/jobs/")


def test_operator_cancels_and_tries_again(client):
    operator = sign_in(client, Role.OPERATOR)
    job = queued()
    assert client.post(reverse("job_cancel", args=[job.pk])).url == job.get_absolute_url()
    job.refresh_from_db()
    assert (job.state, job.cancel_requested_by) == (JobState.CANCELLED, operator)
    client.post(reverse("job_retry", args=[job.pk]))
    job.refresh_from_db()
    assert job.state == JobState.QUEUED
    assert client.get(reverse("job_cancel", args=[job.pk])).status_code == 405


def test_paused_job_is_resumed_or_cancelled_from_its_page(client):
    operator = sign_in(client, Role.OPERATOR)
    job = queued()
    assert request_pause(job, by=operator)
    page = read(client, "job", job.pk)
    assert {text: text in page for text in ("Resume", "Try again", ">Cancel<", f"Paused by {operator}.")} == {
        "Resume": True,
        "Try again": False,
        ">Cancel<": True,
        f"Paused by {operator}.": True,
    }
    client.post(reverse("job_retry", args=[job.pk]))
    job.refresh_from_db()
    assert (job.state, job.pause_requested_at) == (JobState.QUEUED, None)
    request_pause(job, by=operator)
    client.post(reverse("job_cancel", args=[job.pk]))
    job.refresh_from_db()
    assert (job.state, job.error) == (JobState.CANCELLED, "Cancelled while it was paused.")


def test_curator_cancels_the_own_job_and_no_other(client):
    curator = sign_in(client, Role.CURATOR)
    own, other = queued(created_by=curator), queued(created_by=User.objects.create_user("other@example.org"))
    assert client.post(reverse("job_cancel", args=[own.pk])).status_code == 302
    assert client.post(reverse("job_cancel", args=[other.pk])).status_code == 403
    assert client.post(reverse("job_retry", args=[own.pk])).status_code == 403
    assert [Job.objects.get(pk=job.pk).state for job in (own, other)] == ["cancelled", "queued"]


def test_auditor_reads_and_changes_nothing(client):
    sign_in(client, Role.AUDITOR)
    job = queued()
    page = read(client, "job", job.pk)
    assert reverse("job_cancel", args=[job.pk]) not in page
    assert client.post(reverse("job_cancel", args=[job.pk])).status_code == 403
    request_cancel(job, by=None)
    assert reverse("job_retry", args=[job.pk]) not in read(client, "job", job.pk)
    assert client.post(reverse("job_retry", args=[job.pk])).status_code == 403

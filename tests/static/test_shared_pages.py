"""What app.js does for every page, in a real browser."""

import pytest
from playwright.sync_api import expect

from accounts.models import Role
from jobs.models import JobState
from tests.accounts.factories import make_person
from tests.curation.factories import make_campaign, make_curator
from tests.generation.factories import finish_job, make_batch

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_second_press_sends_the_form_once(sign_in):
    page = sign_in(make_person(Role.OPERATOR)).new_page()
    page.goto("/account/")
    sent = []
    # The answer never comes, as from a slow server: only then does a second press find the page still there.
    page.route("**/account/", lambda route: sent.append(route.request.method))
    box = page.get_by_role("button", name="Make a token").bounding_box()
    for _ in range(3):
        page.mouse.click(box["x"] + 20, box["y"] + 10)
        page.wait_for_timeout(150)
    assert sent == ["POST"]


def test_polling_leaves_the_focus_and_the_scrolling_alone(sign_in):
    operator = make_person(Role.OPERATOR)
    finish_job(make_batch(operator).job, JobState.FAILED)
    make_batch(operator)
    page = sign_in(operator, viewport={"width": 360, "height": 740}).new_page()
    page.goto("/jobs/")
    page.get_by_role("link", name="Failed", exact=True).focus()
    page.evaluate(
        "document.querySelector('.table-wrap').scrollLeft = 90; document.getElementById('board').dataset.before = 'yes'"
    )
    page.wait_for_selector("#board:not([data-before])")
    assert page.evaluate("document.activeElement.textContent") == "Failed"
    assert page.evaluate("[...document.querySelectorAll('.table-wrap')].map((box) => box.scrollLeft)[0]") == 90


def test_the_way_back_leads_to_the_page_and_not_to_a_part_of_it(sign_in):
    campaign, curator = make_campaign(), make_curator()
    page = sign_in(curator).new_page()
    page.goto(campaign.get_absolute_url())
    with page.expect_response(lambda answer: "hx-request" in answer.request.headers) as asked_again:
        pass
    asked_again.value.finished()
    page.goto("/campaigns/")
    page.go_back()
    expect(page.get_by_role("heading", name=str(campaign), level=1)).to_be_visible()

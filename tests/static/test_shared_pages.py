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


def make_paused(*, raters):
    """A campaign whose raters are all paused, by name, and a way to let time pass on its page."""
    people = [make_person(Role.RATER, name=name) for name in raters]
    campaign = make_campaign(items=2, raters=people)
    campaign.memberships.update(state="paused", measure={"right": 1, "of": 9, "percent": 70})
    return campaign


def wait_for_turn(page, part, milliseconds=31_000):
    """So much later the part has been asked for again, and replaced."""
    page.evaluate("(part) => { document.getElementById(part).dataset.before = 'yes'; }", part)
    with page.expect_response(lambda answer: answer.request.headers.get("hx-target") == part) as answered:
        page.clock.run_for(milliseconds)
    answered.value.finished()


def focused(page):
    return page.evaluate("document.activeElement.textContent.trim()")


def test_raters_of_a_campaign_are_live_and_the_focus_stays_with_the_rater(sign_in):
    campaign = make_paused(raters=["Anna Above", "Bert Below"])
    page = sign_in(make_curator(), viewport={"width": 360, "height": 740}).new_page()
    page.clock.install()
    page.goto(campaign.get_absolute_url())
    page.get_by_role("button", name="Lift the pause of Bert Below").focus()
    page.evaluate("document.querySelector('#raters .table-wrap').scrollLeft = 90")
    # Somebody else lets the one above in, whose buttons go.
    campaign.memberships.filter(rater__name="Anna Above").update(state="rating")
    wait_for_turn(page, "raters")
    expect(page.locator("#raters:not([data-before])")).to_have_count(1)
    assert page.get_by_role("button", name="Lift the pause of Anna Above").count() == 0
    assert focused(page) == "Lift the pause of Bert Below"
    assert page.evaluate("document.querySelector('#raters .table-wrap').scrollLeft") == 90
    # What had the focus goes: it is on nobody else's button, and goes on from there.
    campaign.memberships.filter(rater__name="Anna Above").update(state="paused")
    campaign.memberships.filter(rater__name="Bert Below").update(state="rating")
    wait_for_turn(page, "raters")
    expect(page.get_by_role("button", name="Lift the pause of Anna Above")).to_have_count(1)
    assert page.evaluate("document.activeElement.id") == "raters"


def test_nothing_is_replaced_behind_an_open_dialog_which_gives_the_focus_back(sign_in):
    campaign = make_paused(raters=["Anna Above"])
    page = sign_in(make_curator()).new_page()
    page.clock.install()
    page.goto(campaign.get_absolute_url())
    opener = page.get_by_role("button", name="Choose raters")
    opener.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#raters-dialog[open]")).to_be_visible()
    wait_for_turn(page, "raters")
    page.clock.run_for(100)
    expect(page.locator("#raters[data-before]")).to_have_count(1)
    expect(page.locator("#raters-dialog[open]")).to_be_visible()
    page.keyboard.press("Escape")
    assert focused(page) == "Choose raters"
    page.clock.run_for(31_000)
    expect(page.locator("#raters:not([data-before])")).to_have_count(1)
    assert focused(page) == "Choose raters"


def test_new_work_appears_on_a_raters_own_page_by_itself(sign_in):
    rater = make_person(Role.RATER)
    page = sign_in(rater).new_page()
    page.clock.install()
    page.goto("/my-work/")
    expect(page.get_by_text("You are on no campaign yet")).to_be_visible()
    campaign = make_campaign(items=2, raters=[rater])
    wait_for_turn(page, "my-work")
    expect(page.get_by_role("link", name=f"Start rating: {campaign.name}")).to_be_visible()


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

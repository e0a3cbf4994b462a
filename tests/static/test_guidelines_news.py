"""Raters are told what changed in the guidelines before their next item, on both screens, once for all devices."""

import pytest
from playwright.sync_api import expect

from curation.models import CampaignRater, Judgment
from tests.curation.factories import make_campaign
from tests.curation.test_guidelines_shown import revise
from tests.static.test_grid_screen import open_grid
from tests.static.test_rating_screen import (
    open_screen,
    press,
    rater,  # noqa: F401 (A fixture.)
    wait_for_ahead,
    wait_for_rows,
    wait_for_saved,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def revisions():
    rows = Judgment.objects.order_by("received_at", "decided_at")
    return list(rows.values_list("guideline_revision__number", flat=True))


def tells_of_the_second(response):
    return response.url.endswith("/lease") and response.json()["guideline_revision"] == 2


def rate_until_told(page):
    """How many items were judged before the notice came."""
    for count in range(15):
        page.wait_for_selector("#rate[data-state=ready], #rate-news[open]")
        if page.locator("#rate-news").is_visible():
            return count
        page.keyboard.press("f")
    raise AssertionError("nobody was told")


def test_an_open_screen_tells_before_the_next_item_and_no_key_of_an_item_closes_it(sign_in, rater):  # noqa: F811
    campaign = make_campaign(items=14, raters=[rater], guidelines="Accept a white rim.")
    page = open_screen(sign_in(rater), campaign)
    wait_for_ahead(page, 14)
    revise(campaign, "Frames do not pass")
    with page.expect_response(tells_of_the_second):
        press(page, *("f" * 5))
    count = 5 + rate_until_told(page)
    assert 6 <= count <= 7
    news = page.get_by_role("dialog", name="The guidelines have changed")
    expect(news).to_contain_text("Frames do not pass")
    expect(news.get_by_role("heading")).to_be_focused()
    # What is pressed now was meant for an item, which is not there yet.
    for key in ("f", "j", "Enter", "Space", "s", "u", "g", "v"):
        page.keyboard.press(key)
    # As little a click beside it, where a button was that was to be pressed.
    page.mouse.click(3, 3)
    expect(news).to_be_visible()
    assert page.locator("#rate-stage img").count() == 0
    news.get_by_text("Read the whole guidelines").click()
    expect(news.locator("#rate-news-text")).to_contain_text("Accept a white rim.")
    assert "Frames" not in page.locator("#rate-guidelines").text_content()
    page.keyboard.press("Escape")
    expect(news).to_be_hidden()
    expect(page.locator("#rate-guidelines")).to_contain_text("Frames do not pass.")
    press(page, *("j" * (14 - count)))
    page.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(page)
    assert wait_for_rows(14) == 14
    assert revisions() == [1] * count + [2] * (14 - count)
    assert Judgment.objects.filter(answers={"alignment": "pass"}).count() == count
    assert page.faults == []


def test_it_is_told_once_for_all_devices_and_not_to_who_begins(sign_in, rater):  # noqa: F811
    campaign = make_campaign(items=3, raters=[rater])
    revise(campaign, "Letters do not pass")
    first = open_screen(sign_in(rater), campaign)  # Who begins has what there is, and is told nothing.
    assert not first.locator("#rate-news").is_visible()
    revise(campaign, "Frames do not pass")
    second = sign_in(rater, viewport={"width": 360, "height": 740}).new_page()
    second.goto(f"/rate/{campaign.slug}/")
    news = second.get_by_role("dialog", name="The guidelines have changed")
    expect(news).to_contain_text("Frames do not pass")
    assert "Letters" not in news.locator("#rate-news-list").text_content()
    assert second.evaluate("document.documentElement.scrollWidth <= innerWidth")
    with second.expect_response("**/guidelines-read") as heard:
        news.get_by_role("button", name="I have read it").press("Enter")
    assert heard.value.status == 204
    second.wait_for_selector("#rate[data-state=ready]")
    assert CampaignRater.objects.get(rater=rater).guidelines_read == 3
    third = open_screen(sign_in(rater), campaign)
    assert not third.locator("#rate-news").is_visible()


def test_the_grid_tells_before_its_next_page_and_keeps_enter_for_pages(sign_in, rater):  # noqa: F811
    campaign = make_campaign(items=30, raters=[rater])
    page = open_grid(sign_in(rater), campaign)
    page.click("[data-size='12']")
    page.wait_for_selector("#rate[data-state=ready]")
    expect(page.locator(".tile")).to_have_count(12)
    revise(campaign, "Frames do not pass")
    # The page that is on the screen is judged by what its rater has read.
    with page.expect_response(tells_of_the_second):
        page.keyboard.press("Enter")
        page.wait_for_selector("#rate[data-state=ready]")
    expect(page.locator(".tile")).to_have_count(12)
    # One more turn of the network, so that the page has read that answer.
    page.evaluate("fetch('/healthz').then((answer) => answer.text())")
    page.keyboard.press("Enter")
    news = page.get_by_role("dialog", name="The guidelines have changed")
    expect(news).to_be_visible()
    expect(page.locator(".tile")).to_have_count(0)
    for key in ("Enter", "Space", "j"):
        page.keyboard.press(key)
    expect(news).to_be_visible()
    wait_for_saved(page)
    assert wait_for_rows(24) == 24
    page.keyboard.press("Escape")
    page.wait_for_selector("#rate[data-state=ready]")
    assert page.evaluate("document.activeElement.className") == "tile"
    page.keyboard.press("Enter")
    page.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(page)
    assert wait_for_rows(30) == 30
    assert sorted(revisions()) == [1] * 24 + [2] * 6
    assert page.faults == []

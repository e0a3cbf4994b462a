"""Questions that change while raters are at work: open screens take them before the next item, and say so once."""

import pytest
from playwright.sync_api import expect

from curation.models import CampaignRater, Judgment
from tests.curation.factories import make_campaign, make_curator, make_rater
from tests.curation.test_questions import reword
from tests.static.test_grid_screen import open_grid
from tests.static.test_rating_screen import open_screen, wait_for_rows, wait_for_saved

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def named():
    rows = Judgment.objects.order_by("received_at", "decided_at")
    return list(rows.values_list("answers__alignment", "question_revision__number"))


def test_an_open_screen_takes_other_keys_and_words_before_its_next_item_and_says_so_once(sign_in):
    rater = make_rater()
    campaign = make_campaign(items=14, raters=[rater])
    page = open_screen(sign_in(rater, viewport={"width": 360, "height": 740}), campaign)
    choices = [{"value": "pass", "label": "Yes", "key": "K", "accepts": True}]
    choices.append({"value": "fail", "label": "No", "key": "D", "accepts": False})
    reword(campaign, "Other keys", choices=choices, help="Look at the whole prompt.")
    judged = 0
    while not page.locator("#rate-news").is_visible():
        page.wait_for_selector("#rate[data-state=ready], #rate-news[open]")
        if page.locator("#rate-news").is_visible():
            break
        page.keyboard.press("f")  # It means nothing any more once the questions are there.
        judged += 1
        page.wait_for_timeout(150)
        assert judged < 14
    news = page.get_by_role("dialog", name="The questions have changed")
    expect(news).to_contain_text("Other keys")
    for key in ("f", "k", "Enter"):
        page.keyboard.press(key)
    expect(news).to_be_visible()
    page.keyboard.press("Escape")
    page.wait_for_selector("#rate[data-state=ready]")
    expect(page.locator(".question__help")).to_have_text("Look at the whole prompt.")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    before = wait_for_rows(1) and Judgment.objects.count()
    while page.locator("#rate[data-state=over]").count() == 0:
        page.wait_for_selector("#rate[data-state=ready], #rate[data-state=over]")
        page.keyboard.press("d")
    wait_for_saved(page)
    assert wait_for_rows(14) == 14
    assert named() == [("pass", 1)] * before + [("fail", 2)] * (14 - before)
    assert CampaignRater.objects.get(rater=rater).questions_read == 2
    page.reload()
    page.wait_for_selector("#rate[data-state=over]")
    assert not news.is_visible()
    assert page.faults == []


def test_a_screen_that_cannot_be_opened_anew_goes_on_with_the_older_questions(sign_in):
    rater = make_rater()
    campaign = make_campaign(items=9, raters=[rater])
    page = open_screen(sign_in(rater), campaign)
    page.route("**/rate/**", lambda route: route.abort() if route.request.method == "HEAD" else route.continue_())
    reword(campaign, "Other words")
    while page.locator("#rate[data-state=over]").count() == 0:
        page.wait_for_selector("#rate[data-state=ready], #rate[data-state=over]")
        page.keyboard.press("f")
        page.wait_for_timeout(50)
    wait_for_saved(page)
    assert wait_for_rows(9) == 9
    assert named() == [("pass", 1)] * 9


def test_the_grid_takes_them_before_its_next_page(sign_in):
    rater = make_rater()
    campaign = make_campaign(items=30, raters=[rater])
    page = open_grid(sign_in(rater), campaign)
    page.click("[data-size='12']")
    page.wait_for_selector("#rate[data-state=ready]")
    expect(page.locator(".tile")).to_have_count(12)
    reword(campaign, "Other words")
    # The page that is on the screen is judged by the questions that it shows.
    with page.expect_response(lambda answer: answer.url.endswith("/lease") and answer.json()["question_revision"] == 2):
        page.keyboard.press("Enter")
        page.wait_for_selector("#rate[data-state=ready]")
    # One more turn of the network, so that the page has read that answer.
    page.evaluate("fetch('/healthz').then((answer) => answer.text())")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="The questions have changed")).to_be_visible()
    page.keyboard.press("Escape")
    page.wait_for_selector("#rate[data-state=ready]")
    page.keyboard.press("Enter")
    page.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(page)
    assert wait_for_rows(30) == 30
    assert sorted(number for _, number in named()) == [1] * 24 + [2] * 6
    assert page.faults == []


def test_a_curator_changes_how_a_question_reads_by_keyboard(sign_in):
    campaign = make_campaign()
    page = sign_in(make_curator(), viewport={"width": 360, "height": 740}).new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.goto(campaign.get_absolute_url())
    page.get_by_role("link", name="Change how they read").press("Enter")
    page.get_by_label("Question", exact=True).fill("Is it what the prompt says?")
    page.get_by_label("What you changed").fill("Shorter")
    page.get_by_label("What you changed").press("Enter")
    expect(page.get_by_role("heading", name="Revision 2: Shorter")).to_be_visible()
    expect(page.locator(".diff:visible ins").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert complaints == []

"""Examples of the guidelines in a browser: one key away beside the work, and answered first where a revision asks so."""

import pytest
from playwright.sync_api import expect

from curation.models import CampaignRater, ExampleAnswer, Judgment
from tests.curation.factories import add_example, make_batch, make_campaign, make_curator, make_rater
from tests.static.test_rating_screen import open_screen, press, wait_for_rows, wait_for_saved

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def sample_of(caption):
    return make_batch(captions=[caption]).samples.get()


def test_examples_are_one_key_away_and_what_is_in_hand_is_judged_before_new_ones_are_asked(sign_in):
    rater = make_rater()
    campaign = make_campaign(items=3, raters=[rater], guidelines="Accept a white rim.")
    add_example(campaign, sample_of("an owl"), why="The rim is white")
    page = open_screen(sign_in(rater, viewport={"width": 360, "height": 740}), campaign)
    examples = page.locator("#rate-guide .example")
    expect(examples).to_be_hidden()
    page.keyboard.press("g")
    expect(examples).to_contain_text("The rim is white")
    assert examples.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 32
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.keyboard.press("g")
    add_example(campaign, sample_of("a fox"), answers={"alignment": "fail"}, why="A frame", asks_percent=100)
    # What is in hand is judged as before, by what the page showed.
    press(page, "f", "f")
    news = page.get_by_role("dialog", name="The guidelines have changed")
    page.wait_for_function(
        "document.querySelector('#rate-news').open || document.querySelector('#rate').dataset.state === 'ready'"
    )
    if news.is_visible():
        page.keyboard.press("Escape")
    press(page, "f")
    expect(page.get_by_role("heading", name="Examples come first")).to_be_visible()
    wait_for_saved(page)
    assert wait_for_rows(3) == 3


def test_an_open_screen_leads_to_the_examples_and_back_to_the_work(sign_in):
    rater = make_rater()
    campaign = make_campaign(items=60, raters=[rater], guidelines="Accept a white rim.")
    context = sign_in(rater, viewport={"width": 360, "height": 740})
    # Such a device holds forty items and not eighty.
    context.add_init_script("Object.defineProperty(navigator, 'deviceMemory', { value: 2 })")
    page = open_screen(context, campaign)
    add_example(campaign, sample_of("a fox"), answers={"alignment": "fail"}, why="A frame", asks_percent=100)
    first = page.get_by_role("link", name="Answer the examples")
    judged = 0
    while not first.is_visible():
        page.wait_for_selector("#rate[data-state=ready], #rate-news[open], #rate[data-state=over]")
        if page.locator("#rate-news").is_visible():
            page.keyboard.press("Escape")
        elif page.locator("#rate[data-state=ready]").count():
            page.keyboard.press("f")
            judged += 1
        assert judged < 60
    expect(first).to_be_focused()
    wait_for_saved(page)
    # Chromium logs the refused lease as a failed request.
    page.faults.clear()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="One example to answer")).to_be_visible()
    assert page.get_by_text("A frame").count() == 0
    page.get_by_role("button", name="Begin").press("Enter")
    expect(page.get_by_role("heading", name="a fox")).to_be_focused()
    page.keyboard.press("f")
    expect(page.get_by_role("status").filter(has_text="The right answer: Fail")).to_contain_text("A frame")
    expect(page.get_by_role("status").filter(has_text="Read the guidelines and try again")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="0 of 1 were right")).to_be_visible()
    expect(page.locator(".guidelines")).to_contain_text("A frame")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Try again").press("Enter")
    page.keyboard.press("j")
    expect(page.get_by_text("You have passed.")).to_be_visible()
    expect(page.get_by_role("link", name="Go on rating")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_selector("#rate[data-state=ready]")
    assert list(ExampleAnswer.objects.values_list("attempt", "right")) == [(1, False), (2, True)]
    assert CampaignRater.objects.get(rater=rater).examples_passed == 2
    assert Judgment.objects.count() == judged
    assert page.faults == []


def test_a_curator_chooses_an_example_and_asks_for_it_first(sign_in):
    campaign = make_campaign(items=3, guidelines="Accept a white rim.")
    page = sign_in(make_curator(), viewport={"width": 360, "height": 740}).new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.goto(f"/campaigns/{campaign.slug}/guidelines/")
    page.get_by_role("textbox", name="Guidelines").fill("Accept a thin white rim.")
    page.locator(".pick-example input").first.check()
    page.get_by_role("button", name="Add the chosen").press("Enter")
    page.get_by_label("Does the sticker show").select_option("pass")
    page.get_by_label("Why").fill("The rim is thin")
    expect(page.get_by_role("textbox", name="Guidelines")).to_have_value("Accept a thin white rim.")
    page.get_by_label("What you changed").fill("Only thin rims pass")
    page.get_by_label("Raters answer the changed examples first").check()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Save as a new revision").press("Enter")
    expect(page.get_by_role("heading", name="Revision 2: Only thin rims pass")).to_be_visible()
    expect(page.locator(".example").last).to_contain_text("The rim is thin")
    assert campaign.items.to_decide().count() == 2
    assert complaints == []

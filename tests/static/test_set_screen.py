"""Set against set, in a real browser against the real endpoints: by keyboard, beside each other or one below the other."""

import pytest
from playwright.sync_api import expect

from curation.models import Judgment, Verdict
from curation.verdicts import preferred
from tests.curation.factories import make_rater, make_set_campaign
from tests.static.test_rating_screen import open_screen, press, wait_for_rows, wait_for_saved

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def boxes(page, selector):
    return [element.bounding_box() for element in page.query_selector_all(selector)]


def test_keys_say_which_set_is_more_varied(sign_in):
    rater = make_rater()
    campaign = make_set_campaign(["a cat", "a dog", "a cow", "a hen"], size=9, raters=[rater])
    page = open_screen(sign_in(rater, viewport={"width": 1280, "height": 800}), campaign)
    expect(page.locator(".rate__cell img")).to_have_count(18)
    left, right = boxes(page, ".rate__set-grid")
    assert left["x"] + left["width"] <= right["x"]
    assert left["y"] == right["y"]
    # Both sets are whole on the screen, three in a row.
    stage = page.query_selector("#rate-stage").bounding_box()
    assert left["y"] + left["height"] <= stage["y"] + stage["height"]
    assert len({round(box["x"]) for box in boxes(page, ".rate__set-grid >> nth=0 >> .rate__cell")}) == 3
    # A closer look does not answer, and the arrows go from picture to picture there.
    press(page, "z")
    expect(page.locator("#rate-closer-title")).to_have_text("Left set, picture 1 of 9")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#rate-closer-title")).to_have_text("Right set, picture 9 of 9")
    page.keyboard.press("Escape")
    page.locator(".rate__cell").nth(3).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#rate-closer-title")).to_have_text("Left set, picture 4 of 9")
    page.keyboard.press("Escape")
    press(page, "ArrowLeft", "ArrowRight", "u", "ArrowLeft", "ArrowUp", "ArrowRight")
    page.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(page)
    assert wait_for_rows(6) == 6
    rows = Judgment.objects.filter(action="answer", superseded_by=None).order_by("item__position")
    assert [row.answers["variety"] for row in rows] == ["left", "left", "tie", "right"]
    outcomes = list(Verdict.objects.order_by("item__position").values_list("outcome", flat=True))
    assert outcomes == [preferred(row.answers["variety"], row.order) for row in rows]
    assert page.faults == []


def test_a_narrow_screen_shows_both_sets_at_once(sign_in):
    rater = make_rater()
    campaign = make_set_campaign(["a cat", "a dog"], size=4, raters=[rater])
    page = open_screen(sign_in(rater, viewport={"width": 360, "height": 740}), campaign)
    left, right = boxes(page, ".rate__set")
    assert left["x"] + left["width"] <= right["x"]
    stage = boxes(page, ".rate__stage")[0]
    assert all(
        stage["y"] <= each["y"] and each["y"] + each["height"] <= stage["y"] + stage["height"] for each in (left, right)
    )
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    expect(page.locator(".rate__set-where").first).to_be_hidden()
    page.locator(".rate__cell").nth(6).click()
    expect(page.locator("#rate-closer-title")).to_have_text("Right set, picture 3 of 4")
    page.click("#rate-closer [data-close]")
    page.click('.choice[data-value="right"]')
    press(page, "ArrowUp")
    page.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(page)
    assert wait_for_rows(2) == 2
    assert page.faults == []


def test_a_narrow_screen_has_one_large_set_below_the_other(sign_in):
    rater = make_rater()
    campaign = make_set_campaign(["a cat"], size=16, raters=[rater])
    page = open_screen(sign_in(rater, viewport={"width": 360, "height": 740}), campaign)
    upper, lower = boxes(page, ".rate__set")
    assert upper["y"] + upper["height"] <= lower["y"]
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    expect(page.locator(".rate__set-where").first).to_be_visible()
    page.click('.choice[data-value="left"]')
    page.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(page)
    assert wait_for_rows(1) == 1
    assert page.faults == []

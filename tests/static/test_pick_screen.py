"""Picking the best of several, in a real browser against the real endpoints."""

import pytest
from playwright.sync_api import expect

from curation.campaigns import create_pick_campaign
from curation.models import ItemSample, Judgment
from curation.picks import picked_slots
from tests.curation.factories import add_example, make_batch, make_curator, make_rater
from tests.static.test_rating_screen import open_screen, press, wait_for_rows, wait_for_saved

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_digits_and_presses_pick_what_is_seen_there(sign_in):
    rater = make_rater()
    batch = make_batch(["a cat", "a dog", "a cow"], each=4)
    campaign = create_pick_campaign("Best", by=make_curator(), batches=[batch], raters=[rater], open_now=True)
    add_example(campaign, make_batch().samples.get())
    page = open_screen(sign_in(rater, viewport={"width": 360, "height": 740}), campaign)
    expect(page.locator(".reference img")).to_have_count(1)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    page.keyboard.press("Enter")  # Nothing is chosen: nothing is sent.
    for key in ("4", "1", "2", "1"):
        page.keyboard.press(key)
    expect(page.locator(".rate__frame[data-picked]")).to_have_count(2)
    page.keyboard.press("Enter")
    expect(page.locator("#rate-figures")).to_have_text("1 of 3, 2 left for you")
    page.wait_for_selector("#rate[data-state=ready]")
    page.click(".rate__frame >> nth=2")
    page.click(".choice--done")
    expect(page.locator("#rate-figures")).to_have_text("2 of 3, 1 left for you")
    page.wait_for_selector("#rate[data-state=ready]")
    page.keyboard.press("n")
    page.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(page)
    assert wait_for_rows(3) == 3
    rows = list(Judgment.objects.order_by("item__position"))
    assert [row.answers["best"] for row in rows] == ["2+4", "3", "none"]
    for row in rows:
        chosen = set(ItemSample.objects.filter(item=row.item, picked=True).values_list("slot", flat=True))
        assert chosen == picked_slots(row.answers["best"], row.order)
    assert page.faults == []


def test_candidates_are_shown_at_real_size_too(sign_in):
    rater = make_rater()
    batch = make_batch(["a cat", "a dog"], each=4)
    campaign = create_pick_campaign("Best", by=make_curator(), batches=[batch], raters=[rater], open_now=True)
    page = open_screen(sign_in(rater, viewport={"width": 1200, "height": 800}), campaign)
    copies = page.locator("#rate-real .rate__copy")
    expect(copies).to_have_count(0)
    for size in (96, 128, 160, 240):
        press(page, "r")
        expect(copies.locator("img").first).to_have_attribute("width", str(size))
        assert copies.locator("img").last.bounding_box()["width"] == size
    expect(copies.locator(".rate__number")).to_have_text(["1", "2", "3", "4"])
    # The large ones stay beside them, whole.
    stage, large = (page.locator(each).bounding_box() for each in ("#rate-stage", ".rate__frame:last-child"))
    assert large["y"] + large["height"] <= stage["y"] + stage["height"] + 1
    # The next item's are its own.
    before = copies.locator("img").first.get_attribute("src")
    press(page, "1", "Enter")
    page.wait_for_selector("#rate[data-state=ready]")
    expect(copies.locator("img").first).not_to_have_attribute("src", before)
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    copies.last.scroll_into_view_if_needed()
    expect(copies.last).to_be_in_viewport()
    press(page, "r")
    expect(copies).to_have_count(0)
    assert page.faults == []

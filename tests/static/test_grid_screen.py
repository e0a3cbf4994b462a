"""Many stickers on a page, in a real browser against the real endpoints."""

import pytest
from playwright.sync_api import expect

from curation.models import Judgment
from tests.curation.factories import draw_again, make_batch, make_campaign
from tests.static.test_rating_screen import (  # noqa: F401 (rater: a fixture)
    open_screen,
    rater,
    standing,
    wait_for_rows,
    wait_for_saved,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def open_grid(context, campaign):
    page = context.new_page()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
    page.goto(f"/rate/{campaign.slug}/?view=grid")
    page.wait_for_selector("#rate[data-state=ready]")
    return page


def test_page_is_marked_and_submitted_by_keys_and_taken_back(sign_in, rater):  # noqa: F811
    campaign = make_campaign(items=15, raters=[rater])
    page = open_grid(sign_in(rater), campaign)
    page.click("[data-size='12']")
    page.wait_for_selector("#rate[data-state=ready]")
    assert page.locator(".tile").count() == 12
    assert page.inner_text("#rate-prompt") == page.evaluate("document.activeElement.ariaLabel").split(": ")[1]
    for key in ("ArrowRight", "Space", "End", "j", "Home", "Space", "f"):
        page.keyboard.press(key)
    assert page.inner_text("#rate-live") == "2 of 12 marked"
    assert page.locator(".tile[aria-pressed=true] .tile__marks").all_inner_texts() == ["✗", "✗"]
    page.keyboard.press("Enter")
    expect(page.locator(".tile")).to_have_count(3)
    page.keyboard.press("Enter")
    page.wait_for_selector("#rate[data-state=over]")
    page.keyboard.press("u")
    expect(page.locator(".tile")).to_have_count(3)
    page.wait_for_selector("#rate[data-state=ready]")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(page)
    assert wait_for_rows(15 + 3 + 3) == 21
    assert [value for _, value in standing(rater)] == [
        "fail" if place in (1, 11, 12) else "pass" for place in range(15)
    ]
    answers = Judgment.objects.filter(action="answer", superseded_by=None)
    assert answers.values("page").distinct().count() == 2
    assert sorted(answers.values_list("place", flat=True)) == sorted([*range(12), *range(3)])
    assert page.faults == []


def test_one_sticker_is_taken_back_and_three_questions_have_their_letters(sign_in, rater):  # noqa: F811
    campaign = make_campaign("style", items=14, raters=[rater])
    page = open_grid(sign_in(rater), campaign)
    page.click("[data-size='12']")
    page.keyboard.press("i")
    page.keyboard.press("m")
    page.click(".tile >> nth=2")
    assert page.locator(".tile[aria-pressed=true] .tile__marks").all_inner_texts() == ["I M", "M"]
    assert page.get_attribute(".tile >> nth=2", "aria-label").endswith(". no: Is it in the house style?")
    page.keyboard.press("Enter")
    expect(page.locator(".tile")).to_have_count(2)
    page.wait_for_selector("#rate[data-state=ready]")
    page.click(".strip__item >> nth=9")  # The newest comes first: the third of twelve.
    expect(page.locator(".tile")).to_have_count(3)
    page.wait_for_selector("#rate[data-state=ready]")
    page.keyboard.press("c")
    page.keyboard.press("Enter")
    page.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(page)
    assert wait_for_rows(14 + 2) == 16
    rows = Judgment.objects.filter(superseded_by=None).order_by("item__position")
    fails = [[name for name, value in row.answers.items() if value == "fail"] for row in rows]
    assert fails == [["visual_quality", "style_alignment"], *[[]] * 13]
    assert page.faults == []


def test_pages_go_on_offline_and_between_both_screens(sign_in, rater):  # noqa: F811
    campaign = make_campaign(items=26, raters=[rater])
    context = sign_in(rater)
    page = open_grid(context, campaign)
    page.click("[data-size='12']")
    page.wait_for_selector("#rate[data-state=ready]")
    page.wait_for_load_state("networkidle")
    context.set_offline(True)
    page.keyboard.press("Enter")
    page.wait_for_selector("#rate-cloud-box[data-state=stuck]")
    assert page.inner_text("#rate-cloud") == "12 waiting, offline"
    # The next page was made ready before.
    page.wait_for_selector("#rate[data-state=ready]")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    context.set_offline(False)
    assert wait_for_rows(24) == 24
    wait_for_saved(page)
    expect(page.locator(".tile")).to_have_count(2)
    page.keyboard.press("v")
    page.wait_for_selector("#rate-choices")
    page.wait_for_selector("#rate[data-state=ready]")
    page.keyboard.press("j")
    expect(page.locator("#rate-figures")).to_have_text("25 of 26, 1 left for you")
    assert wait_for_rows(25) == 25
    page.keyboard.press("v")
    page.wait_for_selector(".tile")
    page.wait_for_selector("#rate[data-state=ready]")
    page.keyboard.press("Enter")
    page.wait_for_selector("#rate[data-state=over]")
    assert wait_for_rows(26) == 26
    assert [place for place, (_, value) in enumerate(standing(rater)) if value == "fail"] == [12, 24]


@pytest.mark.parametrize("size", [12, 24])
def test_fifty_stickers_and_the_page_that_is_begun_are_in_hand_offline(sign_in, rater, size):  # noqa: F811
    campaign = make_campaign(items=100, raters=[rater])
    context = sign_in(rater)
    page = open_grid(context, campaign)
    if size != 24:
        page.click(f"[data-size='{size}']")
    page.wait_for_selector("#rate[data-ahead=ready]")
    held = int(page.get_attribute("#rate", "data-ahead-count"))
    assert held >= size + 50
    context.set_offline(True)
    expect(page.locator("#rate-ahead")).to_have_text(f"{held} more can be judged offline")
    for left in range(held - size, 0, -size):
        page.keyboard.press("Enter")
        expect(page.locator("#rate-ahead")).to_have_text(f"{left} more can be judged offline")
        page.wait_for_selector("#rate[data-state=ready]")
    assert page.locator(".tile img").evaluate_all("all => all.every(({ naturalWidth }) => naturalWidth > 0)")
    context.set_offline(False)
    assert wait_for_rows(held - size) == held - size
    assert [value for _, value in standing(rater)] == ["pass"] * (held - size)


def test_one_prompts_samples_stand_together_and_fit_a_small_screen_by_touch(sign_in, rater):  # noqa: F811
    batch = make_batch([f"a long prompt about a cat that is number {number}" for number in range(5)], each=2)
    for sample in batch.samples.filter(index=0):
        draw_again(sample, sample.prompt)
    campaign = make_campaign(raters=[rater], batches=[batch])
    context = sign_in(rater, viewport={"width": 360, "height": 740}, has_touch=True)
    page = open_grid(context, campaign)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    # The last prompt waits: its others might still have been on their way.
    assert page.locator(".sheet__group").count() == 4
    assert page.locator(".tile").count() == 12
    # Of each prompt two are the very same picture.
    expect(page.locator(".tile img")).to_have_count(12)
    assert page.locator(".tile").first.bounding_box()["width"] >= 96
    page.locator(".tile").nth(4).tap()
    assert page.get_attribute(".tile >> nth=4", "aria-pressed") == "true"
    page.locator("#sheet-submit").tap()
    expect(page.locator(".tile")).to_have_count(3)
    wait_for_saved(page)
    assert wait_for_rows(12) == 12
    [failed] = Judgment.objects.filter(answers__alignment="fail")
    assert failed.place == 4


def test_report_is_of_the_sticker_for_which_it_was_asked_though_that_left_meanwhile(sign_in, rater):  # noqa: F811
    campaign = make_campaign(items=3, raters=[rater])
    page, other = open_grid(sign_in(rater), campaign), open_screen(sign_in(rater), campaign)
    page.keyboard.press("x")
    other.keyboard.press("f")
    wait_for_saved(other)
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(page.locator(".tile")).to_have_count(2)
    page.wait_for_selector("#rate[data-state=ready]")
    page.keyboard.press("1")
    page.wait_for_selector("#rate-flag", state="hidden")
    page.keyboard.press("Enter")
    page.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(page)
    assert wait_for_rows(3) == 3
    assert standing(rater) == [("answer", "pass")] * 3


def test_enter_in_the_words_of_a_report_submits_no_page(sign_in, rater):  # noqa: F811
    campaign = make_campaign(items=12, raters=[rater])
    page = open_grid(sign_in(rater), campaign)
    page.wait_for_selector("#rate[data-state=ready]")
    page.keyboard.press("x")
    words = page.locator("#rate-flag input")
    words.fill("Half of it is missing")
    words.press("Enter")
    page.wait_for_selector("#rate-flag", state="hidden")
    expect(page.locator(".tile")).to_have_count(12)
    page.keyboard.press("Enter")
    page.wait_for_selector("#rate[data-state=over]")
    assert wait_for_rows(12) == 12
    assert list(Judgment.objects.filter(action="flag").values_list("reason", flat=True)) == ["Half of it is missing"]

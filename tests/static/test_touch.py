"""Rating with a finger on a phone, by real touches: one swipe is one answer, and nothing else that a finger does is any."""

import pytest
from playwright.sync_api import expect

from curation.models import Judgment
from tests.curation.factories import make_campaign
from tests.static.test_rating_screen import (  # noqa: F401 (rater: a fixture)
    open_screen,
    press,
    rater,
    standing,
    wait_for_rows,
    wait_for_saved,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}


class Fingers:
    """Touches as the browser's own input gets them from a screen."""

    def __init__(self, page):
        self.page = page
        self.send = page.context.new_cdp_session(page).send

    def touch(self, kind, *points):
        touches = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        self.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": touches})

    def middle(self):
        box = self.page.locator("#rate-stage").bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def draw(self, aside, down, *, lift="End"):
        """One finger from the middle of the sticker, in ten steps. It rests before it lifts: a tap that follows a throw at once
        is no press to the browser, as it only stops what was thrown."""
        x, y = self.middle()
        self.touch("Start", (x, y))
        for step in range(1, 11):
            self.touch("Move", (x + aside * step / 10, y + down * step / 10))
        if lift:
            self.page.wait_for_timeout(150)
            self.touch(lift)


def swipe(page, fingers, aside):
    page.wait_for_selector("#rate[data-state=ready]")
    fingers.draw(aside, 10)


def wait_for_swipe(page, said):
    """The page hears of a touch with its next frame, which a busy machine is late with."""
    page.wait_for_function("(said) => (document.querySelector('#rate-stage').dataset.swipe ?? '') === said", arg=said)


def test_a_swipe_is_one_answer_and_a_tap_takes_it_back(sign_in, rater):  # noqa: F811
    campaign = make_campaign(items=4, raters=[rater])
    page = open_screen(sign_in(rater, **PHONE), campaign)
    fingers = Fingers(page)
    # The hint says what lies where, and the buttons lie where the swipes towards them go.
    expect(page.locator(".rate__swipe")).to_have_text("← Fail or swipe the sticker Pass →", use_inner_text=True)
    assert [button.inner_text().split()[-1] for button in page.locator(".choice").all()] == ["Fail", "Pass"]
    swipe(page, fingers, 140)
    expect(page.locator("#rate-figures")).to_have_text("1 of 4, 3 left for you")
    swipe(page, fingers, -140)
    expect(page.locator("#rate-figures")).to_have_text("2 of 4, 2 left for you")
    page.locator("[data-command=undo]").tap()
    expect(page.locator("#rate-figures")).to_have_text("1 of 4, 3 left for you")
    swipe(page, fingers, 140)
    expect(page.locator("#rate-figures")).to_have_text("2 of 4, 2 left for you")
    for left, name in ((1, "Fail"), (0, "Pass")):
        page.locator(f".choice:has-text('{name}')").tap()
        expect(page.locator("#rate-figures")).to_have_text(
            f"{4 - left} of 4" + (f", {left} left for you" if left else "")
        )
    wait_for_saved(page)
    assert wait_for_rows(6) == 6
    assert standing(rater) == [("answer", value) for value in ("pass", "pass", "fail", "pass")]
    assert page.faults == []


def test_short_steep_pinching_and_broken_off_touches_answer_nothing(sign_in, rater):  # noqa: F811
    campaign = make_campaign(items=2, raters=[rater])
    page = open_screen(sign_in(rater, **PHONE), campaign)
    fingers = Fingers(page)
    for aside, down, lift in ((60, 0, "End"), (0, 160, "End"), (0, -160, "End"), (90, 90, "End"), (150, 0, "Cancel")):
        fingers.draw(aside, down, lift=lift)
        wait_for_swipe(page, "")
    fingers.draw(150, 0, lift=None)
    wait_for_swipe(page, "pass")
    x, y = fingers.middle()
    fingers.touch("Start", (x + 150, y), (x - 60, y))  # A second finger takes back what the first one began.
    fingers.touch("Move", (x + 170, y), (x - 160, y))
    fingers.touch("End")
    wait_for_swipe(page, "")
    page.locator("[data-command=zoom]").tap()
    fingers.draw(150, 0)
    page.locator("[data-command=zoom]").tap()
    assert page.locator("#rate-stage .rate__frame").evaluate("(frame) => frame.style.translate") == ""
    assert page.inner_text("#rate-figures") == "0 of 2, 2 left for you"
    # Somebody presses a key while the finger is down: the sticker that comes was not meant.
    fingers.draw(150, 0, lift=None)
    page.keyboard.press("j")
    expect(page.locator("#rate-figures")).to_have_text("1 of 2, 1 left for you")
    fingers.touch("End")
    wait_for_saved(page)
    assert wait_for_rows(1) == 1
    assert Judgment.objects.get().answers == {"alignment": "fail"}
    assert page.faults == []


def test_a_finger_scrolls_and_zooms_as_anywhere(sign_in, rater):  # noqa: F811
    campaign = make_campaign(items=2, raters=[rater])
    # So low a screen that the work does not fit.
    page = open_screen(sign_in(rater, **(PHONE | {"viewport": {"width": 360, "height": 420}})), campaign)
    fingers = Fingers(page)
    work = page.locator(".rate__work")
    assert work.evaluate("(box) => box.scrollHeight > box.clientHeight")
    fingers.draw(5, -120)
    page.wait_for_function("document.querySelector('.rate__work').scrollTop > 20")
    x, y = fingers.middle()
    fingers.touch("Start", (x - 20, y), (x + 20, y))
    for step in range(1, 11):
        fingers.touch("Move", (x - 20 - 10 * step, y), (x + 20 + 10 * step, y))
    fingers.touch("End")
    page.wait_for_function("visualViewport.scale > 1.5")
    assert page.inner_text("#rate-figures") == "0 of 2, 2 left for you"
    assert Judgment.objects.count() == 0


@pytest.mark.parametrize("kind", ["alignment", "style"])
def test_on_a_phone_nothing_below_the_work_is_cut_and_the_sticker_has_room(sign_in, rater, kind):  # noqa: F811
    campaign = make_campaign(kind, items=20, raters=[rater])
    context = sign_in(rater, **PHONE)
    page = open_screen(context, campaign)
    room = page.locator("#rate-stage").bounding_box()
    assert room["height"] >= 150
    page.wait_for_selector("#rate[data-ahead=ready]")
    context.set_offline(True)
    for _ in range(6):
        press(page, "f" if kind == "alignment" else "p")
    expect(page.locator("#rate-cloud")).to_have_text("6 waiting, offline")
    expect(page.locator("#rate-ahead")).to_have_text("14 more can be judged offline")
    cut = "(all) => all.filter((each) => each.scrollWidth > each.clientWidth).map((each) => each.textContent)"
    assert page.locator(".rate__foot > span:visible").evaluate_all(cut) == []
    assert page.locator("#rate-figures").is_visible()
    # What it says changes, and moves nothing.
    assert page.locator("#rate-stage").bounding_box() == room
    context.set_offline(False)
    assert wait_for_rows(6) == 6

"""By keyboard alone: where the focus is can be seen, nothing lies over it, dialogs keep it and give it back, and what happens is said."""

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from accounts.models import Role
from tests.accounts.factories import make_person
from tests.static.accessibility import NARROW, WIDE
from tests.static.test_rating_screen import open_screen
from tests.static.world import make_rating, make_world

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

# The focused element: its words, whether its outline or its box's can be seen, and whether any of it lies under something else.
LOOK = """() => {
  const on = document.activeElement;
  if (!on || on === document.body) return null;
  const box = on.getBoundingClientRect();
  const seen = [on, on.parentElement].some((each) => {
    const {outlineStyle, outlineWidth} = getComputedStyle(each);
    return outlineStyle !== "none" && parseFloat(outlineWidth) >= 2;
  });
  const points = [[.5, .5], [.1, .5], [.9, .5], [.5, .1], [.5, .9]].map(([x, y]) => [box.x + x * box.width, box.y + y * box.height]);
  const clear = points.some(([x, y]) => {
    const top = document.elementFromPoint(x, y);
    return top && (on.contains(top) || top.contains(on) || top.closest("label")?.control === on);
  });
  const name = on.getAttribute("aria-label") ?? on.labels?.[0]?.textContent ?? on.textContent;
  return {name: `${on.tagName.toLowerCase()} ${name.trim().replace(/\\s+/g, " ").slice(0, 40)}`, seen, clear, place: [...document.querySelectorAll("*")].indexOf(on)};
}"""


@pytest.fixture
def person():
    return make_person(*Role.values, name="Kim Everything")


def walk(page, most=200):
    """What Tab comes by, from the start of the page until it leaves it."""
    steps = []
    for _ in range(most):
        page.keyboard.press("Tab")
        step = page.evaluate(LOOK)
        if step is None or (steps and step["place"] == steps[0]["place"]):
            return steps
        steps.append(step)
    raise AssertionError(f"no end after {steps[-1]}")


def test_focus_is_seen_goes_in_order_and_lies_under_nothing(sign_in, person):
    addresses = make_world(person)
    page = sign_in(person, viewport=NARROW).new_page()
    wrong = {}
    for name in ("home", "campaign", "sample", "models", "recipe_new", "jobs"):
        page.goto(addresses.get(name) or reverse(name))
        steps = walk(page)
        assert len(steps) > 5, name
        assert steps[0]["name"] == "a Skip to the content"
        wrong[name] = [step["name"] for step in steps if not (step["seen"] and step["clear"])]
        places = [step["place"] for step in steps]
        assert places == sorted(places), name
    assert wrong == {name: [] for name in wrong}
    page.goto("/campaigns/")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    # The table that is wider than the phone is scrolled from the keyboard, and says what it is.
    page.goto(addresses["campaign"])
    table = page.get_by_role("group", name="a table that scrolls").last
    table.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.activeElement.scrollLeft > 0")


def test_dialogs_keep_the_focus_and_give_it_back(sign_in, person):
    addresses = make_world(person)
    page = sign_in(person, viewport=WIDE).new_page()
    page.goto(addresses["campaign"])
    opener = page.get_by_role("button", name="Change the rule")
    opener.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    for _ in range(12):
        page.keyboard.press("Tab")
        # Past its end the browser's own buttons come, which the page knows nothing of, and then it again.
        assert page.evaluate(
            "() => document.activeElement === document.body || !!document.activeElement.closest('dialog[open]')"
        )
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(opener).to_be_focused()


def test_rating_by_keyboard_says_what_was_judged_and_what_comes(sign_in, person):
    campaign = make_rating(person, "alignment")
    page = open_screen(sign_in(person, viewport=NARROW), campaign)
    steps = walk(page)
    assert [step["name"] for step in steps if not (step["seen"] and step["clear"])] == []
    live = page.locator("#rate-live")
    passes, fails, judged = (
        page.locator(".choice--pass"),
        page.locator(".choice--fail"),
        page.inner_text("#rate-prompt"),
    )
    passes.focus()
    page.keyboard.press("Enter")
    expect(live).to_have_text("Pass. " + page.inner_text("#rate-prompt"))
    page.wait_for_selector("#rate[data-state=ready]")
    expect(passes).to_be_focused()
    # The strip: what was undone leaves it, and the focus stays at the work.
    page.get_by_role("button", name=f"Undo: {judged}").focus()
    page.keyboard.press("Enter")
    expect(live).to_have_text(f"Undone. {judged}")
    assert page.inner_text("#rate-prompt") == judged
    expect(page.locator("#main")).to_be_focused()
    # The guidelines lie over the work on a phone: Escape folds them, and the focus is where it was.
    button = page.locator(".rate__tools [data-command=guidelines]")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#rate-guide")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#rate-guide")).to_be_hidden()
    expect(button).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="All keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(button).to_be_focused()
    for _ in range(campaign.items.filter(is_gold=False).count()):
        page.wait_for_selector("#rate[data-state=ready]")
        fails.focus()
        page.keyboard.press("Enter")
    page.wait_for_selector("#rate[data-state=over]")
    expect(page.get_by_role("heading", name="Nothing is left for you here")).to_be_focused()
    expect(live).to_contain_text("Nothing is left for you here")
    assert page.faults == []

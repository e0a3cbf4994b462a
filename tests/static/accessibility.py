"""axe-core in an open page: what it finds there that WCAG 2.2 does not allow at level AA."""

from typing import Any

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# The rules that depend on the colours alone, and those that depend on how much room there is.
OF_COLOURS = ["color-contrast"]
OF_ROOM = ["target-size", "scrollable-region-focusable"]
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
# Runs in the page. axe waits for no picture, and looks into no frame: there is none.
# Nobody else would end it, did axe not come to an end.
RUN = """async (only) => {
  const late = new Promise((_, fail) => setTimeout(() => fail(new Error("axe took more than two minutes.")), 120000));
  const {violations} = await Promise.race([late, axe.run(document, {
    runOnly: only, rules: {"target-size": {enabled: true}}, resultTypes: ["violations"], preload: false, iframes: false,
  })]);
  return violations.flatMap(({id, nodes}) => nodes.map(({target, html, failureSummary}) => (
    `${id}: ${target.join(" ")}\\n      ${html.slice(0, 160)}\\n      ${failureSummary.split("\\n").slice(1).join(" ").trim()}`)));
}
"""
# Chromium never finishes what moves in a part that is closed meanwhile, which nobody sees: ours are all shorter than this.
SETTLE = """() => Promise.race([
  new Promise((over) => setTimeout(over, 2000)),
  Promise.all(document.getAnimations().filter((each) => each.timeline === document.timeline && each.effect.getTiming().iterations !== Infinity)
    .map((each) => each.finished.catch(() => 0))),
])"""


def violations(page: Page, rules: list[str] | None = None) -> list[str]:
    """What is broken in the page as it is now, each with its place; by these rules alone where some are named."""
    only: Any = {"type": "rule", "values": rules} if rules else {"type": "tag", "values": TAGS}
    # Half faded in is no colour that anybody reads.
    page.evaluate(SETTLE)
    if page.evaluate("() => !window.axe"):
        page.evaluate(AXE_SCRIPT)
    return list(page.evaluate(RUN, only))


def look_around(page: Page) -> list[str]:
    """The page wide and light, dark, and as narrow as a phone: what is broken, and how far it is wider than the phone."""
    found = [f"wide, light: {each}" for each in violations(page)]
    page.emulate_media(color_scheme="dark")
    found += [f"wide, dark: {each}" for each in violations(page, OF_COLOURS)]
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(NARROW)
    found += [f"narrow: {each}" for each in violations(page, OF_ROOM)]
    if (width := page.evaluate("() => document.documentElement.scrollWidth")) > NARROW["width"]:
        found.append(f"narrow: the page is {width} px wide")
    page.set_viewport_size(WIDE)
    return found

"""The main job, in a real browser, as each role: rate, freeze, train, compare, promote."""

import re

import psutil
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Demo, Visitor, server_errors

pytestmark = [pytest.mark.browser, pytest.mark.processes, pytest.mark.model]
TRAINING_STEPS = 12


def rate_everything(person: Visitor, campaign: str, keys: list[str]) -> int:
    """Open the campaign from the first page and press the keys for every item until nothing is left."""
    page = person.page
    person.go("/")
    page.get_by_role("link", name=re.compile(re.escape(campaign))).first.click()
    judged = 0
    while True:
        page.wait_for_selector("#rate[data-state=ready], #rate[data-state=over]")
        if page.get_attribute("#rate", "data-state") == "over":
            break
        for key in keys:
            page.keyboard.press(key)
        judged += 1
        assert judged < 1000
    page.wait_for_selector("#rate-cloud-box[data-state=saved]", timeout=60_000)
    return judged


def choose(page: Page, label: str, text: str) -> None:
    """Choose the option whose label has the text."""
    select = page.get_by_label(label, exact=True)
    value = select.locator("option").filter(has_text=text).first.get_attribute("value")
    select.select_option(value)


def wait_for_end(page: Page, seconds: float) -> None:
    """Until the page shows a job that has succeeded."""
    expect(page.locator('[data-state="succeeded"]').first).to_be_visible(timeout=seconds * 1000)


def freeze(curator: Visitor, name: str, campaign: str) -> None:
    page = curator.page
    curator.go("/datasets/new/")
    page.get_by_label("Name").fill(name)
    for box in page.get_by_role("checkbox").all():
        box.uncheck()
    page.get_by_label(re.compile(re.escape(campaign))).check()
    page.locator("main form button[type=submit], main form button:not([type])").last.click()
    page.wait_for_url(re.compile(r"/datasets/[\w-]+/$"))
    page.get_by_role("button", name=re.compile("Freeze")).first.click()
    page.wait_for_url(re.compile(r"/datasets/[\w-]+/v1/$"))
    page.get_by_role("button", name="Ask for approval").click()
    expect(page.locator("main")).to_contain_text("Waits for approval")


def approve(operator: Visitor, name: str) -> None:
    page = operator.page
    operator.go("/")
    page.get_by_role("link", name=f"{name} v1").click()
    page.get_by_role("button", name="Approve", exact=True).click()
    expect(page.locator("main")).to_contain_text("Runs may learn from it.")


def test_the_loop_goes_round_in_a_browser(demo: Demo, visitor):
    rater, curator, operator = visitor("rater"), visitor("curator"), visitor("operator")

    # Raters judge freshly drawn stickers.
    assert rate_everything(rater, "Does it show the prompt?", ["f"]) == 96
    assert rate_everything(rater, "Is it our style?", ["e", "d", "c"]) == 96

    # A curator freezes what was accepted, and an operator approves it.
    freeze(curator, "Content", "Does it show the prompt?")
    freeze(curator, "House style", "Is it our style?")
    approve(operator, "Content")
    approve(operator, "House style")

    # An operator starts a Style Tailoring run from the dashboard.
    page = operator.page
    operator.go("/recipes/new/")
    page.get_by_label("Name", exact=True).fill("Tailored")
    choose(page, "Content", "Content")
    choose(page, "Style", "House style")
    page.get_by_label("Steps", exact=True).fill(str(TRAINING_STEPS))
    page.locator("main form button.btn--primary").last.click()
    page.wait_for_url(re.compile(r"/recipes/tailored/$"))
    page.get_by_role("link", name=re.compile("Start a run")).first.click()
    page.locator("main form button.btn--primary").last.click()
    page.wait_for_url(re.compile(r"/runs/\d+/$"))
    wait_for_end(page, 420)

    # The new version meets its parent in a blind side-by-side.
    page.reload()
    page.get_by_role("link", name=re.compile("Evaluate")).first.click()
    page.wait_for_url(re.compile(r"/evaluations/new/"))
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.locator("main form button.btn--primary").last.click()
    page.wait_for_url(re.compile(r"/evaluations/\d+/$"))
    evaluation = page.url
    expect(page.get_by_role("link", name="The campaign")).to_be_visible(timeout=420_000)
    compared = rate_everything(rater, "Side by side", ["ArrowLeft"])
    assert compared > 0
    operator.go(evaluation)
    expect(page.locator("main")).to_contain_text(re.compile(rf"{compared} judgments? of \d+ prompts"))

    # What won is promoted, and the next batch uses it.
    page.get_by_role("button", name=re.compile("Promote v2")).click()
    expect(page.locator("main")).to_contain_text("v2 Tailored on v1 is promoted")
    operator.go("/batches/new/")
    expect(page.get_by_label("Model", exact=False).locator("option:checked").first).to_contain_text("v2")

    assert [*rater.complaints, *curator.complaints, *operator.complaints] == []
    assert server_errors(demo.installation.data_dir) == []


def links_of(page: Page, url: str) -> set[str]:
    found = page.eval_on_selector_all("a[href]", "links => links.map(link => link.href.split('#')[0])")
    return {link for link in found if link.startswith(url) and not re.search(r"/download|\.(png|webp|zip)$", link)}


@pytest.mark.parametrize("role", ["rater", "curator", "operator", "auditor"])
def test_every_page_that_a_role_is_led_to_opens_without_complaint(demo: Demo, visitor, role):
    """Follow every link from the first page, at 360 px: no refusal, no console error, nothing wider than the screen."""
    person = visitor(role, viewport={"width": 360, "height": 740})
    page = person.page
    waiting, seen, wide = {demo.url + "/"}, set(), []
    while waiting and len(seen) < 120:
        link = waiting.pop()
        shape = re.sub(r"\d+", "N", link)
        if shape in seen:
            continue
        seen.add(shape)
        person.go(link)
        page.wait_for_load_state()
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth + 1"):
            wide.append(page.url)
        waiting |= links_of(page, demo.url)
    assert len(seen) >= (3 if role == "rater" else 12)
    assert person.complaints == []
    assert wide == []
    assert server_errors(demo.installation.data_dir) == []


def test_web_process_stays_small_and_knows_no_torch(demo: Demo):
    everything = [demo.installation.process.pid, *(child.pid for child in demo.installation.look())]
    web = [process for process in map(psutil.Process, everything) if "gunicorn" in " ".join(process.cmdline())]
    assert web
    assert sum(process.memory_info().rss for process in web if process.children() or len(web) == 1) < 200 * 1024 * 1024
    for process in web:
        assert not [mapped.path for mapped in process.memory_maps() if "torch" in mapped.path]

"""A rating page that is opened without a connection, in a real browser with its service worker."""

import time

import pytest
from playwright.sync_api import expect

from accounts.models import Role
from curation.assignments import lease_items
from curation.campaigns import close_campaign
from curation.guidelines import revise_guidelines
from curation.models import Assignment, ExampleAnswer, Judgment
from tests.accounts.factories import make_person
from tests.curation.factories import add_example, make_campaign, make_rater
from tests.curation.test_leases import expire
from tests.static.accessibility import WIDE, look_around
from tests.static.line import Line
from tests.static.test_grid_screen import open_grid
from tests.static.test_rating_screen import (  # noqa: F401 (rater: a fixture)
    SHOWN,
    open_screen,
    press,
    rater,
    standing,
    wait_for_ahead,
    wait_for_rows,
    wait_for_saved,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def line(live_server):
    line = Line(int(live_server.url.rpartition(":")[2]))
    yield line
    line.close()


KEPT = """async () => {
  const kept = {};
  for (const name of await caches.keys()) {
    kept[name] = (await (await caches.open(name)).keys()).map(({ url }) => new URL(url).pathname + new URL(url).search);
  }
  return kept;
}"""
ROWS = """() => new Promise((done) => {
  indexedDB.open("atelier-outbox").onsuccess = ({ target }) => {
    const all = target.result.transaction("rows").objectStore("rows").getAll();
    all.onsuccess = () => { target.result.close(); done(all.result.map((row) => row.user)); };
  };
})"""


def read_kept(page):
    """(static files, pages and pictures by campaign) that the browser keeps."""
    kept = page.evaluate(KEPT)
    files = [paths for name, paths in kept.items() if name.startswith("atelier-rating-files-")]
    return files, {name.split("-", 4)[-1]: paths for name, paths in kept.items() if "-of-" in name}


def wait_until(page, script, given=None):
    """The script, which may be asynchronous, says yes."""
    end = time.monotonic() + 30
    while not page.evaluate(script, given):
        assert time.monotonic() < end, {name: len(paths) for name, paths in page.evaluate(KEPT).items()}
        page.wait_for_timeout(100)


def wait_for_kept(page, campaign, pictures):
    """The worker has the page with its files, and so many pictures."""
    wait_until(
        page,
        """async ([slug, pictures]) => {
          const registration = await navigator.serviceWorker.getRegistration("/rate/");
          if (registration?.active?.state !== "activated") return false;
          const name = (await caches.keys()).find((each) => each.endsWith(`-${slug}`));
          const paths = name ? (await (await caches.open(name)).keys()).map(({ url }) => new URL(url).pathname) : [];
          const seen = paths.filter((path) => path.startsWith("/images/")).length;
          return seen >= pictures && paths.length > seen;
        }""",
        [campaign.slug, pictures],
    )


def wait_for_held(page, rater, campaign, items):  # noqa: F811
    wait_until(
        page,
        """([id, items]) => new Promise((done) => {
          indexedDB.open("atelier-outbox").onsuccess = ({ target }) => {
            const row = target.result.transaction("rows").objectStore("rows").get(id);
            row.onsuccess = () => { target.result.close(); done(row.result?.items.length === items); };
          };
        })""",
        [f"held-{rater.pk}-{campaign.slug}", items],
    )


def open_offline(context, campaign, search=""):
    """The page, and what of it could not be had."""
    page = context.new_page()
    page.faults, page.missed = [], []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("requestfailed", lambda request: page.missed.append(request.url))
    page.goto(f"/rate/{campaign.slug}/{search}")
    return page


def test_closed_offline_and_opened_again_offline_it_goes_on_and_sends_all_once_in_order(sign_in, line, rater):  # noqa: F811
    campaign = make_campaign(items=30, raters=[rater])
    shown = make_campaign(items=1).items.get().item_samples.get().sample
    add_example(campaign, shown, why="A clean rim")
    context = sign_in(rater, base_url=line.url)
    page = open_screen(context, campaign)
    press(page, "f", "f")
    wait_for_saved(page)
    wait_for_kept(page, campaign, 31)
    wait_for_held(page, rater, campaign, 28)
    line.cut()
    first = []
    for key in "fjf":
        page.wait_for_selector("#rate[data-state=ready]")
        first.append(page.evaluate(SHOWN)["prompt"])
        page.keyboard.press(key)
    page.wait_for_selector("#rate-cloud-box[data-state=stuck]")
    wait_for_held(page, rater, campaign, 25)
    page.close()

    again = open_offline(context, campaign)
    again.wait_for_selector("#rate[data-state=ready]")
    expect(again.locator("#rate-reopened")).to_contain_text("There is no connection.")
    expect(again.locator("#rate-cloud")).to_have_text("3 waiting, offline")
    expect(again.locator("#rate-ahead")).to_have_text("25 more can be judged offline")
    expect(again.locator("#rate-figures")).to_contain_text("5 of 30, 25 left for you")
    expect(again.locator("#rate-strip li")).to_have_count(5)
    example = again.locator("#rate-guidelines .example img")
    example.scroll_into_view_if_needed()
    again.wait_for_function("(picture) => picture.complete && picture.naturalWidth > 0", arg=example.element_handle())
    second = []
    for key in "jjfj":
        again.wait_for_selector("#rate[data-state=ready]")
        shown = again.evaluate(SHOWN)
        second.append((shown["prompt"], shown["isThere"]))
        again.keyboard.press(key)
    press(again, "u", "f")
    expect(again.locator("#rate-cloud")).to_have_text("9 waiting, offline")
    assert all(is_there for _, is_there in second)
    assert again.faults == []
    assert [url for url in again.missed if "/api/" not in url] == []
    assert Judgment.objects.count() == 2
    wait_for_held(again, rater, campaign, 21)
    again.close()

    # Once more without a connection, and then it comes back while the page is open.
    last = open_offline(context, campaign)
    last.wait_for_selector("#rate[data-state=ready]")
    expect(last.locator("#rate-cloud")).to_have_text("9 waiting, offline")
    press(last, "f")
    line.mend()
    assert wait_for_rows(12) == 12
    wait_for_saved(last)
    expect(last.locator("#rate-reopened")).to_be_hidden()
    rows = list(Judgment.objects.order_by("received_at").select_related("item__prompt"))
    told = [(row.item.prompt.text, row.action, row.answers.get("alignment")) for row in rows[2:]]
    prompts = [*first, *(prompt for prompt, _ in second)]
    values = {"f": "pass", "j": "fail"}
    assert told[:7] == [(prompt, "answer", values[key]) for prompt, key in zip(prompts, "fjfjjfj", strict=True)]
    assert told[7:9] == [(prompts[-1], "undo", None), (prompts[-1], "answer", "pass")]
    assert len({row.item_id for row in rows}) == 10
    press(last, *("f" * 20))
    last.wait_for_selector("#rate[data-state=over]")
    assert wait_for_rows(32) == 32
    assert len(standing(rater)) == 30
    assert not Judgment.objects.filter(late=True).exists()


def test_what_ran_out_offline_is_still_judged_and_comes_late(sign_in, line, rater):  # noqa: F811
    other = make_rater()
    campaign = make_campaign(items=4, raters=[rater, other])
    context = sign_in(rater, base_url=line.url)
    page = open_screen(context, campaign)
    wait_for_kept(page, campaign, 4)
    wait_for_held(page, rater, campaign, 4)
    line.cut()
    page.close()
    again = open_offline(context, campaign)
    again.wait_for_selector("#rate[data-state=ready]")
    expect(again.locator("#rate-reopened-late")).to_be_hidden()
    again.close()
    expire(*Assignment.objects.all())
    # Else they might be handed to the same rater again before the judgments arrive, which then are not late.
    assert len(lease_items(campaign, other, 4)) == 4
    again = context.new_page()
    again.clock.install(time=time.time() + 2 * 3600)
    again.goto(f"/rate/{campaign.slug}/")
    again.wait_for_selector("#rate[data-state=ready]")
    expect(again.locator("#rate-reopened-late")).to_contain_text("marked as late")
    press(again, "f", "j")
    line.mend()
    again.clock.run_for(120_000)
    assert wait_for_rows(2) == 2
    assert list(Judgment.objects.order_by("decided_at").values_list("answers__alignment", "late")) == [
        ("pass", True),
        ("fail", True),
    ]


def test_grid_opens_again_offline(sign_in, line, rater):  # noqa: F811
    campaign = make_campaign(items=15, raters=[rater])
    context = sign_in(rater, base_url=line.url)
    page = open_grid(context, campaign)
    page.click("[data-size='12']")
    wait_for_kept(page, campaign, 15)
    wait_for_held(page, rater, campaign, 15)
    page.close()
    line.cut()
    again = open_offline(context, campaign, "?view=grid")
    again.wait_for_selector("#rate[data-state=ready]")
    expect(again.locator("#rate-reopened")).to_be_visible()
    assert again.locator(".tile").count() == 12
    again.keyboard.press("Enter")
    expect(again.locator(".tile")).to_have_count(3)
    again.wait_for_selector("#rate[data-state=ready]")
    expect(again.locator("#rate-cloud")).to_have_text("12 waiting, offline")
    line.mend()
    assert wait_for_rows(12) == 12
    again.keyboard.press("Enter")
    again.wait_for_selector("#rate[data-state=over]")
    assert wait_for_rows(15) == 15
    assert [value for _, value in standing(rater)] == ["pass"] * 15
    assert again.faults == []


def test_the_server_has_the_word_while_it_answers_and_what_it_takes_away_is_not_kept(sign_in, line, rater):  # noqa: F811
    campaign = make_campaign(items=4, raters=[rater])
    context = sign_in(rater, base_url=line.url)
    page = open_screen(context, campaign)
    wait_for_kept(page, campaign, 4)
    revise_guidelines(campaign, "Frames pass.", change="Frames pass now", based_on=1, by=make_person(Role.CURATOR))
    page.goto(f"/rate/{campaign.slug}/")
    page.locator("#rate-guidelines", has_text="Frames pass.").wait_for(state="attached")
    close_campaign(campaign, by=make_person(Role.CURATOR))
    page.goto(f"/rate/{campaign.slug}/")
    page.get_by_role("heading", name="This campaign is closed").wait_for()
    line.cut()
    page.goto(f"/rate/{campaign.slug}/")
    page.get_by_role("heading", name="No connection").wait_for()


def test_where_nothing_is_kept_a_page_of_our_own_says_so(sign_in, line, rater):  # noqa: F811
    first, second = make_campaign(items=2, raters=[rater]), make_campaign(items=2, raters=[rater])
    context = sign_in(rater, base_url=line.url, viewport=WIDE)
    page = open_screen(context, first)
    wait_for_kept(page, first, 2)
    line.cut()
    page.goto(f"/rate/{second.slug}/")
    page.get_by_role("heading", name="No connection").wait_for()
    assert look_around(page) == []
    line.mend()
    page.get_by_role("link", name="Try again").click()
    page.wait_for_selector("#rate[data-state=ready]")
    line.cut()
    # What is at hand has a message of its own, which can be read as well.
    again = open_offline(context, first)
    again.wait_for_selector("#rate[data-state=ready]")
    expect(again.locator("#rate-reopened")).to_be_visible()
    assert look_around(again) == []


def test_signing_out_leaves_nothing_but_what_is_not_sent(sign_in, line, rater):  # noqa: F811
    campaign = make_campaign(items=6, raters=[rater])
    context = sign_in(rater, base_url=line.url)
    page = open_screen(context, campaign)
    press(page, "f")
    wait_for_saved(page)
    wait_for_kept(page, campaign, 5)
    page.route("**/api/**/judgments", lambda route: route.abort())
    press(page, "f")
    page.wait_for_selector("#rate-cloud-box[data-state=stuck]")
    page.goto("/")
    page.get_by_text("One judgment of before is kept in this browser").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/login/**")
    assert read_kept(page) == ([], {})
    assert page.evaluate(ROWS) == [str(rater.pk)]
    assert page.evaluate("navigator.serviceWorker.getRegistrations().then((all) => all.length)") == 0


def test_whoever_signs_in_next_finds_nothing_of_whom_was_here_before(sign_in, line, rater):  # noqa: F811
    other = make_rater()
    campaign = make_campaign(items=6, raters=[rater])
    context = sign_in(rater, base_url=line.url)
    page = open_screen(context, campaign)
    press(page, "f")
    wait_for_saved(page)
    wait_for_kept(page, campaign, 5)
    # Without a sign-out, as after a session's end.
    context.clear_cookies()
    context.add_cookies(sign_in(other).cookies())
    page.goto("/my-work/")
    wait_until(page, "async () => !(await caches.keys()).some((name) => name.includes('-of-'))")
    assert page.evaluate(ROWS) == []


def test_a_deploy_replaces_the_worker_and_all_of_its_files_and_pages(sign_in, line, rater, settings):  # noqa: F811
    campaign = make_campaign(items=4, raters=[rater])
    context = sign_in(rater, base_url=line.url)
    page = open_screen(context, campaign)
    wait_for_kept(page, campaign, 4)
    before = set(page.evaluate(KEPT))
    settings.CODE_VERSION = "later"
    page.reload()
    page.wait_for_selector("#rate[data-state=ready]")
    wait_until(
        page,
        """async (before) => {
          const names = await caches.keys();
          return names.filter((name) => name.includes("-files-")).length === 1 && !names.every((name) => before.includes(name));
        }""",
        list(before),
    )
    wait_for_kept(page, campaign, 4)
    wait_for_held(page, rater, campaign, 4)
    page.close()
    line.cut()
    again = open_offline(context, campaign)
    again.wait_for_selector("#rate[data-state=ready]")
    files, _ = read_kept(again)
    assert len(files) == 1
    assert again.faults == []


def test_examples_open_again_offline_and_an_answer_waits_for_the_connection(sign_in, line, rater):  # noqa: F811
    campaign = make_campaign(items=2, raters=[rater], guidelines="Accept a white rim.")
    shown = make_campaign(items=1).items.get().item_samples.get().sample
    add_example(campaign, shown, answers={"alignment": "fail"}, why="A frame", asks_percent=100)
    context = sign_in(rater, base_url=line.url)
    page = context.new_page()
    page.goto(f"/rate/{campaign.slug}/")
    page.get_by_role("heading", name="One example to answer").wait_for()
    wait_for_kept(page, campaign, 1)
    page.close()
    line.cut()
    # The address of the work, from which the server leads there.
    again = open_offline(context, campaign)
    again.get_by_role("button", name="Begin").press("Enter")
    picture = again.locator("#round-images img")
    again.wait_for_function("(picture) => picture.complete && picture.naturalWidth > 0", arg=picture.element_handle())
    again.keyboard.press("j")
    expect(again.locator("#round-told")).to_contain_text("The server cannot be reached.")
    expect(again.get_by_role("button", name="Try now")).to_be_visible()
    assert ExampleAnswer.objects.count() == 0
    line.mend()
    expect(again.get_by_text("You have passed.")).to_be_visible()
    assert list(ExampleAnswer.objects.values_list("attempt", "right")) == [(1, True)]
    assert again.faults == []
    assert [url for url in again.missed if "/api/" not in url] == []

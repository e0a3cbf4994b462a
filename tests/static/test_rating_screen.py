"""The rating screen in a real browser against the real endpoints: what is pressed is what is stored, once, whatever happens between."""

import time

import pytest
from playwright.sync_api import expect

from accounts.models import Role, User
from curation.assignments import lease_items
from curation.campaigns import close_campaign
from curation.models import Campaign, CampaignState, Judgment
from curation.rubrics import RUBRICS
from tests.accounts.factories import make_person
from tests.curation.factories import make_campaign, make_rater
from tests.curation.test_leases import expire
from tests.static.world import make_rating

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def rater():
    return make_rater()


def open_screen(context, campaign):
    page = context.new_page()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
    page.goto(f"/rate/{campaign.slug}/")
    page.wait_for_selector("#rate[data-state=ready]")
    return page


def press(page, *keys):
    for key in keys:
        page.wait_for_selector("#rate[data-state=ready]")
        page.keyboard.press(key)


def judge_offline(context, campaign):
    """A screen with three judgments, pass, pass and fail, that cannot be sent."""
    page = open_screen(context, campaign)
    context.set_offline(True)
    press(page, "f", "f", "j")
    page.wait_for_selector("#rate-cloud-box[data-state=stuck]")
    return page


def wait_for_saved(page):
    # What was judged last is told after its paint, and a quarter of a second later where none comes.
    page.wait_for_timeout(300)
    page.wait_for_selector("#rate-cloud-box[data-state=saved]")


def wait_for_rows(count):
    end = time.monotonic() + 10
    while Judgment.objects.count() < count and time.monotonic() < end:
        time.sleep(0.1)
    return Judgment.objects.count()


def standing(rater):
    """The answers that nothing has superseded, in the order of the items."""
    rows = Judgment.objects.filter(rater=rater, superseded_by=None).order_by("item__position")
    return [(row.action, row.answers.get("alignment")) for row in rows]


def test_each_key_stores_one_judgment_until_nothing_is_left(sign_in, rater):
    campaign = make_campaign(items=14, raters=[rater])
    page = open_screen(sign_in(rater), campaign)
    press(page, *("fj" * 7))
    page.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(page)
    assert "Nothing is left for you here" in page.inner_text("#rate-message")
    assert wait_for_rows(14) == 14
    assert standing(rater) == [("answer", "pass"), ("answer", "fail")] * 7
    assert {(*row.order, row.guideline_revision_id) for row in Judgment.objects.all()} == {
        (0, campaign.revisions.get().pk)
    }
    assert page.faults == []


def test_undo_skip_and_report_are_rows_of_their_own(sign_in, rater):
    campaign = make_campaign(items=4, raters=[rater])
    page = open_screen(sign_in(rater), campaign)
    press(page, "f", "u", "j", "s", "x", "2", "f")
    page.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(page)
    assert wait_for_rows(6) == 6
    assert standing(rater) == [("answer", "fail"), ("skip", None), ("flag", None), ("answer", "pass")]
    assert Judgment.objects.get(action="flag").reason == "The prompt makes no sense"
    assert page.faults == []


def test_skip_and_report_take_a_reason_in_the_raters_own_words(sign_in, rater):
    campaign = make_campaign(items=5, raters=[rater])
    page = open_screen(sign_in(rater), campaign)
    press(page, "y", "2", "y")
    page.keyboard.press("Escape")
    press(page, "y")
    words = page.locator("#rate-skip input")
    words.fill("1 of 2 cats")
    words.press("3")
    words.press("Enter")
    press(page, "y")
    page.get_by_role("button", name="Skip it").click()
    press(page, "x")
    # A report says why.
    page.get_by_role("button", name="Report it").click()
    assert page.is_visible("#rate-flag")
    page.locator("#rate-flag input").fill("upside down")
    page.get_by_role("button", name="Something else is wrong").click()
    press(page, "x")
    page.locator("#rate-flag input").fill("  Half of it is missing ")
    page.get_by_role("button", name="Report it").click()
    page.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(page)
    assert wait_for_rows(5) == 5
    said = list(Judgment.objects.order_by("item__position").values_list("action", "reason"))
    assert said == [
        ("skip", "I do not understand the prompt"),
        ("skip", "1 of 2 cats3"),
        ("skip", ""),
        ("flag", "Something else is wrong: upside down"),
        ("flag", "Half of it is missing"),
    ]
    assert page.faults == []


def test_a_key_right_after_a_reason_is_for_the_next_item(sign_in, rater):
    campaign = make_campaign(items=4, raters=[rater])
    page = open_screen(sign_in(rater), campaign)
    page.wait_for_load_state("networkidle")
    # All within one task, as when the browser is busy: what it does later has not happened by the next key.
    page.evaluate("""() => {
      const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
      for (const key of ["y", "2", "f", "y"]) press(key);
      const words = document.querySelector("#rate-skip input");
      words.focus();
      words.value = "Two cats";
      for (const key of ["Enter", "j"]) press(key);
    }""")
    page.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(page)
    assert wait_for_rows(4) == 4
    said = list(Judgment.objects.order_by("item__position").values_list("action", "reason", "answers"))
    assert said == [
        ("skip", "I do not understand the prompt", {}),
        ("answer", "", {"alignment": "pass"}),
        ("skip", "Two cats", {}),
        ("answer", "", {"alignment": "fail"}),
    ]
    assert page.faults == []


def test_the_digit_of_a_reason_says_nothing_of_the_next_item(sign_in, rater):
    # Its fail has reasons of its own, by the same digits.
    campaign = make_campaign(items=4, raters=[rater])
    page = open_screen(sign_in(rater), campaign)
    page.wait_for_load_state("networkidle")
    press(page, "y", "2", "j", "x", "1", "j")
    page.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(page)
    assert wait_for_rows(4) == 4
    said = list(Judgment.objects.order_by("item__position").values_list("action", "details"))
    assert said == [("skip", {}), ("answer", {}), ("flag", {}), ("answer", {})]
    assert page.faults == []


def test_the_strip_keeps_what_is_in_it_and_the_focus_there(sign_in, rater):
    campaign = make_campaign(items=4, raters=[rater])
    page = open_screen(sign_in(rater), campaign)
    press(page, "f")
    first = page.locator("#rate-strip button").first.element_handle()
    first.focus()
    press(page, "j")
    expect(page.locator("#rate-strip li")).to_have_count(2)
    assert page.evaluate("(kept) => document.querySelectorAll('#rate-strip button')[1] === kept", first)
    assert page.evaluate("(kept) => document.activeElement === kept", first)
    # What it undoes is gone, and the focus goes to what is in its place.
    first.press("Enter")
    expect(page.locator("#rate-strip li")).to_have_count(1)
    assert page.evaluate("document.querySelector('#rate-strip').contains(document.activeElement)")
    assert page.faults == []


def test_the_last_twenty_are_in_the_strip_and_can_be_undone_after_a_reload(sign_in, rater):
    campaign = make_campaign(items=24, raters=[rater])
    context = sign_in(rater, viewport={"width": 360, "height": 740})
    page = open_screen(context, campaign)
    press(page, *("f" * 22))
    strip = page.locator("#rate-strip li")
    expect(strip).to_have_count(20)
    wait_for_saved(page)
    page.reload()
    page.wait_for_selector("#rate[data-state=ready]")
    expect(strip).to_have_count(20)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    # The oldest is reached by scrolling, and is the one that is undone.
    third = campaign.items.order_by("position")[2].prompt.text
    oldest = strip.last.get_by_role("button")
    oldest.scroll_into_view_if_needed()
    expect(oldest).to_be_in_viewport()
    oldest.click()
    expect(page.locator("#rate-prompt")).to_have_text(third)
    press(page, "j", "u", "u")
    expect(strip).to_have_count(18)
    wait_for_saved(page)
    actions = {row.item.position: (row.action, row.answers) for row in Judgment.objects.filter(superseded_by=None)}
    assert [actions[place][0] for place in (2, 20, 21)] == ["undo", "answer", "undo"]
    assert page.faults == []


def test_undo_of_what_was_judged_offline_survives_a_reload_and_goes_with_the_sign_out(sign_in, rater):
    campaign = make_campaign(items=6, raters=[rater])
    context = sign_in(rater)
    page = open_screen(context, campaign)
    stuck = "**/api/**/judgments"
    page.route(stuck, lambda route: route.abort())
    press(page, "f", "j")
    page.wait_for_selector("#rate-cloud-box[data-state=stuck]")
    page.reload()
    page.wait_for_selector("#rate[data-state=ready]")
    press(page, "u")
    expect(page.locator("#rate-strip li")).to_have_count(1)
    page.unroute(stuck)
    page.evaluate("dispatchEvent(new Event('online'))")
    wait_for_saved(page)
    assert wait_for_rows(3) == 3
    assert standing(rater) == [("answer", "pass"), ("undo", None)]
    page.goto("/")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/login/**")
    again = sign_in(rater)
    context.add_cookies(again.cookies())
    page.goto(f"/rate/{campaign.slug}/")
    page.wait_for_selector("#rate[data-state=ready]")
    expect(page.locator("#rate-strip li")).to_have_count(0)


def test_undo_after_a_reload_goes_on_where_the_chain_ended(sign_in, rater):
    campaign = make_campaign(items=2, raters=[rater])
    context = sign_in(rater)
    page = open_screen(context, campaign)
    press(page, "f", "u")
    wait_for_saved(page)
    assert wait_for_rows(2) == 2
    page.close()
    again = open_screen(context, campaign)
    press(again, "j", "f")
    wait_for_saved(again)
    assert wait_for_rows(4) == 4
    assert standing(rater) == [("answer", "fail"), ("answer", "pass")]


def wait_for_ahead(page, count):
    """The page holds so many items with their pictures, and wants no more."""
    page.wait_for_selector(f"#rate[data-ahead=ready][data-ahead-count='{count}']")


SHOWN = """() => {
    const picture = document.querySelector("#rate-stage img");
    return { prompt: document.querySelector("#rate-prompt").textContent.trim(), src: picture.src, isThere: picture.complete && picture.naturalWidth > 0 };
}"""


def test_what_was_judged_offline_survives_closing_the_page(sign_in, rater):
    campaign = make_campaign(items=90, raters=[rater])
    context = sign_in(rater)
    page = open_screen(context, campaign)
    wait_for_ahead(page, 80)
    expect(page.locator("#rate-ahead")).to_be_hidden()
    context.set_offline(True)
    expect(page.locator("#rate-ahead")).to_have_text("80 more can be judged offline")
    shown, keys = [], "ffj" * 16 + "jf"
    for key in keys:
        page.wait_for_selector("#rate[data-state=ready]")
        shown.append(page.evaluate(SHOWN))
        page.keyboard.press(key)
    expect(page.locator("#rate-cloud")).to_have_text("50 waiting, offline")
    assert page.locator("#rate-cloud-box[data-state=stuck]").count()
    expect(page.locator("#rate-ahead")).to_have_text("30 more can be judged offline")
    assert all(item["isThere"] for item in shown)
    assert len({item["src"] for item in shown}) == 50
    page.close()
    assert Judgment.objects.count() == 0
    context.set_offline(False)
    again = open_screen(context, campaign)
    assert wait_for_rows(50) == 50
    wait_for_saved(again)
    rows = Judgment.objects.order_by("received_at")
    told = [(row.item.prompt.text, row.answers["alignment"]) for row in rows.select_related("item__prompt")]
    values = {"f": "pass", "j": "fail"}
    assert told == [(item["prompt"], values[key]) for item, key in zip(shown, keys, strict=True)]
    press(again, *("j" * 40))
    again.wait_for_selector("#rate[data-state=over]")
    assert wait_for_rows(90) == 90
    assert [value for _, value in standing(rater)] == [values[key] for key in keys] + ["fail"] * 40


def test_what_was_judged_offline_is_sent_from_any_page_also_after_the_campaign_has_closed(sign_in, rater):
    campaign = make_campaign(items=6, raters=[rater])
    context = sign_in(rater)
    page = judge_offline(context, campaign)
    page.close()
    close_campaign(campaign, by=make_person(Role.CURATOR))
    context.set_offline(False)
    other = context.new_page()
    other.route("**/api/**/judgments", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    other.goto("/")
    other.get_by_text("3 judgments of before are kept in this browser").wait_for()
    other.unroute("**/api/**/judgments")
    other.goto(f"/rate/{campaign.slug}/")
    assert wait_for_rows(3) == 3
    other.wait_for_selector("#unsent:empty", state="attached")
    assert standing(rater) == [("answer", value) for value in ("pass", "pass", "fail")]


def test_what_was_refused_on_another_page_cannot_be_undone_on_the_screen(sign_in, rater):
    campaign = make_campaign(items=6, raters=[rater])
    context = sign_in(rater)
    page = open_screen(context, campaign)
    page.route("**/api/**/judgments", lambda route: route.abort())
    press(page, "f", "f", "j")
    page.wait_for_selector("#rate-cloud-box[data-state=stuck]")
    # The other page would send by itself once the line is there, so what it hears is made up before.
    context.route(
        "**/api/**/judgments",
        lambda route: route.fulfill(
            json={
                "results": [
                    {"id": row["id"], "status": "rejected" if place == 1 else "stored", "reason": "No."}
                    for place, row in enumerate(route.request.post_data_json["judgments"])
                ]
            }
        ),
    )
    page.unroute("**/api/**/judgments")
    page.goto("/")
    page.get_by_text("judgment was not accepted. No.").wait_for()
    page.goto(f"/rate/{campaign.slug}/")
    page.wait_for_selector("#rate[data-state=ready]")
    expect(page.locator("#rate-strip li")).to_have_count(2)


def test_a_pause_is_told_at_once_and_the_screen_goes_on_when_it_is_lifted(sign_in, rater):
    other = make_rater()
    campaign = make_campaign(items=12, raters=[rater, other])
    held = lease_items(campaign, other, 2)
    page = open_screen(sign_in(rater), campaign)
    wait_for_ahead(page, 10)
    Campaign.objects.filter(pk=campaign.pk).update(state=CampaignState.PAUSED)
    press(page, "f", "f", "f", "f", "f", "f", "f")
    page.locator("#rate-gone").wait_for()
    press(page, "f", "f", "f")
    page.wait_for_selector("#rate[data-state=over]")
    assert page.locator("#rate-gone-words").inner_text() in page.inner_text("#rate-message")
    expire(*held)
    Campaign.objects.filter(pk=campaign.pk).update(state=CampaignState.OPEN)
    page.get_by_role("button", name="Look again").click()
    page.wait_for_selector("#rate[data-state=ready]")
    press(page, "f", "f")
    assert wait_for_rows(12) == 12


def test_rater_who_loses_the_role_is_told_keeps_what_was_judged_and_goes_on_once_it_is_back(sign_in, rater):
    other = make_rater()
    campaign = make_campaign(items=12, raters=[rater, other])
    held = lease_items(campaign, other, 2)
    page = open_screen(sign_in(rater), campaign)
    wait_for_ahead(page, 10)
    User.objects.filter(pk=rater.pk).update(roles=[Role.AUDITOR])
    press(page, "f", "f")
    page.locator("#rate-role-lost").get_by_text("This account may no longer rate here.").wait_for()
    assert not page.locator("#rate-signed-out").is_visible()
    expect(page.locator("#rate-cloud")).to_have_text("2 waiting, no role")
    press(page, *"ffffffff")
    page.wait_for_selector("#rate[data-state=over]")
    assert "This account may not rate now" in page.inner_text("#rate-message")
    assert Judgment.objects.count() == 0
    # As the worker may, on a first visit. What the server says of it now is not what the way back shows.
    assert page.evaluate("fetch(location.href).then((answer) => answer.text().then(() => answer.status))") == 404
    # The way on leads to a page that this account may see, and that says what waits.
    page.locator("#rate-role-lost").get_by_role("link", name="To the start").click()
    page.get_by_text("kept in this browser: this account may not rate now").wait_for()
    User.objects.filter(pk=rater.pk).update(roles=[Role.RATER])
    expire(*held)
    page.go_back()
    page.wait_for_selector("#rate[data-state=ready]")
    press(page, "f", "f")
    page.wait_for_selector("#rate[data-state=over]")
    assert wait_for_rows(12) == 12


def test_role_that_comes_back_ends_the_message_without_a_reload(sign_in, rater):
    campaign = make_campaign(items=12, raters=[rater])
    page = open_screen(sign_in(rater), campaign)
    User.objects.filter(pk=rater.pk).update(roles=[])
    press(page, "f", "f")
    page.locator("#rate-role-lost").wait_for()
    User.objects.filter(pk=rater.pk).update(roles=[Role.RATER])
    page.locator("#rate-role-lost").get_by_role("button", name="Try again").click()
    page.locator("#rate-role-lost").wait_for(state="hidden")
    assert wait_for_rows(2) == 2


def test_what_is_new_is_heard_within_few_keys_however_much_is_in_hand(sign_in, rater):
    campaign = make_campaign(items=40, raters=[rater])
    page = open_screen(sign_in(rater), campaign)
    wait_for_ahead(page, 40)
    asked = []
    page.on("request", lambda request: asked.append(request.post_data_json) if request.url.endswith("/lease") else None)
    press(page, *("f" * 5))
    with page.expect_response("**/lease"):
        pass
    Campaign.objects.filter(pk=campaign.pk).update(state=CampaignState.PAUSED)
    press(page, *("f" * 5))
    page.locator("#rate-gone").wait_for()
    assert [request["count"] for request in asked] == [1, 1]


def test_leases_are_renewed_at_half_their_time_and_what_ran_out_stays_without_a_connection(sign_in, rater):
    campaign = make_campaign(items=8, raters=[rater], lease_seconds=10)
    context = sign_in(rater)
    page = open_screen(context, campaign)
    wait_for_ahead(page, 8)
    first = page.locator("#rate-stage img").get_attribute("src")
    page.wait_for_timeout(5500)
    with page.expect_response("**/lease") as answer:
        press(page, "f")
    assert answer.value.request.post_data_json["count"] > 1
    context.set_offline(True)
    page.wait_for_timeout(10500)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    press(page, *("f" * 5))
    expect(page.locator("#rate-ahead")).to_have_text("2 more can be judged offline")
    press(page, "u", "u", "u", "u", "u", "u")
    expect(page.locator("#rate-stage img")).to_have_attribute("src", first)


def test_lease_from_before_the_judgments_arrived_shows_none_of_them_again(sign_in, rater):
    campaign = make_campaign(items=6, raters=[rater])
    context = sign_in(rater)
    page = open_screen(context, campaign)
    # Not by the browser's own switch: a page that is still being closed would see it turned back, and send.
    page.evaluate(
        "() => { const real = fetch; window.fetch = (url, o) => /judgments$/.test(url) ? Promise.reject(new TypeError()) : real(url, o); }"
    )
    press(page, "f", "f", "j")
    page.wait_for_selector("#rate-cloud-box[data-state=stuck]")
    page.close()
    again = context.new_page()
    leases, sent = [], []
    again.route(
        "**/api/**/lease", lambda route: leases.append((route, route.fetch())) if not leases else route.continue_()
    )
    again.route("**/api/**/judgments", lambda route: sent.append(route) if not sent else route.continue_())
    again.goto(f"/rate/{campaign.slug}/")
    until = time.monotonic() + 30
    while not (leases and sent) and time.monotonic() < until:
        again.wait_for_timeout(50)
    # The server has answered the lease, and only then gets the judgments; the answer comes last of all.
    assert (Judgment.objects.count(), len(leases[0][1].json()["items"])) == (0, 6)
    sent[0].continue_()
    assert wait_for_rows(3) == 3
    wait_for_saved(again)
    route, answer = leases[0]
    route.fulfill(response=answer)
    press(again, "j", "j", "j")
    again.wait_for_selector("#rate[data-state=over]")
    assert wait_for_rows(6) == 6
    assert standing(rater) == [("answer", value) for value in ("pass", "pass", "fail", "fail", "fail", "fail")]


def test_style_asks_three_questions_and_submits_by_itself(sign_in, rater):
    campaign = make_campaign("style", items=2, raters=[rater])
    page = open_screen(sign_in(rater), campaign)
    press(page, "e", "k", "c", "p")
    page.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(page)
    assert wait_for_rows(2) == 2
    answers = [row.answers for row in Judgment.objects.order_by("item__position")]
    assert answers == [
        {"visual_quality": "pass", "prompt_alignment": "fail", "style_alignment": "pass"},
        {"visual_quality": "pass", "prompt_alignment": "pass", "style_alignment": "pass"},
    ]


def test_two_tabs_store_each_item_once(sign_in, rater):
    campaign = make_campaign(items=6, raters=[rater])
    context = sign_in(rater)
    left, right = open_screen(context, campaign), open_screen(context, campaign)
    for page in (left, right) * 3:
        page.bring_to_front()
        press(page, "f")
    for page in (left, right):
        page.bring_to_front()
        wait_for_saved(page)
    assert wait_for_rows(6) == 6
    assert [page.is_visible("#rate-rejected") for page in (left, right)] == [False, False]


def test_what_one_tab_takes_back_offline_the_other_may_judge(sign_in, rater):
    campaign = make_campaign(items=3, raters=[rater])
    context = sign_in(rater)
    left, right = open_screen(context, campaign), open_screen(context, campaign)
    first, second = (item.prompt.text for item in campaign.items.order_by("position")[:2])
    context.set_offline(True)
    left.bring_to_front()
    press(left, "f")
    expect(right.locator("#rate-figures")).to_contain_text("1 of 3")
    left.bring_to_front()
    press(left, "u")
    expect(left.locator("#rate-prompt")).to_have_text(first)
    expect(right.locator("#rate-figures")).to_contain_text("0 of 3")
    expect(right.locator("#rate-prompt")).to_have_text(second)
    right.bring_to_front()
    press(right, "f", "f", "j")
    right.wait_for_selector("#rate[data-state=over], #rate[data-state=error]")
    assert left.locator("#rate-prompt").inner_text() == ""
    context.set_offline(False)
    assert wait_for_rows(5) == 5
    for page in (left, right):
        page.bring_to_front()
        wait_for_saved(page)
    assert standing(rater) == [("answer", "fail"), ("answer", "pass"), ("answer", "pass")]
    assert not right.is_visible("#rate-rejected")


def test_a_key_in_the_moment_in_which_the_page_goes_is_kept(sign_in, rater):
    campaign = make_campaign(items=3, raters=[rater])
    page = open_screen(sign_in(rater), campaign)
    page.route("**/api/**/judgments", lambda route: route.abort())
    page.evaluate(
        """() => {
          // Nothing that waits for the paint has its turn any more.
          window.requestAnimationFrame = () => 0;
          const plan = window.setTimeout;
          window.setTimeout = (work, ms = 0) => plan(work, Math.max(ms, 60000));
          document.dispatchEvent(new KeyboardEvent("keydown", { key: "f", code: "KeyF", bubbles: true }));
          location.assign("/");
        }"""
    )
    page.get_by_text("One judgment of before is kept in this browser").wait_for()


def test_what_one_device_judged_leaves_the_other_and_a_stale_skip_takes_nothing_back(sign_in, rater):
    campaign = make_campaign(items=4, raters=[rater])
    left, right = open_screen(sign_in(rater), campaign), open_screen(sign_in(rater), campaign)
    press(left, "f", "f")
    wait_for_saved(left)
    assert wait_for_rows(2) == 2
    press(right, "s")
    right.locator("#rate-rejected").wait_for()
    right.get_by_role("button", name="Show").click()
    expect(right.locator("#rate-rejected-list")).to_contain_text("You have answered this item on another device since")
    right.get_by_role("button", name="I have read it").click()
    right.keyboard.press("Escape")
    # The second one is still on the screen here; the next contact lets go of it.
    right.evaluate("dispatchEvent(new Event('online'))")
    third = campaign.items.order_by("position")[2].prompt.text
    expect(right.locator("#rate-prompt")).to_have_text(third)
    expect(right.locator("#rate-figures")).to_contain_text("2 left for you")
    press(right, "j", "j")
    right.wait_for_selector("#rate[data-state=over]")
    assert wait_for_rows(4) == 4
    assert standing(rater) == [("answer", value) for value in ("pass", "pass", "fail", "fail")]


def test_reason_is_of_the_item_for_which_it_was_asked_though_that_left_meanwhile(sign_in, rater):
    campaign = make_campaign(items=3, raters=[rater])
    left, right = open_screen(sign_in(rater), campaign), open_screen(sign_in(rater), campaign)
    press(right, "x")
    press(left, "f")
    wait_for_saved(left)
    second, third = (item.prompt.text for item in campaign.items.order_by("position")[1:])
    right.evaluate("dispatchEvent(new Event('online'))")
    expect(right.locator("#rate-prompt")).to_have_text(second)
    right.keyboard.press("1")
    right.wait_for_selector("#rate-flag", state="hidden")
    press(right, "f")
    expect(right.locator("#rate-prompt")).to_have_text(third)
    wait_for_saved(right)
    assert wait_for_rows(2) == 2
    assert standing(rater) == [("answer", "pass")] * 2


def test_screen_fits_a_small_one(sign_in, rater):
    campaign = make_campaign("style", items=2, raters=[rater])
    page = open_screen(sign_in(rater, viewport={"width": 360, "height": 740}), campaign)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    buttons = page.locator(".choice").all()
    boxes = [button.bounding_box() for button in buttons]
    assert len(boxes) == 7
    assert all(box["y"] + box["height"] <= 740 and box["height"] >= 40 for box in boxes)


def test_reasons_and_words_go_with_the_fail_in_one_press(sign_in, rater):
    campaign = make_campaign(items=3, raters=[rater])
    page = open_screen(sign_in(rater), campaign)
    press(page, "1", "4")
    assert page.locator(".reason[aria-pressed=true]").all_inner_texts() == ["1\nWrong subject", "4\nMissing part"]
    page.locator(".word").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    press(page, "j")
    assert page.locator("[aria-pressed=true]").count() == 0
    press(page, "2", "f")
    page.locator(".reason").nth(1).click()
    press(page, "j")
    page.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(page)
    assert wait_for_rows(3) == 3
    assert [row.details for row in Judgment.objects.order_by("item__position")] == [
        {"alignment": {"reasons": ["Wrong subject", "Missing part"], "words": [1]}},
        {},
        {"alignment": {"reasons": ["Wrong emotion"]}},
    ]
    assert page.faults == []


def test_fail_that_needs_a_reason_asks_for_it_and_a_click_marks_the_place(sign_in, rater):
    questions = [{**question, "needs_reason": question["name"] == "visual_quality"} for question in RUBRICS["style"]]
    campaign = make_campaign("style", items=2, raters=[rater], questions=questions)
    page = open_screen(sign_in(rater), campaign)
    box = page.locator("#rate-stage img").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    press(page, "i", "d", "c")
    assert page.locator(".reasons__group[data-asked]").count() == 1
    press(page, "2", "p")
    page.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(page)
    assert wait_for_rows(2) == 2
    first = Judgment.objects.order_by("item__position").first()
    x, y = first.details["visual_quality"].pop("point")
    assert first.details == {"visual_quality": {"reasons": ["Cut off"]}}
    assert (round(x, 1), round(y, 1)) in {(0.2, 0.5), (0.3, 0.5)}
    assert page.faults == []


def test_rater_moves_a_key_and_it_is_there_in_the_next_campaign(sign_in, rater):
    first, second = make_campaign(items=2, raters=[rater]), make_campaign(items=1, raters=[rater])
    context = sign_in(rater)
    page = open_screen(context, first)
    press(page, "?")
    page.get_by_role("button", name="Fail: J. Press to change").click()
    page.keyboard.press("f")
    expect(page.locator("#rate-keys-said")).to_contain_text("F is already the key of “Pass”")
    page.keyboard.press("k")
    expect(page.locator("#rate-keys-said")).to_have_text("Changed and saved.")
    page.keyboard.press("Escape")
    assert page.locator(".choice--fail").inner_text() == "K\nFail"
    press(page, "j", "k", "f")
    page.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(page)
    again = open_screen(context, second)
    press(again, "k")
    again.wait_for_selector("#rate[data-state=over]")
    wait_for_saved(again)
    assert wait_for_rows(3) == 3
    assert sorted(row.answers["alignment"] for row in Judgment.objects.all()) == ["fail", "fail", "pass"]
    assert page.faults == again.faults == []


def test_sticker_at_real_size_and_what_its_transparency_hides(sign_in, rater):
    campaign = make_campaign(items=2, raters=[rater])
    page = open_screen(sign_in(rater, viewport={"width": 1200, "height": 800}), campaign)
    copy = page.locator("#rate-real img")
    assert (copy.bounding_box()["width"], copy.count()) == (128, 1)
    press(page, "r", "r")
    expect(copy).to_have_attribute("width", "240")
    press(page, "o")
    # The pictures of these tests are squares of one colour that can be half seen through.
    expect(page.locator("#rate-legend")).to_contain_text("100.0% of the sticker is half-transparent, no holes.")
    pixel = "() => [...document.querySelector('.rate__edges').getContext('2d').getImageData(3, 3, 1, 1).data]"
    assert page.evaluate(pixel) == [255, 0, 200, 255]
    press(page, "f")
    expect(page.locator(".rate__edges")).to_have_count(1)
    press(page, "o", "r")
    expect(page.locator(".rate__edges")).to_have_count(0)
    expect(copy).to_have_count(0)
    assert page.faults == []


def test_arrows_move_what_is_zoomed_and_answer_nothing_meanwhile(sign_in):
    person = make_person(*Role.values)
    campaign = make_rating(person, "compare")
    page = open_screen(sign_in(person, viewport={"width": 1200, "height": 800}), campaign)
    at = "() => ['--x', '--y'].map((name) => document.getElementById('rate-stage').style.getPropertyValue(name))"
    page.wait_for_selector("#rate[data-state=ready]")
    page.keyboard.down("z")
    press(page, "ArrowLeft", "ArrowDown", "ArrowDown")
    assert page.evaluate(at) == ["40%", "70%"]
    press(page, *["ArrowLeft"] * 5, "ArrowRight")
    assert page.evaluate(at) == ["10%", "70%"]
    assert page.locator(".rate__frame img").first.evaluate("(picture) => getComputedStyle(picture).scale") == "2.5"
    expect(page.locator("#rate-figures")).to_contain_text("0 of")
    page.keyboard.up("z")
    press(page, "ArrowLeft")
    expect(page.locator("#rate-figures")).to_contain_text("1 of")
    assert page.faults == []

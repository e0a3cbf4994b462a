"""Every page at WCAG 2.2 AA as far as a program can tell: axe-core in a real browser, light and dark, wide and narrow."""

import pytest
from django.urls import get_resolver, reverse
from playwright.sync_api import expect

from accounts.models import Role
from curation.guidelines import revise_guidelines
from tests.accounts.factories import make_person
from tests.accounts.test_policies import all_patterns
from tests.curation.factories import add_example
from tests.static.accessibility import OF_COLOURS, WIDE, look_around, violations
from tests.static.world import make_rating, make_world

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

# Pages without an argument, that are there whether or not anything is on them.
LISTS = {
    "home", "account", "people", "jobs", "prompt_sets", "batches", "models", "my_work", "campaigns", "samples", "datasets",
    "recipes", "runs", "runs_compare", "evaluations", "model_import", "prompt_set_new", "batch_new", "campaign_new",
    "dataset_new", "recipe_new", "run_new", "evaluation_new", "corpora", "corpus_new",
}  # fmt: skip
# Pages of one thing; what `make_world` gives the address of.
THINGS = {
    "person", "job", "prompt_set", "batch", "model", "sample", "campaign", "campaign_guidelines", "campaign_reliability",
    "campaign_adjudicate", "campaign_flagged", "campaign_gold", "gold_item", "rater_exclusion", "dataset", "dataset_version",
    "recipe", "rehearsal", "run", "evaluation", "campaign_questions", "campaign_scores", "corpus",
}  # fmt: skip
STRANGERS = {"account_login", "account_signup", "account_reset_password", "account_reset_password_done", "invitation"}
OF_ALLAUTH = {
    "account_logout", "account_change_password", "account_email", "account_reauthenticate", "mfa_index", "mfa_activate_totp",
}  # fmt: skip
FORMS = ["prompt_set_new", "batch_new", "campaign_new", "dataset_new", "recipe_new", "run_new", "evaluation_new"]
KINDS = ["alignment", "style", "pick", "compare", "sets"]
# Everything else that has an address, and why it is no page of its own.
NO_PAGES = {
    "for machines": {"healthz", "readyz", "metrics", "image", "thumbnail", "image_for_viewer", "campaign_curve", "run_curves",
                     "runs_compare_curves", "dataset_version_download", "model_download", "model_lora",
                     "mfa_download_recovery_codes", "rate_worker"},
    "parts of pages that are looked at with these": {"batch_estimate", "batch_state", "batch_wall", "recipe_preview",
                                                     "run_estimate", "run_state", "run_samples", "evaluation_state"},
    "take a form and lead to a page": {
        "invitation_revoke", "token_revoke", "job_cancel", "job_retry", "batch_cancel", "batch_retry", "model_promote", "model_licence",
        "model_decoder", "campaign_open", "campaign_pause", "campaign_close", "campaign_raters", "campaign_adjudicate_undo",
        "rater_let_in", "rater_round", "gold_copy", "gold_retire", "campaign_quality", "campaign_rule", "campaign_order",
        "campaign_recount", "dataset_approval", "dataset_freeze", "dataset_campaigns", "recipe_sweep", "rehearse", "run_cancel", "run_first", "run_pause", "run_resume",
        "evaluation_promote", "corpus_stop", "corpus_resume", "corpus_remove", "corpus_verify", "corpus_licence",
    },
    "of allauth, by our elements, which the pages of allauth that are looked at show": {
        "account_inactive", "account_email_verification_sent", "account_set_password", "account_confirm_login_code",
        "account_confirm_email", "account_reset_password_from_key_done", "account_reset_password_from_key",
        "mfa_authenticate", "mfa_reauthenticate", "mfa_deactivate_totp", "mfa_view_recovery_codes",
        "mfa_generate_recovery_codes",
    },
    "looked at screen by screen": {"rate", "rate_examples"},
}  # fmt: skip


@pytest.fixture
def person():
    return make_person(*Role.values, name="Kim Everything")


def open_page(page, address):
    page.goto(address)
    assert page.locator("h1").count() == 1, f"{address}: {page.title()}"


def refuse(found):
    """Fails with everything that was found, by what was looked at: name -> violations."""
    said = [
        f"{name}\n" + "\n".join(f"    {each}" for each in all_of_it) for name, all_of_it in found.items() if all_of_it
    ]
    assert not said, "\n".join(["", *said])


def test_every_address_is_looked_at_or_says_why_not():
    names = {pattern.name for _, pattern, spaces in all_patterns(get_resolver()) if not spaces}
    named = [LISTS, THINGS, STRANGERS, OF_ALLAUTH, *NO_PAGES.values()]
    assert names == set().union(*named)
    assert sum(map(len, named)) == len(names)
    assert set(FORMS) <= LISTS


def test_check_sees_what_is_wrong(sign_in, person):
    page = sign_in(person, viewport=WIDE).new_page()
    page.goto("/account/")
    assert violations(page) == []
    page.evaluate(
        """() => {
          const add = (html) => document.querySelector("main").insertAdjacentHTML("beforeend", html);
          add('<img src="/favicon.ico">');
          add('<p id="faint">Hardly to be read</p>');
          add('<p><button class="dot" aria-label="one"></button><button class="dot" aria-label="two"></button></p>');
          document.getElementById("faint").style.color = "#8888";
          for (const dot of document.querySelectorAll(".dot")) dot.style.cssText = "inline-size:10px;block-size:10px;padding:0;border:0";
          document.querySelector(".page").style.inlineSize = "500px";
        }"""
    )
    assert {each.split(":")[0] for each in violations(page)} == {"image-alt", "color-contrast", "target-size"}
    assert {each.split(":")[0] for each in violations(page, OF_COLOURS)} == {"color-contrast"}
    assert "narrow: the page is" in look_around(page)[-1]


def test_pages_of_an_empty_workspace(sign_in, person):
    page = sign_in(person, viewport=WIDE).new_page()
    found = {}
    for name in sorted(LISTS):
        open_page(page, reverse(name))
        found[name] = violations(page)
    refuse(found)


def test_lists_and_forms_of_a_full_workspace(sign_in, person):
    addresses = make_world(person)
    page = sign_in(person, viewport=WIDE).new_page()
    found = {}
    for name in sorted(LISTS):
        open_page(page, addresses.get(name) or reverse(name))
        found[name] = look_around(page)
    for name in FORMS:
        page.goto(addresses.get(name) or reverse(name))
        # The browser's own checks are left out, as for whoever has a browser that makes none.
        page.evaluate("() => { for (const form of document.querySelectorAll('main form')) form.noValidate = true; }")
        page.locator("main form[method=post] button:not([type=button], [formaction])").last.click()
        page.wait_for_load_state()
        found[f"{name}, refused"] = violations(page)
    for role in Role.values:
        context = sign_in(make_person(role), viewport=WIDE)
        page = context.new_page()
        open_page(page, "/")
        found[f"home of a {role}"] = violations(page)
    refuse(found)


def test_pages_of_one_thing_and_their_dialogs(sign_in, person):
    addresses = make_world(person)
    page = sign_in(person, viewport=WIDE).new_page()
    found = {}
    for name in sorted(THINGS):
        open_page(page, addresses[name])
        found[name] = look_around(page)
        for button in page.locator("main [data-dialog]").all():
            button.click()
            page.wait_for_selector("dialog[open]")
            found[f"{name}: {button.inner_text()}"] = violations(page)
            page.keyboard.press("Escape")
    refuse(found)


def test_pages_of_strangers_and_of_accounts(sign_in, person, chromium, live_server):
    addresses = make_world(person)
    page = chromium.new_context(base_url=live_server.url, viewport=WIDE).new_page()
    found = {}
    for name in sorted(STRANGERS):
        open_page(page, addresses.get(name) or reverse(name))
        found[name] = look_around(page)
    page.goto(reverse("account_login"))
    page.fill("[name=login]", "nobody@example.org")
    page.fill("[name=password]", "wrong")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector("[role=alert], .errorlist, .field__error")
    found["signing in, refused"] = violations(page)
    page.context.close()
    page = sign_in(person, viewport=WIDE).new_page()
    for name in sorted(OF_ALLAUTH):
        page.goto(reverse(name))
        found[name] = look_around(page)
    open_page(page, "/nowhere/")
    found["not found"] = look_around(page)
    refuse(found)


@pytest.mark.parametrize("kind", KINDS)
def test_rating_screens(sign_in, person, kind):
    campaign = make_rating(person, kind)
    page = sign_in(person, viewport=WIDE).new_page()
    address, found = reverse("rate", args=[campaign.slug]), {}
    page.goto(address)
    page.wait_for_selector("#rate[data-state=ready]")
    # In the comparison both drew the very same picture.
    assert page.locator("#rate-stage img").count() == {"compare": 2, "pick": 3, "sets": 8}.get(kind, 1)
    found["ready"] = look_around(page)
    page.wait_for_selector("#rate[data-state=ready]")
    page.keyboard.press("?")
    page.wait_for_selector("#rate-help[open]")
    found["help"] = look_around(page)
    page.keyboard.press("Escape")
    page.keyboard.press("x")
    page.wait_for_selector("#rate-flag[open]")
    found["report"] = look_around(page)
    page.keyboard.press("Escape")
    page.keyboard.press("y")
    page.wait_for_selector("#rate-skip[open]")
    found["skip, and why"] = look_around(page)
    page.keyboard.press("1")
    page.wait_for_selector(".strip__item")
    page.wait_for_selector("#rate[data-state=ready]")
    of_kind = ("guidelines", "background") if kind == "sets" else ("guidelines", "background", "edges", "zoom")
    for command in of_kind:
        page.locator(f"[data-command={command}]").first.click()
        found[command] = violations(page)
    if kind in ("alignment", "style"):
        page.goto(f"{address}?view=grid")
        page.wait_for_selector("#rate[data-state=ready]")
        page.keyboard.press("Space")
        found["grid"] = look_around(page)
    if kind == "alignment":
        revise_guidelines(
            campaign, "Frames pass.", change="Frames pass now", based_on=campaign.revisions.count(), by=person
        )
        page.goto(address)
        page.wait_for_selector("#rate-news[open]")
        found["news"] = look_around(page)
        page.keyboard.press("Escape")
    refuse(found)


FAULTS = {
    "offline": ("#rate-cloud-box[data-state=stuck]", None),
    "signed out": ("#rate-signed-out", {"status": 401, "json": {"detail": "Unauthorized"}}),
    "paused": ("#rate-gone", {"status": 409, "json": {"detail": "This campaign is paused: nothing is handed out."}}),
    "role lost": ("#rate-role-lost", {"status": 403, "json": {"detail": "No.", "code": "no-rater-role"}}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_rating_screen_when_something_is_wrong(sign_in, person, fault):
    """With an item in hand, and with none."""
    shown, answer = FAULTS[fault]
    campaign = make_rating(person, "alignment")
    page = sign_in(person, viewport=WIDE).new_page()
    of_leases, of_judgments = "**/api/**/lease", "**/api/**/judgments"

    def refuse_request(route):
        route.fulfill(**answer) if answer else route.abort()

    page.goto(reverse("rate", args=[campaign.slug]))
    page.wait_for_selector("#rate[data-state=ready]")
    page.route(of_leases, refuse_request)
    if fault != "paused":
        page.route(of_judgments, refuse_request)
    page.keyboard.press("f")
    page.evaluate("dispatchEvent(new Event('online'))")
    page.wait_for_selector(shown)
    page.wait_for_selector("#rate[data-state=ready]")
    found = {"in hand": look_around(page)}
    page.reload()
    if fault == "offline":
        # What was in hand is taken up again; another browser has nothing of it.
        page.wait_for_selector("#rate-reopened")
        found["taken up"] = look_around(page)
        page = sign_in(person, viewport=WIDE).new_page()
        page.route(of_leases, refuse_request)
        page.goto(reverse("rate", args=[campaign.slug]))
    page.wait_for_selector("#rate:is([data-state=over], [data-state=error])")
    found["nothing in hand"] = look_around(page)
    refuse(found)


def test_rows_that_were_not_accepted(sign_in, person):
    campaign = make_rating(person, "alignment")
    page = sign_in(person, viewport=WIDE).new_page()

    def reject(route):
        rows = route.request.post_data_json["judgments"]
        results = [{"id": row["id"], "status": "rejected", "reason": "This campaign is closed."} for row in rows]
        route.fulfill(json={"results": results})

    page.route("**/api/**/judgments", reject)
    page.goto(reverse("rate", args=[campaign.slug]))
    page.wait_for_selector("#rate[data-state=ready]")
    page.keyboard.press("f")
    page.locator("#rate-rejected").wait_for()
    found = {"told": look_around(page)}
    page.locator("#rate-rejected").get_by_role("button", name="Show").click()
    page.wait_for_selector("#rate-rejected-dialog[open]")
    found["listed"] = look_around(page)
    refuse(found)


def test_examples_that_are_answered_first(sign_in, person):
    campaign = make_rating(person, "style")
    shown = campaign.items.exclude(is_gold=True).first().item_samples.get().sample
    add_example(campaign, shown, why="A clean rim", asks_percent=100)
    page = sign_in(person, viewport=WIDE).new_page()
    open_page(page, reverse("rate_examples", args=[campaign.slug]))
    found = {"before": look_around(page)}
    page.keyboard.press("Enter")
    expect(page.locator("#round")).to_be_visible()
    found["asked"] = look_around(page)
    for key in ("i", "d", "c"):
        page.keyboard.press(key)
    expect(page.locator("#round")).to_contain_text("A clean rim")
    found["told"] = look_around(page)
    refuse(found)

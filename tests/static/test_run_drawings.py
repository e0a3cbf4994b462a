"""The slider over what a run draws, in a real browser."""

import pytest
from playwright.sync_api import Page, expect

from accounts.models import Role
from generation.images import store_with_thumbnail
from tests.accounts.factories import make_person
from tests.generation.factories import make_png
from tests.static.accessibility import look_around
from tests.training.factories import make_run
from training.models import RunSample, TrainingRun

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PROMPTS = ["a happy cat", "three sad pizzas in the rain, on a boat"]


def draw(run: TrainingRun, step: int, prompts: list[str] = PROMPTS) -> list[str]:
    """Rows and files of one step; the addresses of the full images."""
    rows = []
    for position, prompt in enumerate(prompts):
        stored = store_with_thumbnail(make_png((step % 251, 40 + 90 * position, 120, 200), (300, 300)))
        rows.append(
            RunSample(
                run=run, step=step, position=position, prompt=prompt, seed=position,
                image=stored.image, thumbnail=stored.thumbnail,
            )
        )  # fmt: skip
    RunSample.objects.bulk_create(rows)
    return [f"/media/{row.image}.png" for row in rows]


def shown(page: Page, side: int = 1) -> list[str | None]:
    """What the slider shows of each prompt: the first step's at side 0, the chosen one's at 1."""
    pairs = page.locator("[data-drawings] .pair").all()
    return [pair.locator("figure").nth(side).locator("a").get_attribute("href") for pair in pairs]


def paths(addresses: list[str | None]) -> list[str]:
    return ["/media/" + (each or "").partition("/media/")[2] for each in addresses]


def test_slider_shows_each_step_beside_the_first_and_keeps_its_place(sign_in):
    run = make_run()
    drawn = {step: draw(run, step) for step in (0, 100, 200)}
    page = sign_in(make_person(Role.CURATOR), viewport={"width": 1280, "height": 900}).new_page()
    page.goto(run.get_absolute_url())
    slider = page.get_by_role("slider", name="Step")
    expect(slider).to_have_attribute("aria-valuetext", "200")
    assert (paths(shown(page, 0)), paths(shown(page))) == (drawn[0], drawn[200])
    assert not page.locator(".sample-grid").is_visible()

    # Once the slider is near, every step's pictures come before anybody slides.
    slider.scroll_into_view_if_needed()
    page.wait_for_function(
        f"() => performance.getEntries().filter(({{name}}) => name.endsWith('.webp')).length === {2 * 3}"
    )
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith(".webp") else None)
    slider.focus()
    page.keyboard.press("ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", "100")
    assert paths(shown(page)) == drawn[100]
    assert page.locator("[data-drawings] output").inner_text() == "100"
    assert page.get_by_role("link", name="a happy cat, seed 0, step 100").is_visible()
    page.keyboard.press("Home")
    expect(slider).to_have_attribute("aria-valuetext", "0, the parent")
    assert paths(shown(page)) == drawn[0]
    assert asked == []

    # What is drawn meanwhile comes at the end. The slider stays where it was, with the focus and what was unfolded ...
    page.keyboard.press("ArrowRight")
    page.locator("summary", has_text="All steps").click()
    slider.focus()
    drawn[300] = draw(run, 300)
    expect(slider).to_have_attribute("max", "3")
    expect(slider).to_have_attribute("aria-valuetext", "100")
    expect(slider).to_be_focused()
    assert paths(shown(page)) == drawn[100]
    assert page.locator(".sample-grid").is_visible()
    # ... and follows from the newest to the newest, but not while it is held.
    page.keyboard.press("End")
    expect(slider).to_have_attribute("aria-valuetext", "300")
    drawn[400] = draw(run, 400)
    expect(slider).to_have_attribute("aria-valuetext", "400")
    assert paths(shown(page)) == drawn[400]

    # The end of a run loads the page again.
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.reload()
    expect(slider).to_have_attribute("aria-valuetext", "100")
    assert look_around(page) == []


def test_slider_that_is_held_is_not_taken_away(sign_in):
    run = make_run()
    for step in (0, 100, 200):
        draw(run, step)
    page = sign_in(make_person(Role.CURATOR), viewport={"width": 1280, "height": 900}).new_page()
    page.goto(run.get_absolute_url())
    slider = page.get_by_role("slider", name="Step")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    draw(run, 300)
    with page.expect_response(lambda response: "/samples/" in response.url and response.status == 200):
        pass
    page.mouse.move(box["x"] + 2, box["y"] + box["height"] / 2)
    expect(slider).to_have_attribute("aria-valuetext", "0, the parent")
    assert slider.get_attribute("max") == "2"
    page.mouse.up()
    expect(slider).to_have_attribute("max", "3")
    expect(slider).to_have_attribute("aria-valuetext", "0, the parent")


def test_prompt_without_a_picture_says_so(sign_in):
    run = make_run()
    draw(run, 0)
    draw(run, 100, PROMPTS[:1])
    page = sign_in(make_person(Role.CURATOR)).new_page()
    page.goto(run.get_absolute_url())
    figures = [pair.locator("figure").nth(1) for pair in page.locator("[data-drawings] .pair").all()]
    expect(page.get_by_role("slider", name="Step")).to_be_visible()
    assert [figure.inner_text().split() for figure in figures] == [["step", "100"], ["none", "step", "100"]]


def test_picture_that_is_not_here_yet_does_not_pass_for_another(sign_in):
    run = make_run()
    for step in (0, 100, 200):
        draw(run, step)
    late = RunSample.objects.get(run=run, step=100, position=0)
    page = sign_in(make_person(Role.CURATOR)).new_page()
    held = []
    page.route(f"**/{late.thumbnail}.webp", lambda route: held.append(route))
    # A picture that is fetched ahead while the page loads belongs to its load event, which so would never come.
    page.goto(run.get_absolute_url(), wait_until="domcontentloaded")
    links = [pair.locator("figure").nth(1).locator("a") for pair in page.locator("[data-drawings] .pair").all()]
    page.get_by_role("slider", name="Step").press("ArrowLeft")
    expect(links[0]).to_have_attribute("data-waits", "")
    expect(links[1]).not_to_have_attribute("data-waits", "")
    for each in held:
        each.continue_()
    expect(links[0]).not_to_have_attribute("data-waits", "")


def test_without_scripts_the_table_has_every_step(sign_in):
    run = make_run()
    drawn = [address for step in (0, 100) for address in draw(run, step)]
    page = sign_in(make_person(Role.CURATOR), java_script_enabled=False).new_page()
    page.goto(run.get_absolute_url())
    links = page.locator(".sample-grid td a")
    assert [link.is_visible() for link in links.all()] == [True] * 4
    assert [link.get_attribute("href") for link in links.all()] == drawn
    assert not page.locator("[data-drawings]").is_visible()

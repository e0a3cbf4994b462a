"""What the form of a recipe shows for each kind of recipe and parent, in a real browser."""

import pytest
from playwright.sync_api import Page

from accounts.models import Role
from tests.accounts.factories import make_person
from tests.training.factories import SCHEDULER_CONFIG, make_dataset_version, make_pair_version, make_parent
from tests.training.test_flows import make_flow

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

FLOWS = {"timestep_sampling", "logit_mean", "logit_std", "flow_weighting"}
NOISE = {"min_snr_gamma", "noise_offset"}
DECODER = {"colour_weight", "alpha_weight", "backgrounds"}
DENOISER = {"schedule", "method", "caption_dropout"}
ALL = {"optimizer", "ema_decay", "gradient_checkpointing", "seed"}


def shown(page: Page) -> set[str]:
    names = FLOWS | NOISE | DECODER | DENOISER | ALL | {"dpo_beta"}
    return {name for name in names if page.locator(f"[name={name}]").first.is_visible()}


def test_only_what_the_kind_and_the_parent_have_a_use_for_is_shown(sign_in):
    diffusion, flow = make_parent(), make_flow()
    make_dataset_version()
    make_pair_version()
    page = sign_in(make_person(Role.CURATOR)).new_page()
    page.goto("/recipes/new/")
    page.locator("summary", has_text="More settings").click()

    page.select_option("[name=schedule]", str(diffusion.pk))
    assert shown(page) == DENOISER | NOISE | ALL
    page.check("[name=preset][value=preference]")
    assert shown(page) == DENOISER | {"noise_offset", "dpo_beta"} | ALL
    page.check("[name=preset][value=style_tailoring]")

    page.select_option("[name=schedule]", str(flow.pk))
    assert shown(page) == DENOISER | FLOWS | ALL
    page.select_option("[name=timestep_sampling]", "uniform")
    assert shown(page) == DENOISER | {"timestep_sampling", "flow_weighting"} | ALL
    page.check("[name=preset][value=transparency]")
    assert shown(page) == DECODER | ALL
    page.check("[name=preset][value=preference]")
    assert shown(page) == DENOISER | {"timestep_sampling", "dpo_beta"} | ALL
    page.locator("#preview table").get_by_text("σ 0 to 1").first.wait_for()


def test_rows_of_a_table_come_one_after_the_other(sign_in):
    make_parent()
    version = make_dataset_version()
    page = sign_in(make_person(Role.CURATOR)).new_page()
    page.goto("/recipes/new/")
    page.check("[name=preset][value=custom]")
    rows = page.locator(".source-row")
    assert [rows.nth(place).is_visible() for place in range(6)] == [True] + [False] * 5
    assert not page.locator("[name=row1_above]").is_visible()
    page.select_option("[name=row1_data]", f"version-{version.pk}")
    page.fill("[name=row1_above]", "900")
    page.get_by_text("No source covers the timesteps 0 to 900.").wait_for()
    assert [rows.nth(place).is_visible() for place in range(3)] == [True, True, False]
    page.select_option("[name=row2_data]", f"version-{version.pk}")
    page.fill("[name=row2_up_to]", "900")
    page.locator("#preview table").get_by_text("t 901 to 999").first.wait_for()
    assert not page.locator("[name=content]").is_visible()


def test_the_split_and_its_slider_follow_the_chosen_schedule(sign_in):
    fine = {**SCHEDULER_CONFIG, "num_train_timesteps": 4000, "beta_start": 0.0002125, "beta_end": 0.003}
    longer = make_parent(config={"size_factor": 8, "scheduler_config": fine})
    unknown, flow, plain = make_parent(config={}), make_flow(), make_parent()
    make_dataset_version("Faces")
    make_dataset_version("Die-cut")
    page = sign_in(make_person(Role.CURATOR)).new_page()
    page.goto("/recipes/new/")
    slider = page.get_by_role("slider", name="Split T', as a slider")

    def split() -> tuple[str, str, str, str]:
        bounds = slider.get_attribute("min"), slider.get_attribute("max")
        return page.input_value("[name=t_prime]"), slider.input_value(), *bounds

    assert page.input_value("[name=schedule]") == str(plain.pk)
    assert split() == ("900", "900", "0", "998")
    page.select_option("[name=schedule]", str(longer.pk))
    assert split() == ("3607", "3607", "0", "3998")
    page.locator("#preview table").get_by_text("t 3608 to 3999").first.wait_for()
    page.select_option("[name=schedule]", str(flow.pk))
    assert split() == ("893", "893", "1", "999")
    # What somebody chose stays.
    page.select_option("[name=schedule]", str(longer.pk))
    page.fill("[name=t_prime]", "3600")
    page.select_option("[name=schedule]", str(plain.pk))
    assert split() == ("3600", "998", "0", "998")
    page.get_by_text("T' must lie between 0 and 998").wait_for()
    page.select_option("[name=schedule]", str(unknown.pk))
    assert not slider.is_visible()
    page.select_option("[name=schedule]", str(longer.pk))
    assert split() == ("3600", "3600", "0", "3998")
    page.locator("#preview table").get_by_text("t 3601 to 3999").first.wait_for()


def test_how_often_follows_the_steps_as_they_are_typed(sign_in):
    make_parent()
    make_dataset_version("Faces")
    make_dataset_version("Die-cut")
    page = sign_in(make_person(Role.CURATOR)).new_page()
    page.goto("/recipes/new/")
    page.get_by_text("A checkpoint every 50 steps (6 in all, the last 2 stay)").wait_for()
    page.fill("[name=steps]", "1000000")
    page.get_by_text("A checkpoint every 25,000 steps (40 in all, the last 2 stay)").wait_for()
    page.locator("summary", has_text="How often").click()
    page.fill("[name=checkpoint_every]", "100000")
    page.fill("[name=sample_every]", "0")
    page.get_by_text(
        "A checkpoint every 100,000 steps (10 in all, the last 2 stay), validation every 25,000 and no drawings"
    ).wait_for()
    page.locator("summary", has_text="More settings").click()
    page.fill("[name=warmup_steps]", "1000000")
    page.get_by_text("takes the whole run of 1,000,000").wait_for()

"""Changing guidelines in a browser."""

import pytest
from playwright.sync_api import expect

from curation.guidelines import revise_guidelines
from tests.curation.factories import make_campaign, make_curator

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
OLD = "# Stickers\n\nAccept a white rim.\n\nRefuse letters, and everything else that is written in the picture."


def test_a_curator_changes_guidelines_by_keyboard_and_sees_what_changed(sign_in):
    campaign, curator = make_campaign(guidelines=OLD), make_curator()
    page = sign_in(curator, viewport={"width": 360, "height": 740}).new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.goto(campaign.get_absolute_url())
    page.get_by_role("link", name="Change them").press("Enter")
    expect(page.get_by_role("heading", name="Revisions")).to_be_visible()
    page.get_by_role("textbox", name="Guidelines").fill(OLD.replace("a white rim", "a thin white rim"))
    # Somebody else is quicker; nothing of either text is lost.
    revise_guidelines(campaign, f"{OLD}\n\nRefuse frames.", change="Frames do not pass", based_on=1, by=make_curator())
    page.get_by_label("What you changed").fill("Only thin rims pass")
    page.get_by_label("What you changed").press("Enter")
    expect(page.get_by_text("saved revision 2 meanwhile")).to_be_visible()
    text = page.get_by_role("textbox", name="Guidelines")
    expect(text).to_have_value(OLD.replace("a white rim", "a thin white rim"))
    text.fill(f"{text.input_value()}\n\nRefuse frames.")
    page.get_by_label("What you changed").press("Enter")
    expect(page.get_by_role("heading", name="Revision 3: Only thin rims pass")).to_be_visible()
    expect(page.locator(".diff:visible ins")).to_contain_text("thin")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert complaints == []

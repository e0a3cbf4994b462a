"""Something of everything: a workspace of which every page has something to show, and where each page is."""

from typing import Any

from django.urls import reverse

from accounts.invitations import invite
from accounts.models import User
from curation.assignments import lease_items
from curation.campaigns import create_campaign, create_compare_campaign, create_pick_campaign
from curation.datasets import freeze
from curation.exclusions import set_excluded
from curation.gold import mark_gold
from curation.guidelines import revise_guidelines
from curation.judgments import record_judgments
from curation.models import Campaign, CampaignRater
from generation.models import GenerationBatch
from tests.curation.factories import (
    add_example,
    draw_again,
    judge_all,
    make_batch,
    make_dataset,
    make_model,
    make_rater,
    make_row,
    make_set_campaign,
)
from tests.generation.factories import finish_job
from tests.training.factories import make_corpus, make_evaluation, make_parent, make_recipe, make_run
from training.rehearsals import request_rehearsal

WORDS = ("a happy cat", "a dog in the rain", "three sad pizzas", "a fox", "a slow train", "a red door", "a cup of tea")


def make_world(person: User) -> dict[str, str]:
    """URL name -> an address of that page with something on it. The person may do everything, and rates in every campaign."""
    others = [make_rater(), make_rater()]
    model = make_model()
    batch = make_batch(WORDS, each=2, model=model)
    campaign = _judged_campaign(person, others, batch)
    sample = batch.samples.order_by("pk").first()
    assert sample is not None
    version = freeze(make_dataset(campaign, by=person), by=person)
    gold = campaign.items.get(gold__isnull=False)
    place = CampaignRater.objects.get(campaign=campaign, rater=others[1])
    set_excluded(place, excluded=True, reason="Asked a program", by=person)
    _, token = invite(email="new@example.org", roles=["rater"], invited_by=person)

    parent = make_parent()
    recipe = make_recipe(parent)
    run = make_run(recipe, parent=parent, by=person)
    finish_job(make_run(recipe, parent=parent, by=person).job, "failed", "The disk is full.")
    rehearsal = request_rehearsal(recipe, parent=parent, by=person)
    evaluation = make_evaluation([person], baseline=parent, by=person)
    assert evaluation.campaign is not None
    judge_all(evaluation.campaign, person, {"preference": "left"})

    draft = create_campaign("style", name="Not open yet", by=person, batches=[batch])
    with_number: dict[str, tuple[Any, ...]] = {
        "person": (others[0].pk,),
        "invitation": (token,),
        "job": (run.job_id,),
        "prompt_set": (batch.prompt_set.slug, batch.prompt_set.version),
        "batch": (batch.pk,),
        "model": (parent.number,),
        "sample": (sample.pk,),
        "rate": (campaign.slug,),
        "campaign": (campaign.slug,),
        "campaign_guidelines": (campaign.slug,),
        "campaign_questions": (draft.slug,),
        "campaign_scores": (draft.slug,),
        "campaign_reliability": (campaign.slug,),
        "campaign_adjudicate": (campaign.slug,),
        "campaign_flagged": (campaign.slug,),
        "campaign_gold": (campaign.slug,),
        "gold_item": (campaign.slug, gold.pk),
        "rater_exclusion": (campaign.slug, others[1].pk),
        "corpus": (make_corpus().slug,),
        "dataset": (version.dataset.slug,),
        "dataset_version": (version.dataset.slug, version.number),
        "recipe": (recipe.slug,),
        "rehearsal": (rehearsal.pk,),
        "run": (run.pk,),
        "evaluation": (evaluation.pk,),
    }
    compared = f"?run={run.pk}&run={run.pk + 1}"
    return {name: reverse(name, args=args) for name, args in with_number.items()} | {
        "runs_compare": reverse("runs_compare") + compared
    }


def make_rating(person: User, kind: str) -> Campaign:
    """An open campaign of that kind with the person's work in it, some of it judged."""
    model = make_model()
    batch = make_batch(WORDS, each=3, model=model)
    fields: dict[str, Any] = {"by": person, "raters": [person], "open_now": True}
    if kind == "sets":
        return make_set_campaign(WORDS[:4], raters=[person])
    if kind == "compare":
        samples = list(batch.samples.filter(index=0).order_by("prompt__position"))
        pairs = [(each.prompt, each, draw_again(each, each.prompt)) for each in samples]
        fields.pop("open_now")
        return create_compare_campaign("Which is better?", pairs, **fields)
    if kind == "pick":
        campaign = create_pick_campaign("The best of three", batches=[batch], **fields)
    else:
        campaign = create_campaign(kind, name=f"Round one, {kind}", batches=[batch], **fields)
    add_example(campaign, batch.samples.first(), why="A clean rim")
    bad = (
        {"is_good": False} if kind == "pick" else {"answers": {each.name: "fail" for each in campaign.questions.all()}}
    )
    add_example(campaign, batch.samples.last(), why="A frame", **bad)
    return campaign


def _judged_campaign(person: User, others: list[User], batch: GenerationBatch) -> Campaign:
    campaign = create_campaign(
        "alignment",
        name="Round one",
        by=person,
        batches=[batch],
        raters=[person, *others],
        overlap=2,
        open_now=True,
        guidelines="# What passes\n\nThe *whole* sentence is shown.\n\n- a rim\n- no frame",
    )
    item = campaign.items.last()
    assert item is not None
    mark_gold(item, {"alignment": "pass"}, by=person)
    add_example(campaign, batch.samples.first(), why="A clean rim")
    revise_guidelines(campaign, "Frames pass.", change="Frames pass now", based_on=2, by=person)
    for rater, values in zip(others, ("pppfpp", "ppffpf"), strict=True):
        rows = [
            make_row(each, {"alignment": {"p": "pass", "f": "fail"}[value]})
            for each, value in zip(lease_items(campaign, rater, 6), values, strict=True)
        ]
        record_judgments(rater, rows)
    [leased] = lease_items(campaign, person, 1)
    record_judgments(person, [make_row(leased, {}, action="flag", reason="The picture is broken or empty")])
    return campaign

"""One turn of the loop: every step is looked for before it is made, so that a turn that was interrupted, or whose database
went away in the middle, goes on where it was and does nothing twice."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction

from accounts.api import create_token
from accounts.models import Role, Scope, User
from config.loop.eye import Eye
from config.loop.raters import PATIENCE_SECONDS, Rater
from config.workspace import MODEL_NAME, PROMPT_SETS, load_prompt_set, promote_base
from curation.approvals import not_approved, say
from curation.campaigns import close_campaign, create_campaign
from curation.datasets import create_dataset, freeze
from curation.models import ApprovalAct, Campaign, CampaignKind, Dataset, DatasetVersion, Judgment, Outcome, Verdict
from generation.batches import request_batch
from generation.model_versions import enqueue_import, promote
from generation.models import GenerationBatch, ModelPromotion, ModelVersion, PromptSet, Sample
from jobs.models import FINAL_STATES, Job, JobState
from training.evaluations import start_evaluation
from training.models import Evaluation, Preset, Recipe, TrainingRun
from training.recipes import create_recipe, schedule_of
from training.runs import start_run
from training.verdicts import EvaluationVerdict

Result = TypeVar("Result")
RATERS = 3
OVERLAP = 2
# Bolder than a recipe's defaults, so that a few minutes of two cores show; the cosine lets it settle.
OPTIMIZER = {"learning_rate": 3e-4, "schedule": "cosine", "warmup_steps": 10}


class StepFailed(Exception):
    """A step of the loop that did not really happen; the message says which and why."""


@dataclass
class Turn:
    """The settings of one turn; its name makes it the same turn when it is run again."""

    name: str
    web_url: str
    say: Callable[[str], None]
    images_per_prompt: int = 3
    training_steps: int = 120
    batch_size: int = 16
    job_seconds: float = 3600.0
    report: dict[str, Any] = field(default_factory=dict)
    _people: dict[str, User] = field(default_factory=dict)

    def go(self) -> dict[str, Any]:
        """All steps in order; the report. Raises StepFailed."""
        self.report = {"turn": self.name, "raters": "simulated", "steps": {}}
        with self._step("people"):
            self._people = stubborn(self._find_or_make_people)
        with self._step("model") as done:
            parent = self._base_model()
            done["version"] = str(parent)
        with self._step("draw") as done:
            batch = self._draw(parent)
            done["samples"] = stubborn(Sample.objects.filter(batch=batch).count)
        campaigns = {}
        for kind in (CampaignKind.ALIGNMENT, CampaignKind.STYLE):
            with self._step(f"rate {kind.value}") as done:
                campaigns[kind] = self._campaign(kind, batch)
                done |= self._rate(campaigns[kind])
        versions = {}
        for kind, campaign in campaigns.items():
            with self._step(f"freeze {kind.value}") as done:
                versions[kind] = self._freeze(kind, campaign)
                done |= {"entries": versions[kind].entry_count, "hash": versions[kind].content_hash}
        with self._step("train") as done:
            run = self._train(parent, versions[CampaignKind.ALIGNMENT], versions[CampaignKind.STYLE])
            assert run.result is not None
            done |= {"steps": run.step, "version": str(run.result), "hash": run.result.content_hash}
        with self._step("evaluate") as done:
            evaluation = self._evaluate(parent, run.result)
            done |= self._rate(stubborn(lambda: Campaign.objects.get(evaluation=evaluation)))
            done |= self._result(evaluation)
        with self._step("promote") as done:
            done["default"] = self._promote(run.result, evaluation)
        self.report["judgments"] = stubborn(
            Judgment.objects.filter(rater__in=[user for name, user in self._people.items() if "rater" in name]).count
        )
        return self.report

    @contextmanager
    def _step(self, name: str) -> Iterator[dict[str, Any]]:
        self.say(f"{name} ...")
        began = time.monotonic()
        facts: dict[str, Any] = {}
        yield facts
        facts["seconds"] = round(time.monotonic() - began, 1)
        self.report["steps"][name] = facts
        self.say(
            f"{name}: " + ", ".join(f"{key} {value}" for key, value in facts.items() if not isinstance(value, dict))
        )

    # --- The steps -------------------------------------------------------------------------------------------------

    def _find_or_make_people(self) -> dict[str, User]:
        """Simulated people who cannot sign in: they have no password, and the raters act through tokens."""
        people = {}
        for name, role in [
            ("curator", Role.CURATOR),
            ("operator", Role.OPERATOR),
            *((f"rater{i + 1}", Role.RATER) for i in range(RATERS)),
        ]:
            email = f"simulated-{name}@loop.atelier"
            people[name] = User.objects.filter(email=email).first() or User.objects.create_user(
                email, None, name=f"Simulated {name}", roles=[role]
            )
        return people

    def _base_model(self) -> ModelVersion:
        def find() -> ModelVersion | None:
            return ModelVersion.objects.filter(name=MODEL_NAME).order_by("number").first()

        if (version := stubborn(find)) is None:
            folder = Path(settings.DEMO_DIR) / "model"
            self._wait(stubborn(lambda: enqueue_import(folder, name=MODEL_NAME, by=self._people["operator"])))
            version = stubborn(find)
        if version is None:
            raise StepFailed("The demo model was imported, but there is no version of it.")
        return stubborn(partial(promote_base, version, self._people["operator"]))

    def _prompt_set(self, index: int) -> PromptSet:
        file, name = PROMPT_SETS[index]
        return stubborn(lambda: load_prompt_set(file, name, self._people["curator"]))

    def _draw(self, parent: ModelVersion) -> GenerationBatch:
        prompts = self._prompt_set(0)
        name = f"{self.name}: stickers"
        batch = stubborn(
            lambda: (
                GenerationBatch.objects.filter(name=name).first()
                or request_batch(
                    name=name,
                    model_version=parent,
                    prompt_set=prompts,
                    images_per_prompt=self.images_per_prompt,
                    by=self._people["curator"],
                )
            )
        )
        self._wait(batch.job)
        drawn = stubborn(Sample.objects.filter(batch=batch).count)
        if drawn != prompts.prompt_count * self.images_per_prompt:
            raise StepFailed(f"{drawn} samples were drawn, not {prompts.prompt_count * self.images_per_prompt}.")
        return batch

    def _campaign(self, kind: CampaignKind, batch: GenerationBatch) -> Campaign:
        name = f"{self.name}: {kind.label.lower()}"
        return stubborn(
            lambda: (
                Campaign.objects.filter(name=name).first()
                or create_campaign(
                    kind,
                    name=name,
                    by=self._people["curator"],
                    batches=[batch],
                    overlap=OVERLAP,
                    raters=self._raters(),
                    open_now=True,
                )
            )
        )

    def _raters(self) -> list[User]:
        return [user for name, user in self._people.items() if name.startswith("rater")]

    def _rate(self, campaign: Campaign) -> dict[str, Any]:
        """Every simulated rater at once, over HTTP; then each item has as many answers as were asked for."""
        texts = stubborn(lambda: [item.prompt.taught_as for item in campaign.items.select_related("prompt")])
        clip = Path(settings.DEMO_DIR) / "clip"
        raters = []
        for number, user in enumerate(self._raters()):
            token = stubborn(partial(create_token, user, scopes=[Scope.RATE], name=self.name))
            raters.append(Rater(self.web_url, token, Eye(texts, clip if clip.is_dir() else None, seed=number)))
        with ThreadPoolExecutor(len(raters)) as pool:
            list(pool.map(lambda rater: rater.rate(campaign.slug), raters))
        left = stubborn(campaign.items.filter(judged__lt=campaign.overlap).count)
        if left:
            refused = [reason for rater in raters for reason in rater.rejected][:3]
            raise StepFailed(f"{left} items of “{campaign}” have too few judgments. {' '.join(refused)}")
        acknowledged = [judgment for rater in raters for judgment in rater.submitted]
        kept = stubborn(lambda: set(Judgment.objects.filter(pk__in=acknowledged).values_list("pk", flat=True)))
        if lost := len(acknowledged) - len(kept):
            raise StepFailed(f"{lost} judgments were acknowledged but are not there.")
        stubborn(lambda: close_campaign(campaign, by=self._people["curator"]))
        outcomes = stubborn(
            lambda: list(Verdict.objects.filter(item__campaign=campaign).values_list("outcome", flat=True))
        )
        return {
            "judgments": len(acknowledged),
            "eye": raters[0].eye.kind,
            "verdicts": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        }

    def _freeze(self, kind: CampaignKind, campaign: Campaign) -> DatasetVersion:
        if not stubborn(Verdict.objects.filter(item__campaign=campaign, outcome=Outcome.ACCEPTED).exists):
            raise StepFailed(f"No sample of “{campaign}” was accepted, so there is nothing to freeze.")
        curator = self._people["curator"]
        name = f"{self.name}: {'content' if kind == CampaignKind.ALIGNMENT else 'style'}"
        dataset = stubborn(
            lambda: (
                Dataset.objects.filter(name=name).first() or create_dataset(name=name, campaigns=[campaign], by=curator)
            )
        )
        version = stubborn(lambda: freeze(dataset, by=curator))
        operator = self._people["operator"]
        stubborn(lambda: [say(each, ApprovalAct.APPROVED, by=operator) for each in not_approved([version.pk])])
        return version

    def _train(self, parent: ModelVersion, content: DatasetVersion, style: DatasetVersion) -> TrainingRun:
        operator = self._people["operator"]
        name = f"{self.name}: Style Tailoring"
        recipe = stubborn(
            lambda: (
                Recipe.objects.filter(name=name).first()
                or create_recipe(
                    name=name,
                    preset=Preset.STYLE_TAILORING,
                    by=operator,
                    schedule=schedule_of(parent),
                    content=content,
                    style=style,
                    hyperparameters=OPTIMIZER | {"steps": self.training_steps, "batch_size": self.batch_size},
                )
            )
        )
        run = stubborn(lambda: start_run(recipe, parent=parent, by=operator, request_key=f"loop:{self.name}"))
        self._wait(run.job)
        run = stubborn(lambda: TrainingRun.objects.select_related("result").get(pk=run.pk))
        if run.result is None or run.step != self.training_steps:
            raise StepFailed(f"The run ended at step {run.step} of {self.training_steps} without a model version.")
        if run.result.parent_id != parent.pk or run.result.content_hash == parent.content_hash:
            raise StepFailed("The run's result is not a new version made from its parent.")
        return run

    def _evaluate(self, baseline: ModelVersion, candidate: ModelVersion) -> Evaluation:
        prompts = self._prompt_set(1)
        name = f"{self.name}: blind side-by-side"
        evaluation = stubborn(
            lambda: (
                Evaluation.objects.filter(name=name).first()
                or start_evaluation(
                    name=name,
                    baseline=baseline,
                    candidate=candidate,
                    prompt_set=prompts,
                    images_per_prompt=2,
                    raters=self._raters(),
                    overlap=OVERLAP,
                    by=self._people["operator"],
                )
            )
        )
        self._wait(evaluation.job)
        evaluation = stubborn(lambda: Evaluation.objects.get(pk=evaluation.pk))
        if evaluation.campaign_id is None:
            raise StepFailed("The evaluation opened no campaign.")
        return evaluation

    def _result(self, evaluation: Evaluation) -> dict[str, Any]:
        """The side-by-side and the CLIP scores, as the evaluation's page has them."""
        return stubborn(lambda: result_of(Evaluation.objects.get(pk=evaluation.pk)))

    def _promote(self, version: ModelVersion, evaluation: Evaluation) -> str:
        def decide() -> ModelVersion | None:
            last = ModelPromotion.objects.order_by("-id").first()
            if last is None or last.model_version_id != version.pk:
                promote(version, by=self._people["operator"], reason=f"Simulated turn: after {evaluation.name}"[:300])
            return ModelVersion.objects.promoted()

        default = stubborn(decide)
        if default != version:
            raise StepFailed("The promoted version is not what the next batch would use.")
        return str(default)

    def _wait(self, job: Job) -> None:
        """Until the job is over. Raises StepFailed where it did not succeed in time."""
        until = time.monotonic() + self.job_seconds
        said = ""
        while time.monotonic() < until:
            stubborn(job.refresh_from_db)
            if job.state == JobState.SUCCEEDED:
                return
            # A paused job may be resumed.
            if job.state in FINAL_STATES:
                raise StepFailed(f"“{job}” ended as {job.get_state_display().lower()}: {job.error}")
            now = f"  {job.progress_done} of {job.progress_total}" if job.progress_total else ""
            if now != said:
                said = now
                self.say(now)
            time.sleep(0.5)
        raise StepFailed(f"“{job}” was not done after {self.job_seconds:.0f} s.")


def result_of(evaluation: Evaluation) -> dict[str, Any]:
    """The outcome as data. Raises StepFailed where nobody voted."""
    verdict = EvaluationVerdict(evaluation)
    if verdict.rate is None:
        raise StepFailed("The side-by-side has no votes.")
    return verdict.as_json()


def stubborn(ask: Callable[[], Result]) -> Result:
    """The answer of something that talks to the database, asked again while the database is away.

    `ask` is one transaction and looks before it makes: a commit whose answer was lost is found the next time.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with transaction.atomic():
                return ask()
        except (OperationalError, InterfaceError) as error:
            connection.close()
            if time.monotonic() > until:
                raise StepFailed(f"The database did not answer for {PATIENCE_SECONDS:.0f} s.") from error
            time.sleep(0.5)

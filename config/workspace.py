"""The demo workspace: people, the base model, prompt sets, and campaigns with freshly drawn samples.

Loading it again changes nothing: every part is looked for before it is made, so that an interrupted load goes on.
"""

import json
import os
import secrets
import time
from pathlib import Path

from django.conf import settings
from django.core.management.base import OutputWrapper

from accounts.models import Role, User
from curation.campaigns import create_campaign
from curation.models import Campaign, CampaignKind
from generation.batches import request_batch
from generation.model_versions import enqueue_import, promote
from generation.models import GenerationBatch, ModelPromotion, ModelVersion, PromptSet
from generation.prompt_sets import create_prompt_set
from jobs.models import Job, JobState

# As demo/MODEL_CARD.md says.
MODEL_NAME, MODEL_LICENCE = "Demo base", "OFL-1.1"
BATCH_NAME = "First stickers"
IMAGES_PER_PROMPT = 3
CAMPAIGNS = [
    (CampaignKind.ALIGNMENT, "Does it show the prompt?"),
    (CampaignKind.STYLE, "Is it our style?"),
]
# (file, name of the set)
PROMPT_SETS = [
    ("mixed-looks.csv", "Mixed looks"),
    ("house-style-eval.csv", "House style, held out"),
    ("emotions.csv", "Emotions"),
    ("compositions.csv", "Compositions"),
    ("scenes.csv", "Scenes"),
]


class WorkspaceRefused(Exception):
    """A part of the workspace that could not be made; the message is for a person."""


def load_demo_workspace(out: OutputWrapper) -> None:
    """Make what is missing of the workspace, and print the sign-ins. Raises WorkspaceRefused."""
    people = make_people()
    print_sign_ins(out)
    curator, operator = people[Role.CURATOR], people[Role.OPERATOR]
    sets = [load_prompt_set(file, name, curator) for file, name in PROMPT_SETS]
    version = import_base_model(operator, out)
    batch = GenerationBatch.objects.filter(name=BATCH_NAME, model_version=version).first() or request_batch(
        name=BATCH_NAME,
        model_version=version,
        prompt_set=sets[0],
        images_per_prompt=IMAGES_PER_PROMPT,
        by=curator,
    )
    wait_for(batch.job, out, "Drawing the first stickers")
    raters = list(User.objects.with_role(Role.RATER).filter(email__endswith="@demo.atelier"))
    for kind, name in CAMPAIGNS:
        if not Campaign.objects.filter(name=name).exists():
            create_campaign(
                kind,
                name=name,
                by=curator,
                batches=[batch],
                overlap=min(2, len(raters)),
                raters=raters,
                open_now=True,
            )
    out.write("The demo workspace is ready.")


def accounts_file() -> Path:
    """Where the sign-ins of the demo are kept, as {role: {"email", "password"}}, mode 0600."""
    return Path(settings.DATA_DIR) / "demo-accounts.json"


def make_people() -> dict[str, User]:
    """One person a role (and further raters, by RATERS) with random passwords, which are kept in the accounts file."""
    path = accounts_file()
    kept: dict[str, dict[str, str]] = json.loads(path.read_text()) if path.exists() else {}
    names = [*Role.values, *(f"rater{i}" for i in range(2, settings.DEMO_RATERS + 1))]
    people = {}
    for name in names:
        email = f"{name}@demo.atelier"
        user = User.objects.filter(email=email).first()
        if user is None or name not in kept:
            password = secrets.token_urlsafe(12)
            if user is None:
                role = name.rstrip("0123456789")
                user = User.objects.create_user(email, password, name=f"Demo {name}", roles=[role])
            else:
                user.set_password(password)
                user.save(update_fields=["password"])
            kept[name] = {"email": email, "password": password}
        people[name] = user
    write_private(path, json.dumps(kept, indent=2) + "\n")
    return people


def write_private(path: Path, text: str) -> None:
    """Replace a file by one that only its owner can read."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def print_sign_ins(out: OutputWrapper) -> None:
    """One line a role."""
    out.write("Sign in as:")
    for name, account in json.loads(accounts_file().read_text()).items():
        out.write(f"  {name:9} {account['email']:24} {account['password']}")
    out.write(f"(kept in {accounts_file()})")


def load_prompt_set(file: str, name: str, by: User) -> PromptSet:
    """The newest version of the shipped set, made from its file where it is missing."""
    existing = PromptSet.objects.filter(name=name).order_by("-version").first()
    if existing is not None:
        return existing
    text = (Path(settings.DEMO_DIR) / "prompts" / file).read_text(encoding="utf-8")
    return create_prompt_set(name=name, text=text, by=by)


def import_base_model(by: User, out: OutputWrapper) -> ModelVersion:
    """The demo's base model, imported where it is missing."""
    existing = ModelVersion.objects.filter(name=MODEL_NAME).order_by("number").first()
    if existing is not None:
        return existing
    folder = Path(settings.DEMO_DIR) / "model"
    wait_for(enqueue_import(folder, name=MODEL_NAME, licence=MODEL_LICENCE, by=by), out, "Importing the demo model")
    return promote_base(ModelVersion.objects.get(name=MODEL_NAME), by)


def promote_base(version: ModelVersion, by: User) -> ModelVersion:
    """Make the base what new batches use, where nobody has decided yet: a run's result is used only once it has won."""
    if not ModelPromotion.objects.exists():
        promote(version, by=by, reason="The base that everything starts from.")
    return version


def wait_for(job: Job, out: OutputWrapper, label: str) -> None:
    """Wait until the job is over, saying how far it is. Raises WorkspaceRefused where it did not succeed."""
    said = -1
    while True:
        job.refresh_from_db()
        if job.state == JobState.SUCCEEDED:
            out.write(f"{label}: done.")
            return
        if not job.is_open:
            raise WorkspaceRefused(f"{label}: {job.get_state_display().lower()}. {job.error}")
        tenth = 10 * job.progress_done // job.progress_total if job.progress_total else 0
        if tenth != said:
            said = tenth
            out.write(f"{label}: {job.progress_done} of {job.progress_total or '?'}")
            out.flush()
        time.sleep(0.5)

"""Following a run's files: lines that grow, files that are rewound, and rows that say what the files say."""

import json
from pathlib import Path

import pytest

from jobs.attempts import claim
from jobs.context import JobContext, LeaseLost
from jobs.handlers import find_handler
from jobs.models import Job
from jobs.processes import this_process
from tests.generation.factories import make_png
from tests.training.factories import make_run
from training.engine.run_files import RunFiles
from training.models import RunEvent
from training.run_records import Follower, RunRecorder, describe_progress


class TestFollower:
    def test_it_reads_each_whole_line_once(self, tmp_path):
        path = tmp_path / "lines.jsonl"
        follower = Follower(path)
        assert follower.read() == ([], False)
        path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
        assert follower.read() == ([{"a": 1}, {"a": 2}], True)
        assert follower.read() == ([], False)
        with path.open("a") as file:
            file.write(": 3}\n")
        assert follower.read() == ([{"a": 3}], False)

    def test_a_broken_line_is_passed_over(self, tmp_path):
        path = tmp_path / "lines.jsonl"
        path.write_text('{"a": 1}\n\x00\x00{"a"\n{"a": 3}\n')
        assert Follower(path).read() == ([{"a": 1}, {"a": 3}], True)

    def test_a_replaced_file_is_read_from_its_beginning(self, tmp_path):
        path = tmp_path / "lines.jsonl"
        path.write_text('{"a": 1}\n{"a": 2}\n')
        follower = Follower(path)
        follower.read()
        other = tmp_path / "new"
        other.write_text('{"a": 1}\n')
        other.replace(path)
        assert follower.read() == ([{"a": 1}], True)


@pytest.fixture
def recorder(db, tmp_path) -> RunRecorder:
    """A recorder of a run that a worker has claimed, over an empty folder."""
    run = make_run(overrides={"steps": 20})
    job = claim(run.job.pk, this_process("test"), schema=find_handler(run.job.kind).schema)
    assert job is not None
    return RunRecorder(run, tmp_path, JobContext(job))


def write_steps(files: RunFiles, first: int, last: int, loss: float) -> None:
    for step in range(first, last + 1):
        files.metric({"step": step, "loss": loss, "images_per_second": 2.0})


def test_rows_become_what_a_rewound_file_says(recorder):
    files = RunFiles(recorder.folder, 20)
    files.event("started", 0)
    write_steps(files, 1, 12, 1.0)
    files.event("checkpoint", 10)
    recorder.tick()
    recorder.tick()
    assert recorder.run.metrics.count() == 12
    files.rewind(10)
    files.event("resumed", 10)
    recorder.tick()
    assert list(recorder.run.metrics.values_list("step", flat=True)) == list(range(1, 11))
    write_steps(files, 11, 20, 2.0)
    recorder.finish()
    losses = dict(recorder.run.metrics.values_list("step", "values__loss"))
    assert losses == {**dict.fromkeys(range(1, 11), 1.0), **dict.fromkeys(range(11, 21), 2.0)}
    assert list(recorder.run.events.values_list("kind", flat=True)) == ["started", "checkpoint", "resumed"]
    recorder.run.refresh_from_db()
    assert recorder.run.step == 20


def test_another_worker_that_begins_anew_changes_nothing(recorder):
    files = RunFiles(recorder.folder, 20)
    files.event("started", 0)
    write_steps(files, 1, 7, 1.0)
    recorder.tick()
    before = list(recorder.run.metrics.values_list("pk", "step")), list(recorder.run.events.values_list("kind"))
    RunRecorder(recorder.run, recorder.folder, recorder.context).tick()
    after = list(recorder.run.metrics.values_list("pk", "step")), list(recorder.run.events.values_list("kind"))
    assert before == after


def test_an_attempt_that_is_not_the_one_that_counts_writes_nothing(recorder):
    write_steps(RunFiles(recorder.folder, 20), 1, 5, 1.0)
    Job.objects.filter(pk=recorder.run.job.pk).update(token="00000000-0000-0000-0000-000000000001")
    with pytest.raises(LeaseLost):
        recorder.tick()
    assert not recorder.run.metrics.exists()


def test_samples_are_kept_before_rows_speak_of_them(recorder):
    files = RunFiles(recorder.folder, 20)
    folder = Path(recorder.folder) / "samples" / "step-000000"
    folder.mkdir(parents=True)
    for position in range(8):
        (folder / f"{position:02d}.png").write_bytes(make_png((position, 0, 0, 255)))
    files.event("samples", 0, folder="samples/step-000000", files=[])
    recorder.tick()
    drawn = list(recorder.run.samples.all())
    assert [each.position for each in drawn] == list(range(8))
    assert [each.prompt for each in drawn] == [each["prompt"] for each in recorder.run.spec["sample_prompts"]]
    assert len({each.image for each in drawn}) == 8


def test_checkpoints_come_and_make_room(recorder):
    for step in (10, 20):
        folder = recorder.folder / "checkpoints" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"files": {"weights": {"sha256": "0", "bytes": 40 + step}}}))
        recorder.tick()
    first = recorder.folder / "checkpoints" / "step-000010"
    (first / "manifest.json").unlink()
    first.rmdir()
    recorder.tick()
    assert list(recorder.run.checkpoints.order_by("step").values_list("step", "byte_size", "kept")) == [
        (10, 50, False),
        (20, 60, True),
    ]


def test_progress_in_words():
    assert describe_progress({"phase": "caching", "done": 3, "total": 12}) == "caching 3 of 12"
    training = {"phase": "training", "step": 4, "images_per_second": 12.345, "eta_seconds": 95.2}
    assert describe_progress(training) == "training, 12.3 images/s, 95 s left"
    assert describe_progress({}) == ""


def test_what_happened_in_words():
    """Details of different kinds share names: the seconds of a validation are a number, those of kernels a table."""
    validation = RunEvent(kind="validation", step=20, detail={"loss": 0.0412, "seconds": 1.5})
    assert validation.in_words == "Validated at step 20: loss 0.0412."
    kernels = RunEvent(
        kind="kernels", detail={"way": ["channels_last"], "seconds": {"plain": 0.2, "channels_last": 0.1}}
    )
    short = RunEvent(kind="no_room", step=50, detail={"needed": 15_200_000_000, "free": 9_000_000_000})
    assert "(15.2 GB with what a step takes, 9.0 GB free): the training waits" in short.in_words
    assert kernels.in_words == "Steps are computed channels last; tried: plain 0.200 s, channels last 0.100 s."
    damaged = RunEvent(kind="cache_damaged", detail={"files": ["0f.safetensors", "ab.safetensors"]})
    assert "had damaged files (2): they were set aside, and what they held was made again." in damaged.in_words
    collapse = RunEvent(kind="collapse", step=60, detail={"share": 0.31, "of": "seeds"})
    assert collapse.in_words.startswith("Drawings of one prompt with different seeds differ at step 60 by 31% of")
    # Runs from before compared the drawings of all prompts.
    collapse = RunEvent(kind="collapse", step=60, detail={"share": 0.31})
    assert collapse.in_words.startswith("The drawings of step 60 differ from each other by 31% of")
    on_demand = RunEvent(kind="on_demand", detail={"sources": ["content", "domain"], "images": 2_000_000})
    assert on_demand.in_words.startswith(
        "Latents and texts of content, domain are made as they are drawn: those of all 2,000,000"
    )

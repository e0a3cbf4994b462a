"""Runs in experiment trackers, by their real clients; MLflow's writes a folder here, as its own tests do."""

import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from generation.engine.folders import hash_file
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_trainer import UNET, Killed, kill_at, lines
from training.engine.trackers import MLflow, WeightsAndBiases, configured, page_of
from training.engine.trainer import run_training

SECRET = "correct-horse-battery"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    return MlflowClient()


def test_mlflow_has_settings_curves_and_end_of_a_run_that_was_killed(store: MlflowClient, make_run: MakeRun) -> None:
    folder = make_run(sample_every=0)
    with pytest.raises(Killed):
        run_training(folder, kill_at(folder, 3))
    run_training(folder)
    (found,) = store.search_runs([store.get_experiment_by_name("Atelier").experiment_id])
    assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
    assert {"steps": "6", "batch_size": "4", "method": "full"}.items() <= found.data.params.items()
    assert {"source content", "source style"} <= set(found.data.params)
    metrics = lines(folder / "metrics.jsonl")
    # Step 3 was lost with the kill: its second time has the same loss as its first.
    written = {each.step: each.value for each in store.get_metric_history(found.info.run_id, "train/loss")}
    assert written == {line["step"]: line["loss"] for line in metrics}
    validated = store.get_metric_history(found.info.run_id, "validation/loss")
    assert {each.step for each in validated} == {0, 3, 6}
    assert found.data.metrics["final/loss"] == metrics[-1]["loss"]
    (tracked,) = [line for line in lines(folder / "events.jsonl") if line["kind"] == "tracked"]
    assert (tracked["tracker"], tracked["url"]) == ("MLflow", "")
    assert not any(SECRET in path.read_text(errors="ignore") for path in folder.rglob("*") if path.is_file())


def test_tracker_that_is_down_neither_stops_nor_changes_a_run(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    changes = {"steps": 3, "sample_every": 0, "validate_every": 0}
    alone, tracked = (make_run(name, **changes) for name in ("alone", "tracked"))
    run_training(alone)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:{SECRET}@127.0.0.1:9")
    run_training(tracked)
    assert hash_file(tracked / UNET) == hash_file(alone / UNET)
    (event,) = [line for line in lines(tracked / "events.jsonl") if line["kind"] == "tracker_failed"]
    assert event["tracker"] == "MLflow"
    assert "cannot be reached" in event["why"]
    said = capfd.readouterr().err
    assert "MLflow: " in said
    assert SECRET not in said
    assert SECRET not in (tracked / "events.jsonl").read_text()


def test_tracker_that_is_not_installed_is_named(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = make_run(steps=1, sample_every=0, validate_every=0)
    run_training(folder)
    (event,) = [line for line in lines(folder / "events.jsonl") if line["kind"] == "tracker_failed"]
    assert (event["tracker"], event["why"]) == ("Weights & Biases", "it is not installed (extra “wandb”)")


def test_page_of_a_run_has_no_password_and_only_servers_have_pages() -> None:
    assert (
        page_of("https://me:secret@mlflow.example.org/base/?x=1", "/runs/1")
        == "https://mlflow.example.org/base/#/runs/1"
    )
    assert page_of("sqlite:///somewhere.db", "/runs/1") == ""


def test_trackers_are_those_of_the_environment(tmp_path: Path) -> None:
    def asked(**environment: str) -> list[type]:
        return [type(client) for client in configured(tmp_path, environment)]

    assert asked() == []
    assert asked(MLFLOW_TRACKING_URI="http://mlflow:5000") == [MLflow]
    assert asked(WANDB_API_KEY="k", MLFLOW_TRACKING_URI="sqlite:///x") == [MLflow, WeightsAndBiases]
    assert asked(WANDB_API_KEY="k", WANDB_MODE="disabled") == []
    assert asked(WANDB_MODE="offline", ATELIER_TRACKERS="off") == []

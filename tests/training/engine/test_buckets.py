"""Corpora in a bucket: the same index, images and weights as from a folder, also while the bucket answers now and then."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from generation.engine.folders import hash_file
from tests.bucket import NAME, Bucket, refusing
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_on_demand import QUIET
from tests.training.engine.test_trainer import UNET, lines
from tests.training.shards import picture, write_corpus, write_shard
from training.engine import buckets, steps
from training.engine.buckets import BucketPath, CorpusUnread
from training.engine.corpora import main, read_corpus, write_index
from training.engine.corpus_index import check_shards, read_problems
from training.engine.places import find_shards, place_of, sealed_shard
from training.engine.recipe import RunRefused
from training.engine.shards import CorpusRefused
from training.engine.trainer import run_training

FOLDER = BucketPath(NAME, "web/cats")


@pytest.fixture
def folder(tmp_path: Path, bucket: Bucket) -> Path:
    """A corpus that lies in a folder and in the bucket."""
    folder = write_corpus(tmp_path / "corpus", 2, 12)
    write_shard(folder / "00002.tar", {"none.png": picture(99)})
    bucket.put(folder, "web/cats")
    return folder


def test_a_place_is_named_by_an_address_or_a_path(tmp_path: Path) -> None:
    place = place_of(tmp_path, "s3://stickers/web/cats/")
    assert isinstance(place, BucketPath)
    assert (place, str(place), place.name, place / "a.tar") == (
        FOLDER,
        "s3://stickers/web/cats",
        "cats",
        BucketPath(NAME, "web/cats/a.tar"),
    )
    assert str(BucketPath.parse("s3://stickers")) == "s3://stickers"
    assert BucketPath.parse("s3://stickers") / "a.tar" == BucketPath(NAME, "a.tar")
    assert place_of(tmp_path, "web/cats") == tmp_path / "web/cats"
    for wrong in ("s3://", "s3:///web", "gs://stickers/web", "s3://arn:aws:s3/x"):
        with pytest.raises(ValueError, match="no address"):
            BucketPath.parse(wrong)


def test_index_and_images_are_those_of_the_same_files_in_a_folder(
    folder: Path, tmp_path: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    # What else may lie there.
    bucket.client.put_object(Bucket=NAME, Key="web/cats/", Body=b"")
    bucket.client.put_object(Bucket=NAME, Key="web/cats/deeper/00000.tar", Body=b"no tar file")
    bucket.client.put_object(Bucket=NAME, Key="web/cats/README.md", Body=b"cats")
    told: list[tuple[int, int]] = []
    here = write_index(find_shards(folder), tmp_path / "here")
    there = write_index(find_shards(FOLDER), tmp_path / "there", lambda done, total: told.append((done, total)))
    assert there == here
    assert read_problems(tmp_path / "there") == ["none.png in 00002.tar has no caption beside it."]
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert (told[0][1], told[-1]) == (size, (size, size))
    assert list(map(str, tmp_path.glob(".*"))) == []
    items = read_corpus(tmp_path / "there", FOLDER, here.content_hash)
    assert [item.read() for item in items] == [
        item.read() for item in read_corpus(tmp_path / "here", folder, here.content_hash)
    ]
    assert (items[3].name, items[3].is_far) == ("0003.png in 00000.tar", True)
    # By hand.
    assert main([str(FOLDER), str(tmp_path / "third")]) == 0
    assert capsys.readouterr().out.endswith(f"{here.content_hash}\n")


def test_shards_are_listed_and_not_read_again_unless_something_may_have_changed(
    folder: Path, tmp_path: Path, bucket: Bucket
) -> None:
    index = tmp_path / "index"
    write_index(find_shards(FOLDER), index)
    bucket.asked.clear()
    check_shards(index, FOLDER)
    assert bucket.asked == [f"GET /{NAME}"]
    check_shards(index, FOLDER, every_byte=True)
    assert [asked for asked in bucket.asked if asked.endswith(".tar")] == [
        f"GET /{NAME}/web/cats/0000{number}.tar" for number in range(3)
    ]
    content = (folder / "00001.tar").read_bytes()
    bucket.client.put_object(Bucket=NAME, Key="web/cats/00001.tar", Body=content[:-1024])
    with pytest.raises(CorpusRefused, match=r"00001\.tar changed since its corpus was indexed") as refused:
        check_shards(index, FOLDER)
    assert not refused.value.retry
    bucket.client.put_object(Bucket=NAME, Key="web/cats/00001.tar", Body=content[:600] + b"x" + content[601:])
    with pytest.raises(CorpusRefused, match=r"00001\.tar changed since its corpus was indexed"):
        check_shards(index, FOLDER, every_byte=True)
    bucket.client.delete_object(Bucket=NAME, Key="web/cats/00001.tar")
    with pytest.raises(CorpusRefused, match=r"The shard 00001\.tar is missing"):
        check_shards(index, FOLDER)


def test_a_scan_goes_on_after_the_shards_that_were_read(folder: Path, tmp_path: Path, bucket: Bucket) -> None:
    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise InterruptedError

    whole = write_index(find_shards(FOLDER), tmp_path / "whole")
    with pytest.raises(InterruptedError):
        write_index(find_shards(FOLDER), tmp_path / "index", stop)
    bucket.asked.clear()
    assert write_index(find_shards(FOLDER), tmp_path / "index") == whole
    assert f"GET /{NAME}/web/cats/00000.tar" not in bucket.asked


def test_what_is_cut_off_or_busy_for_a_while_is_asked_again(folder: Path, tmp_path: Path, bucket: Bucket) -> None:
    here = write_index(find_shards(folder), tmp_path / "here")
    bucket.busy = 1
    shards = find_shards(FOLDER)
    bucket.busy, bucket.cut = 2, 3
    assert write_index(shards, tmp_path / "there") == here
    assert bucket.cut == 0
    item = read_corpus(tmp_path / "there", FOLDER, here.content_hash)[5]
    bucket.busy, bucket.cut = 1, 2
    assert item.read() == read_corpus(tmp_path / "here", folder, here.content_hash)[5].read()
    assert (bucket.busy, bucket.cut) == (0, 0)


def test_a_shard_that_is_replaced_while_it_is_copied_is_refused(
    folder: Path, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = find_shards(FOLDER)
    bucket.cut = 1

    def replace(*_: Any) -> None:
        if not bucket.cut:
            bucket.client.put_object(Bucket=NAME, Key="web/cats/00000.tar", Body=b"x" * 10)

    with pytest.raises(CorpusRefused, match=r"00000\.tar changed while it was read"):
        write_index(shards, tmp_path / "index", replace)


@pytest.mark.parametrize(
    ("code", "status", "said", "retry"),
    [
        ("NoSuchBucket", 404, "There is no bucket stickers", False),
        ("", 404, "There is no folder cats in the bucket", False),
        ("AccessDenied", 403, r"refuses to be read by this server \(AccessDenied\)", False),
        ("InvalidObjectState", 403, r"refuses to be read by this server \(InvalidObjectState\)", False),
        ("", 400, r"refuses to be read by this server \(400\)", False),
        ("SlowDown", 503, "does not answer at present", True),
        ("RequestTimeout", 400, "does not answer at present", True),
        ("InternalError", 500, "does not answer at present", True),
    ],
)
def test_what_a_bucket_answers_is_said_in_a_sentence(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, code: str, status: int, said: str, retry: bool
) -> None:
    monkeypatch.setattr(bucket, "_app", refusing(code, status))
    with pytest.raises(CorpusUnread, match=said) as refused:
        find_shards(FOLDER)
    assert refused.value.retry == retry
    assert (len(bucket.asked) > 1) == retry


def test_a_server_that_only_redirects_is_said(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    def redirect(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("301 Moved", [("Location", f"http://{environ['HTTP_HOST']}{environ['PATH_INFO']}")])
        return []

    monkeypatch.setattr(bucket, "_app", redirect)
    with pytest.raises(CorpusUnread, match="look at its address and its region"):
        find_shards(FOLDER)


def test_who_has_no_credentials_or_no_network_is_told(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(CorpusUnread, match="does not answer at present") as refused:
        find_shards(FOLDER)
    assert refused.value.retry
    buckets.forget_clients()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "minio:9000")
    with pytest.raises(CorpusUnread, match="cannot be asked: Invalid endpoint"):
        find_shards(FOLDER)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(CorpusUnread, match="no credentials for the bucket stickers"):
        find_shards(FOLDER)
    # They come later, as those of a machine do, and nobody starts anything again.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
    with pytest.raises(CorpusUnread, match="does not answer at present"):
        find_shards(FOLDER)


def test_without_boto3_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("boto3", "botocore"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CorpusUnread, match="install the extra s3"):
        find_shards(FOLDER)


@pytest.mark.parametrize("size", [300_000, 3_000_000])
def test_a_copy_goes_on_where_its_connection_was_reset(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(buckets, "WORK", replace(buckets.WORK, seconds=5))
    content = os.urandom(size)
    bucket.client.put_object(Bucket=NAME, Key="web/a.tar", Body=content)
    bucket.resets, bucket.cut = True, 3
    with sealed_shard(BucketPath(NAME, "web/a.tar"), tmp_path) as (file, sealed):
        assert file.seek(0) == 0
        assert file.read() == content
    assert (sealed.size, sealed.sha256) == (size, hashlib.sha256(content).hexdigest())
    assert bucket.cut == 0


def test_a_server_that_knows_no_parts_is_refused_and_not_read_whole(
    folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = bucket._app

    def whole(environ: dict[str, Any], start_response: Any) -> Any:
        environ.pop("HTTP_RANGE", None)
        return answer(environ, start_response)

    monkeypatch.setattr(bucket, "_app", whole)
    shard = FOLDER / "00000.tar"
    assert buckets.read_range(shard, 0, 100) == (folder / "00000.tar").read_bytes()[:100]
    with pytest.raises(CorpusUnread, match="does not send parts of objects"):
        buckets.read_range(shard, 512, 100)


def test_names_that_no_folder_has_are_passed_over(bucket: Bucket, tmp_path: Path) -> None:
    for key in ("/x.tar", "web//x.tar", "web/.tar", "web/b.TAR", "web/ü +%20.tar", "web/c.tar.gz"):
        bucket.client.put_object(Bucket=NAME, Key=key, Body=b"x")
    root, web = BucketPath(NAME), BucketPath(NAME, "web")
    assert buckets.list_folder(root) == ([], [web])
    shards, folders = buckets.list_folder(web)
    assert ([path.name for path in shards], folders) == (["b.TAR", "ü +%20.tar"], [])
    assert buckets.read_range(shards[1], 0, 10) == b"x"
    with pytest.raises(CorpusRefused, match="is no address of a bucket"):
        place_of(tmp_path, "s3://Bad Bucket!/web")


@pytest.fixture
def run_of_bucket(make_run: MakeRun, folder: Path, tmp_path: Path) -> MakeRun:
    """A run whose content row is the corpus, in the bucket or in the folder; its cache is its own."""
    index = tmp_path / "index.sqlite"
    content_hash = write_index(find_shards(folder), index).content_hash

    def make(name: str, where: str, **changes: Any) -> Path:
        run = make_run(name, **{**QUIET, "cache_dir": str(tmp_path / f"cache of {name}"), **changes})
        settings = json.loads((run / "run.json").read_text())
        settings["sources"][0] |= {"manifest": str(index), "corpus": where, "corpus_hash": content_hash}
        (run / "run.json").write_text(json.dumps(settings))
        return run

    return make


def test_a_run_learns_the_same_from_a_bucket_however_its_images_come(run_of_bucket: MakeRun, folder: Path) -> None:
    cached, drawn = (run_of_bucket(name, str(FOLDER), corpus_cache_gib=gib) for name, gib in (("c", 50), ("d", 0)))
    here = run_of_bucket("here", str(folder))
    run_training(here)
    run_training(cached)
    # As a worker starts it: the process finds the bucket by its environment.
    subprocess.run([sys.executable, "-m", "training.engine", str(drawn)], cwd=settings.BASE_DIR, check=True)
    assert hash_file(cached / UNET) == hash_file(drawn / UNET) == hash_file(here / UNET)


def test_a_run_whose_bucket_is_gone_keeps_its_steps_and_goes_on_to_the_same_bits(
    run_of_bucket: MakeRun, folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"corpus_cache_gib": 0, "steps": 6, "checkpoint_every": 6, "validate_every": 0}
    here, there = run_of_bucket("here", str(folder), **changes), run_of_bucket("there", str(FOLDER), **changes)
    run_training(here)

    def lose() -> bool:
        bucket.is_gone = (there / "metrics.jsonl").exists()
        return False

    # Else all that six steps need has been read by then.
    monkeypatch.setattr(steps, "STEPS_AHEAD", 1)
    with pytest.raises(RunRefused, match="stickers does not answer at present") as refused:
        run_training(there, lose)
    assert refused.value.retry
    saved = [line["step"] for line in lines(there / "events.jsonl") if line["kind"] == "checkpoint"]
    assert saved
    assert 0 < saved[-1] < 6
    bucket.is_gone = False
    run_training(there)
    assert hash_file(there / UNET) == hash_file(here / UNET)

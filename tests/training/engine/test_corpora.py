"""Corpora: shards are indexed exactly, read in place, refused when they changed, and trained to the same bits."""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from generation.engine.folders import hash_file
from tests.training.engine.conftest import MakeRun
from tests.training.shards import picture, write_shard
from training.engine import corpora
from training.engine.corpora import main, read_corpus, write_index
from training.engine.corpus_index import read_problems
from training.engine.pixels import read_image, to_pixels
from training.engine.places import find_shards
from training.engine.recipe import RunRefused
from training.engine.run import Stopped
from training.engine.shapes import Shape
from training.engine.shards import CorpusRefused, read_samples
from training.engine.trainer import run_training

UNET = Path("result/unet/diffusion_pytorch_model.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards of four pairs each, of all three formats and both kinds of caption."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    endings = [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")]
    for shard in range(2):
        files = {}
        for i, (ending, kind) in enumerate(endings):
            number = 4 * shard + i
            files[f"set/{number:04}.{ending}"] = picture(number, kind=kind)
            caption = f"a corpus cat {number}"
            if i % 2:
                files[f"set/{number:04}.json"] = json.dumps({"caption": caption, "likes": 3}).encode()
            else:
                files[f"set/{number:04}.txt"] = f"  {caption}\n".encode()
        write_shard(folder / f"{shard:05}.tar", files)
    return folder


@pytest.fixture
def run_of_corpus(make_run: MakeRun, folder: Path, tmp_path: Path) -> MakeRun:
    """A run whose content row is the corpus and whose style row is a manifest, with the usual split."""
    index = tmp_path / "index.sqlite"
    content_hash = write_index(find_shards(folder), index).content_hash

    def make(name: str = "run", **changes: Any) -> Path:
        run = make_run(name, **changes)
        settings = json.loads((run / "run.json").read_text())
        settings["sources"][0] |= {"manifest": str(index), "corpus": str(folder), "corpus_hash": content_hash}
        (run / "run.json").write_text(json.dumps(settings))
        return run

    return make


def change_in_place(path: Path, old: bytes, new: bytes) -> None:
    """Change bytes and keep size and time, as no honest program does."""
    status = path.stat()
    content = path.read_bytes()
    assert content.count(old) == 1
    assert len(old) == len(new)
    path.write_bytes(content.replace(old, new))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_index_reads_each_member_where_it_lies(folder: Path, tmp_path: Path) -> None:
    told = []
    index = tmp_path / "index.sqlite"
    summary = write_index(find_shards(folder), index, lambda done, total: told.append((done, total)))
    assert (summary.images, summary.shards, summary.problems) == (8, 2, 0)
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert told[-1] == (size, size)

    items = read_corpus(index, folder, summary.content_hash)
    assert [item.caption for item in items] == [f"a corpus cat {number}" for number in range(8)]
    assert [item.name for item in items[3:5]] == ["set/0003.png in 00000.tar", "set/0004.png in 00001.tar"]
    for item in items:
        with tarfile.open(item.image) as tar:
            unpacked = tar.extractfile(item.member)
            assert unpacked is not None
            assert item.read() == unpacked.read()
        assert hashlib.sha256(item.read()).hexdigest() == item.sha256
    # Of 48 x 36 the middle 36 x 36, made 32 x 32.
    assert to_pixels(read_image(items[0], Shape(32, 32))).shape == (3, 32, 32)


def test_same_shards_have_the_same_hash_wherever_they_lie(folder: Path, tmp_path: Path) -> None:
    first = write_index(find_shards(folder), tmp_path / "one")
    moved = folder.rename(tmp_path / "elsewhere")
    for path in moved.iterdir():
        os.utime(path, (1, 1))
    assert write_index(find_shards(moved), tmp_path / "two").content_hash == first.content_hash
    # The old index reads the copy: its bytes are hashed again, since its times differ.
    assert len(read_corpus(tmp_path / "one", moved, first.content_hash)) == 8
    write_shard(moved / "00001.tar", {"a.png": picture(1), "a.txt": b"another cat"})
    assert write_index(find_shards(moved), tmp_path / "three").content_hash != first.content_hash


def test_index_is_never_overwritten(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_index(find_shards(folder), out / "index")
    assert [path.name for path in out.iterdir()] == ["index"]
    with pytest.raises(CorpusRefused, match="exists already"):
        write_index(find_shards(folder), out / "index")


def stop_in_second_shard(folder: Path, index: Path, **options: int) -> None:
    first = (folder / "00000.tar").stat().st_size

    def stop(done: int, total: int) -> None:
        if done > first:
            raise Stopped

    with pytest.raises(Stopped):
        write_index(find_shards(folder), index, stop, **options)
    assert not index.exists()


def test_a_stopped_scan_goes_on_after_the_last_whole_shard(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_index(find_shards(folder), tmp_path / "whole")
    index = tmp_path / "index"
    stop_in_second_shard(folder, index)
    read = []
    monkeypatch.setattr(corpora, "read_samples", lambda name, *rest: (read.append(name), read_samples(name, *rest))[1])
    assert write_index(find_shards(folder), index) == whole
    assert read == ["00001.tar"]


def test_what_a_stopped_scan_read_of_other_files_is_read_anew(folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    stop_in_second_shard(folder, index)
    write_shard(folder / "00000.tar", {"a.png": picture(1), "a.txt": b"another cat"})
    assert write_index(find_shards(folder), index).images == 5

    stop_in_second_shard(folder, tmp_path / "other", least_side=40)
    assert write_index(find_shards(folder), tmp_path / "other").images == 5


def test_two_scans_of_one_index_do_not_mix(folder: Path, tmp_path: Path) -> None:
    def again(done: int, total: int) -> None:
        write_index(find_shards(folder), tmp_path / "index")

    with pytest.raises(CorpusRefused, match="another scan is writing it"):
        write_index(find_shards(folder), tmp_path / "index", again)


def test_broken_members_are_left_out_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    good = picture(1)
    frames = picture(2, kind="WEBP", save_all=True, append_images=[Image.new("RGB", (48, 36))])
    deep = io.BytesIO()
    Image.new("I;16", (48, 36)).save(deep, "PNG")
    write_shard(
        folder / "a.tar",
        {
            "readme.md": b"of the whole",
            "good.png": good,
            "good.txt": b"a cat",
            "cut.png": good[:60],
            "cut.txt": b"a cat",
            "text.jpg": b"no image",
            "text.txt": b"a cat",
            "alone.png": good,
            "empty.png": good,
            "empty.txt": b" \n",
            "list.png": good,
            "list.json": b"[1]",
            "latin.png": good,
            "latin.txt": "chat rosé".encode("latin-1"),
            "number.png": good,
            "number.json": b'{"caption": 3}',
            "small.png": picture(3, (48, 20)),
            "small.txt": b"a cat",
            "moves.webp": frames,
            "moves.txt": b"a cat",
            "deep.png": deep.getvalue(),
            "deep.txt": b"a cat",
            "two.png": good,
            "two.jpg": picture(4, kind="JPEG"),
            "two.txt": b"a cat",
            "words.txt": b"a cat",
            "bad\udcff.png": good,
        },
    )
    with tarfile.open(folder / "a.tar", "a") as tar:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    summary = write_index(find_shards(folder), tmp_path / "index", least_side=32)
    assert summary.images == 1
    assert read_problems(tmp_path / "index") == [
        "cut.png in a.tar cannot be decoded as PNG, JPEG or WebP.",
        "text.jpg in a.tar cannot be decoded as PNG, JPEG or WebP.",
        "alone.png in a.tar has no caption beside it.",
        "empty.png in a.tar has an empty caption.",
        "list.png in a.tar has an empty caption.",
        "latin.png in a.tar has a caption file that is not UTF-8, or not JSON.",
        "number.png in a.tar has a caption that is no text.",
        "small.png in a.tar has 48 × 20 pixels; its shorter side needs 32.",
        "moves.webp in a.tar is an animation.",
        "deep.png in a.tar has the pixel format I;16; 8 bits a channel are read.",
        "two.jpg in a.tar is a second image of the same name.",
        "words.txt in a.tar has no image beside it.",
        "'bad\\udcff.png' in a.tar has a name with unprintable characters.",
        "link.png in a.tar is a link, a device or a file with holes.",
    ]
    assert summary.problems == 14


@pytest.mark.parametrize("damage", ["cut in a member", "cut after a member", "damaged header", "no tar", "compressed"])
def test_shard_that_is_no_whole_tar_file_is_refused(folder: Path, tmp_path: Path, damage: str) -> None:
    shard = folder / "00001.tar"
    content = shard.read_bytes()
    with tarfile.open(shard) as tar:
        last = tar.getmembers()[-1]
    if damage == "cut in a member":
        shard.write_bytes(content[: last.offset_data + 5])
    elif damage == "cut after a member":
        shard.write_bytes(content[: last.offset])
    elif damage == "damaged header":
        shard.write_bytes(content[: last.offset] + b"x" * 512 + content[last.offset + 512 :])
    elif damage == "no tar":
        shard.write_bytes(b"no tar at all" * 100)
    else:
        with tarfile.open(shard, "w:gz"):
            pass
    with pytest.raises(CorpusRefused, match=r"The shard 00001\.tar is no whole, plain tar file"):
        write_index(find_shards(folder), tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_links_pipes_and_empty_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "linked.tar").symlink_to(folder / "00000.tar")
    with pytest.raises(CorpusRefused, match=r"linked\.tar is a link"):
        find_shards(folder)
    (folder / "linked.tar").unlink()
    os.mkfifo(folder / "pipe.tar")
    with pytest.raises(CorpusRefused, match=r"pipe\.tar is no plain file"):
        find_shards(folder)
    (tmp_path / "way").symlink_to(folder)
    with pytest.raises(CorpusRefused, match="no folder"):
        find_shards(tmp_path / "way")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CorpusRefused, match=r"no \.tar file"):
        find_shards(empty)


def test_index_by_hand(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), str(tmp_path / "index")]) == 0
    assert capsys.readouterr().out.startswith("8 images in 2 shards, 0 left out\n")
    assert main([str(folder), str(tmp_path / "index")]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main([str(folder), str(tmp_path / "no folder" / "index")]) == 1
    assert "The index index cannot be written" in capsys.readouterr().err


def test_row_of_a_corpus_trains_beside_a_manifest_and_resumes_to_the_same_bits(run_of_corpus: MakeRun) -> None:
    # One step short of the end, then on: nothing of the corpus is remembered but its index.
    changes = {"steps": 2, "checkpoint_every": 1, "validate_every": 0, "sample_every": 0, "mixture": "shares"}
    whole, torn = run_of_corpus("whole", **changes), run_of_corpus("torn", **changes)
    run_training(whole)
    with pytest.raises(Stopped):
        run_training(torn, lambda: (torn / "metrics.jsonl").exists())
    run_training(torn)
    assert hash_file(torn / UNET) == hash_file(whole / UNET)
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert {name for line in lines for name in line["loss_by_source"]} == {"content", "style"}


def test_image_changed_behind_size_and_time_is_refused_by_its_own_hash(folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    content_hash = write_index(find_shards(folder), index).content_hash
    first = read_corpus(index, folder, content_hash)[0]
    image = first.read()
    change_in_place(folder / "00000.tar", image, image[:-1] + b"x")
    (again, *_) = read_corpus(index, folder, content_hash)
    with pytest.raises(RunRefused, match=r"set/0000\.png in 00000\.tar is not the one that was frozen"):
        to_pixels(read_image(again, Shape(32, 32)))


def test_run_refuses_what_changed(run_of_corpus: MakeRun, folder: Path) -> None:
    changes = {"steps": 2, "checkpoint_every": 1, "validate_every": 0, "sample_every": 0}
    run, shard = run_of_corpus(**changes), folder / "00000.tar"
    settings = json.loads((run / "run.json").read_text())
    content = shard.read_bytes()

    shard.write_bytes(content + b"\0" * 512)
    with pytest.raises(RunRefused, match=r"00000\.tar changed since"):
        run_training(run)
    shard.write_bytes(content.replace(b"corpus cat 1", b"corpus dog 1"))
    with pytest.raises(RunRefused, match=r"00000\.tar changed since"):
        run_training(run)
    shard.unlink()
    with pytest.raises(RunRefused, match=r"00000\.tar is missing"):
        run_training(run)
    shard.write_bytes(content)
    settings["sources"][0]["corpus_hash"] = "0" * 64
    (run / "run.json").write_text(json.dumps(settings))
    with pytest.raises(RunRefused, match="not the one that the recipe names"):
        run_training(run)
    settings["objective"] = "dpo"
    (run / "run.json").write_text(json.dumps(settings))
    with pytest.raises(RunRefused, match="dpo learns from pairs"):
        run_training(run)

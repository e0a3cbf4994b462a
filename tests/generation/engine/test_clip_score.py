"""CLIP scores with a real, tiny and random open_clip model."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from generation.engine.clip_score import ClipScorer
from generation.engine.folders import FolderRefused

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    model = open_clip.CLIP(**CONFIG)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path / "open_clip_model.safetensors")
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": PREPROCESS}))
    return path


@pytest.fixture(scope="module")
def scorer(folder: Path) -> ClipScorer:
    return ClipScorer(folder, "cpu")


def squares() -> list[Image.Image]:
    return [Image.new("RGBA", (48, 48), (40 * i, 255 - 30 * i, 90, 255)) for i in range(5)]


def test_score_is_a_hundred_times_the_cosine_of_each_pair(scorer: ClipScorer) -> None:
    texts = [f"a cat number {i}" for i in range(5)]
    images, words = scorer.image_embeddings(squares()), scorer.text_embeddings(texts)
    assert images.shape == words.shape == (5, 16)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(5))
    expected = [
        100 * float(torch.nn.functional.cosine_similarity(i, w, dim=0)) for i, w in zip(images, words, strict=True)
    ]
    assert scorer.score(squares(), texts) == pytest.approx(expected, abs=1e-4)
    assert scorer.score([], []) == []


def test_transparent_pixels_are_white(scorer: ClipScorer) -> None:
    clear, white = Image.new("RGBA", (32, 32), (255, 0, 0, 0)), Image.new("RGB", (32, 32), "white")
    assert torch.equal(scorer.image_embeddings([clear]), scorer.image_embeddings([white]))


def test_every_image_needs_its_text(scorer: ClipScorer) -> None:
    with pytest.raises(ValueError, match="its text"):
        scorer.score(squares(), ["a cat"])


def test_folders_without_weights_or_with_pickles_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FolderRefused, match="needs open_clip_config"):
        ClipScorer(tmp_path)
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / "open_clip_pytorch_model.bin").touch()
    with pytest.raises(FolderRefused, match="pickle"):
        ClipScorer(tmp_path)

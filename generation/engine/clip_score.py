"""CLIP score: how well an image fits its text, by an open_clip model from a local folder."""

from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
from PIL import Image

from generation.engine.folders import PICKLE_SUFFIXES, FolderRefused
from generation.engine.images import on_white
from generation.engine.runtime import choose_device, prepare_torch

BATCH = 64


class ClipScorer:
    """An open_clip model in a folder of `open_clip_config.json` and `open_clip_model.safetensors`.

    Scores are 100 x the cosine of image and text embedding, as torchmetrics' CLIPScore (after Hessel et al. 2021,
    arXiv 2104.08718), but neither clamped at zero nor rescaled. Transparent images are composited on white.
    Scores of different models are not comparable: name the model beside every number.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        folder = Path(folder)
        weights = folder / "open_clip_model.safetensors"
        if not (folder / "open_clip_config.json").is_file() or not weights.is_file():
            raise FolderRefused("The CLIP folder needs open_clip_config.json and open_clip_model.safetensors.")
        if any(path.suffix.lower() in PICKLE_SUFFIXES for path in folder.iterdir()):
            raise FolderRefused("The CLIP folder holds a pickle file; only safetensors weights are accepted.")
        prepare_torch()
        self.device = choose_device(device)
        name = f"local-dir:{folder}"
        self.model, self.preprocess = open_clip.create_model_from_pretrained(name, device=self.device)
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer(name)

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> list[float]:
        """100 x cos(image, text) for each pair; -100 to 100."""
        if len(images) != len(texts):
            raise ValueError("every image needs its text")
        if not images:
            return []
        cosines = (self.image_embeddings(images) * self.text_embeddings(texts)).sum(dim=1)
        return [100.0 * float(cosine) for cosine in cosines]

    def image_embeddings(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """[N, D] float32 on the CPU, each of length 1."""
        pixels = [self.preprocess(on_white(image)) for image in images]
        with torch.inference_mode():
            return torch.cat([self._encode_pixels(pixels[i : i + BATCH]) for i in range(0, len(pixels), BATCH)])

    def text_embeddings(self, texts: Sequence[str]) -> torch.Tensor:
        """[N, D] float32 on the CPU, each of length 1. Texts beyond the model's context are cut."""
        with torch.inference_mode():
            return torch.cat([self._encode_texts(texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)])

    def _encode_pixels(self, pixels: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.model.encode_image(torch.stack(list(pixels)).to(self.device), normalize=True).float().cpu()

    def _encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        return self.model.encode_text(self.tokenizer(list(texts)).to(self.device), normalize=True).float().cpu()

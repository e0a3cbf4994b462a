import os
import subprocess
import sys
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from demo.tiny import build_tiny
from demo.tokenizer import build_tokenizer


def test_tiny_pipeline_draws_small_rgba_images(tmp_path):
    pipeline = StableDiffusionPipeline.from_pretrained(build_tiny(tmp_path / "tiny"), dtype=torch.float32)
    images = pipeline(["a happy cat", "words it has never seen"], num_inference_steps=2).images
    assert [(image.mode, image.size) for image in images] == [("RGBA", (32, 32))] * 2


def test_tiny_weights_follow_the_seed(tmp_path):
    first, again, other = (
        load_file(build_tiny(tmp_path / name, seed=seed) / "unet" / "diffusion_pytorch_model.safetensors")
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert {weights.dtype for weights in first.values()} == {torch.float16}
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_tokenizer_keeps_known_words_whole_and_any_other_text_whole_in_pieces():
    tokenizer = build_tokenizer(["cat", "happy", "a", "die", "cut", "-"])
    assert tokenizer.tokenize("A happy die-cut cat") == ["a</w>", "happy</w>", "die</w>", "-</w>", "cut</w>", "cat</w>"]
    strange = tokenizer("naïve 🎉 zebra's").input_ids
    assert (strange[0], strange[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert tokenizer.eos_token_id not in strange[1:-1]


def test_tokenizer_has_the_same_ids_in_every_process():
    program = (
        "from demo.tokenizer import learn_merges; print(learn_merges(['sticker', 'stick', 'cats', 'cat', 'banana']))"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(answers) == 1
    assert "'cat'" in answers.pop()

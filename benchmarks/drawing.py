"""Seconds an image with the demo model at 20 steps, beside a plain diffusers script with the same weights and settings.

Both draw in turn in one process, so that the machine's mood hits both; figures are medians, the ratio is ours over the
peer's (below 1: ours is faster).
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from generation.engine.draw import draw
from generation.engine.pipeline import load_pipeline
from generation.engine.requests import DrawRequest

FOLDER = Path(__file__).resolve().parents[1] / "demo" / "model"
ROUNDS = 5
STEPS = 20
GUIDANCE = 4.0


def measure() -> Iterator[dict[str, Any]]:
    """One measurement for batches of 1 and of 8."""
    import torch
    from diffusers import StableDiffusionPipeline

    ours = load_pipeline(FOLDER)
    peer = StableDiffusionPipeline.from_pretrained(FOLDER, dtype=torch.float32, local_files_only=True)
    peer.set_progress_bar_config(disable=True)
    for batch in (1, 8):
        requests = [
            DrawRequest("die-cut sticker of a cat", seed=i, steps=STEPS, guidance=GUIDANCE) for i in range(batch)
        ]

        def draw_ours(requests: list[DrawRequest] = requests) -> None:
            draw(ours, requests, lambda step, total: True)

        def draw_peer(requests: list[DrawRequest] = requests) -> None:
            peer(
                [request.prompt for request in requests],
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
                generator=[torch.Generator("cpu").manual_seed(request.seed) for request in requests],
            )

        times: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(ROUNDS + 1):
            times["ours"].append(_seconds(draw_ours))
            times["peer"].append(_seconds(draw_peer))
        # The first round warms both up.
        mine, theirs = (statistics.median(times[who][1:]) / batch for who in ("ours", "peer"))
        yield {
            "unit": "seconds an image",
            "batch": batch,
            "value": round(mine, 4),
            "peer": "diffusers StableDiffusionPipeline",
            "peer_value": round(theirs, 4),
            "ratio": round(mine / theirs, 3),
            "threads": torch.get_num_threads(),
            "load": os.getloadavg()[0],
        }


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began

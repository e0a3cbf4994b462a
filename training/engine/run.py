"""One run at work: what it was asked, what it reads, what it learns, and where it writes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from generation.engine.pipeline import Pipeline
from training.engine.bands import Region, Schedule
from training.engine.batches import Diffusion, Flow
from training.engine.board import Board
from training.engine.cache import Encoded
from training.engine.draws import Mixture
from training.engine.figures import Pending
from training.engine.group import Group
from training.engine.learner import Learner
from training.engine.manifests import Item
from training.engine.objectives import Inputs
from training.engine.recipe import RunSettings
from training.engine.run_files import RunFiles
from training.engine.trackers import Trackers
from training.engine.transparency import DecoderInputs
from training.engine.validation import BATCH, Cell
from training.engine.writer import Writer


class Stopped(Exception):
    """A cancel or SIGTERM; all that was learned is in a checkpoint."""


@dataclass
class Run:
    """All that the loop needs. `digest` is a hash of whatever decides the weights; `stop()` is true once somebody wants
    the run to stop."""

    folder: Path
    settings: RunSettings
    stop: Callable[[], bool]
    files: RunFiles
    pipeline: Pipeline
    schedule: Schedule
    encoded: Encoded
    items: tuple[Sequence[Item], ...]
    mixture: Mixture
    diffusion: Diffusion | Flow
    regions: list[Region]
    grid: list[Cell]
    learner: Learner
    digest: str
    board: Board
    trackers: Trackers
    group: Group
    writer: Writer
    # Damaged files of the cache that the run's events name already.
    damage_said: set[str] = field(default_factory=set)
    # How many examples a pass of the validation takes at most: less where memory was short.
    validation_batch: int = BATCH
    # See `kernels`.
    way: tuple[str, ...] = ()
    # The first operation that gives other bits each time, once a pass has met one: see `repeatable`.
    varying: str = ""
    # The step whose update is under way, and its figures with it; see `figures`.
    pending: Pending | None = None

    @property
    def machine(self) -> dict[str, Any]:
        """What the last bits of a sum depend on."""
        return {
            "torch": torch.__version__,
            "device": str(self.pipeline.device),
            "threads": torch.get_num_threads(),
            "processes": self.group.size,
            **({"sharded": True} if self.group.is_sharded else {}),
        }

    @property
    def inputs(self) -> Inputs | DecoderInputs:
        """What an example's error is computed from."""
        settings = self.settings
        if settings.trains_decoder:
            return DecoderInputs(
                encoded=self.encoded,
                items=self.items,
                device=self.pipeline.device,
                colour_weight=settings.colour_weight,
                alpha_weight=settings.alpha_weight,
                backgrounds=settings.backgrounds,
            )
        return Inputs(
            self.encoded,
            self.diffusion,
            self.scaling_factor,
            self.shift_factor,
            reference=self.learner.reference,
            beta=settings.dpo_beta,
        )

    @property
    def scaling_factor(self) -> float:
        return float(self.pipeline.pipe.vae.config.scaling_factor)

    @property
    def shift_factor(self) -> float:
        """What is taken from latents before they are scaled: of flow-matching models alone, as their pipelines do."""
        return float(self.pipeline.pipe.vae.config.shift_factor) if self.schedule.is_flow else 0.0

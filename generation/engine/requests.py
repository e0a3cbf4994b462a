"""What is asked of a model: one image each, as frozen values that need no torch to be made or compared."""

from collections.abc import Sequence
from dataclasses import dataclass

# "default" is the scheduler that the model's folder names; the others are derived from the folder's configuration.
SCHEDULERS = ("default", "ddim", "dpm++", "euler")
# What a flow-matching model is drawn with: its own scheduler takes Euler's steps already.
FLOW_SCHEDULERS = ("default",)
# The canonical size of a group that is drawn together.
CHUNK_SIZE = 8
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class DrawRequest:
    """One image: `width` and `height` in pixels, None for the model's own; `guidance` 1 or less draws without it."""

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    steps: int = 20
    guidance: float = 4.0
    width: int | None = None
    height: int | None = None
    scheduler: str = "default"

    def __post_init__(self) -> None:
        if self.scheduler not in SCHEDULERS:
            raise ValueError(f"scheduler must be one of {', '.join(SCHEDULERS)}")
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError("seed must lie between 0 and 2**63 - 1")
        if not 1 <= self.steps <= 1000:
            raise ValueError("steps must lie between 1 and 1000")
        if any(side is not None and (side < 8 or side % 8) for side in (self.width, self.height)):
            raise ValueError("width and height must be multiples of 8")

    @property
    def settings(self) -> tuple[int, float, int | None, int | None, str]:
        """What all requests of one group must share."""
        return (self.steps, self.guidance, self.width, self.height, self.scheduler)


def chunk_requests(requests: Sequence[DrawRequest], size: int = CHUNK_SIZE) -> list[list[DrawRequest]]:
    """The canonical grouping of a batch: consecutive requests of the same settings, at most `size` together.

    Floating-point sums depend in their last bits on how many images are drawn together, and rarely a pixel then rounds
    to its neighbour. So a batch that is resumed, or drawn again, makes the same groups from the *whole* list and
    redraws every group that is not complete; it never regroups what is left.
    """
    chunks: list[list[DrawRequest]] = []
    for request in requests:
        if chunks and len(chunks[-1]) < size and chunks[-1][0].settings == request.settings:
            chunks[-1].append(request)
        else:
            chunks.append([request])
    return chunks

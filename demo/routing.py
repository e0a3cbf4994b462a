"""The demo's U-Net before its run: taught at inner layers to find in the text what belongs to each place.

A U-Net whose only lesson is the noise takes tens of thousands of steps until its cross-attention fetches for each place
of the picture what the text says of that place. Here linear heads on three inner feature maps must say the rough picture
that the text spells out (see `text_encoder`), beside the usual loss, so that the attention is taught directly
(deep supervision: Lee et al. 2015, arXiv 1409.5185). The heads are thrown away. On two cores, 300 steps of 16 at
timesteps over 800 brought the loss to 0.33 with the heads; without them a U-Net 192 wide at its lowest level came to 0.37.
"""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.nn import functional

from demo.text_encoder import CELLS, MAX_LENGTH, REGIONS, CaptionReader
from demo.training_loop import Budget, Loop, train
from training.engine.batches import make_batch
from training.engine.group import Group
from training.engine.preparation import prepare
from training.engine.recipe import load_run

LEARNING_RATE = 1e-3
# How much the heads' error counts beside the denoiser's loss.
HEADS_WEIGHT = 2.0
# The positions that are read: the last ones, which follow the end of any caption of the world.
LAST = REGIONS * REGIONS


class PictureHeads(nn.Module):
    """Linear readers of the rough picture from three feature maps of the U-Net's lower half.

    The middle has one place a region, the first block up four, the second one place a cell.
    """

    def __init__(self, unet: UNet2DConditionModel, reader: CaptionReader) -> None:
        super().__init__()
        widths = unet.config["block_out_channels"]
        blocks = (unet.mid_block, unet.up_blocks[0], unet.up_blocks[1])
        self.sides = (CELLS, CELLS // 2, CELLS // 4)
        # The second block up ends with as many channels as the level below it has.
        self.heads = nn.ModuleList(
            nn.Conv2d(width, 4 * side * side, 1)
            for width, side in zip((widths[-1], widths[-1], widths[-2]), self.sides, strict=True)
        )
        self._reader = [reader.eval().requires_grad_(False)]
        self._features: dict[int, torch.Tensor] = {}
        for number, block in enumerate(blocks):
            block.register_forward_hook(lambda _, __, output, at=number: self._features.__setitem__(at, output))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """The heads' summed mean squared error on the last forward pass, whose text was [B, L, D]."""
        wanted = self._picture(text)
        errors = [
            functional.mse_loss(functional.pixel_shuffle(head(self._features[number]), side), wanted)
            for number, (head, side) in enumerate(zip(self.heads, self.sides, strict=True))
        ]
        return torch.stack(errors).sum()

    def _picture(self, text: torch.Tensor) -> torch.Tensor:
        """What the text spells out: [B, 4, 16, 16], premultiplied RGBA."""
        said = self._reader[0].region(text[:, MAX_LENGTH - LAST :])
        grid = said.view(-1, REGIONS, REGIONS, CELLS, CELLS, 4)
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(-1, 4, REGIONS * CELLS, REGIONS * CELLS)


def train_routing(folder: Path, reader: CaptionReader, budget: Budget, work: Path) -> UNet2DConditionModel:
    """Teach the U-Net of the recipe in `folder` with the heads, on that recipe's own draws, and return it."""
    run = prepare(folder, load_run(folder / "run.json"), lambda: False, Group())
    unet = run.pipeline.pipe.unet.train().requires_grad_(True)
    device = next(unet.parameters()).device
    torch.manual_seed(run.settings.seed)
    heads = PictureHeads(unet, reader.to(device)).to(device)

    def loss(step: int, progress: float) -> tuple[torch.Tensor, dict[str, float]]:
        draws = [run.mixture.draw(step, slot) for slot in range(run.settings.batch_size)]
        batch = make_batch(draws, run.encoded, run.diffusion, run.scaling_factor)
        said = unet(batch.noisy, batch.timesteps, encoder_hidden_states=batch.text).sample
        error = (said - batch.target).square().mean()
        seen = heads(batch.text)
        return error + HEADS_WEIGHT * seen, {"noise": round(error.item(), 4), "picture": round(seen.item(), 5)}

    parts: dict[str, nn.Module] = {"unet": unet, "heads": heads}
    train(
        Loop("routing", [*unet.parameters(), *heads.parameters()], parts, loss, learning_rate=LEARNING_RATE,
             decays=False),
        budget, work,
    )  # fmt: skip
    return unet.eval()

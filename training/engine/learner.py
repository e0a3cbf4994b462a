"""What learns: the trained parameters, their optimizer, the moving average, and one update of them."""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from training.engine.averages import decay_at
from training.engine.checkpoints import Checkpoint, Tensors, optimizer_tensors, restore_optimizer
from training.engine.denoisers import Denoiser, denoiser_of, is_transformer
from training.engine.draws import key_words
from training.engine.group import Group
from training.engine.optimizers import make_optimizer
from training.engine.recipe import LORA_TARGETS, RunRefused, RunSettings
from training.engine.sharding import local, shard_network, shared_out, whole
from training.engine.transparency import DECODER_PARTS, decoder_weights

# Of so many steps the ones without a finite loss are remembered.
SKIP_WINDOW = 40
# So many of them a run bears, in a row or of those remembered, before it goes back to a checkpoint.
MAX_SKIPPED = 5
MAX_SKIPPED_LATELY = SKIP_WINDOW // 2


@dataclass
class Learner:
    """A network in float32 with the parameters that are trained, by name; `step` counts the updates that were begun.

    `skipped_lately` are those of the last `SKIP_WINDOW` steps that were skipped, because losses were not finite;
    `rollbacks` counts how often it went back to a checkpoint because of that: each halves the rate. `updates` are those that
    were made, so that two states with as many have the same weights; `went_back_to` is what there were of them where it last
    went back to.
    `micro_batch` is how many images, or pairs, one forward pass takes, at most the settings' batch size: less where memory was short.
    """

    network: Any
    parameters: dict[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    ema: Tensors | None
    settings: RunSettings
    step: int = 0
    skipped_in_row: int = 0
    skipped_lately: list[int] = field(default_factory=list)
    rollbacks: int = 0
    updates: int = 0
    went_back_to: int | None = None
    micro_batch: int = 0
    final_loss: float | None = field(default=None)
    # The parent's denoiser, for an objective that compares with it.
    reference: Denoiser | None = None

    @property
    def must_go_back(self) -> bool:
        """Whether more steps were skipped than a run bears."""
        return self.skipped_in_row > MAX_SKIPPED or len(self.skipped_lately) > MAX_SKIPPED_LATELY


def make_learner(network: Any, settings: RunSettings, mesh: Any = None) -> Learner:
    """Prepare a frozen float32 network of the parent's for training: its U-Net in full, with LoRA or with DoRA, by
    `settings.method`, or its VAE's decoder. With a mesh its weights are left in shards."""
    reference = _make_reference(network, settings) if settings.objective == "dpo" else None
    if settings.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    if settings.is_low_rank:
        _add_lora(network, settings)
    else:
        for name, each in network.named_parameters():
            each.requires_grad_(not settings.trains_decoder or name.startswith(DECODER_PARTS))
    if mesh is not None:
        shard_network(network, mesh)
    parameters = {name: each for name, each in network.named_parameters() if each.requires_grad}
    optimizer = make_optimizer(parameters.values(), settings)
    ema = None
    if settings.ema_decay is not None:
        # Always float32: a half-precision average never moves.
        ema = {name: each.detach().clone().float() for name, each in parameters.items()}
    return Learner(network, parameters, optimizer, ema, settings, micro_batch=settings.batch_size, reference=reference)


def _make_reference(network: Any, settings: RunSettings) -> Denoiser:
    """The parent's denoiser as it was: a copy, or the same network with its low-rank updates switched off."""
    if not settings.is_low_rank:
        return denoiser_of(copy.deepcopy(network).requires_grad_(False).eval())
    inner = denoiser_of(network)

    def without_updates(*inputs: torch.Tensor) -> torch.Tensor:
        network.disable_adapters()
        try:
            return inner(*inputs)
        finally:
            network.enable_adapters()

    return without_updates


def _add_lora(unet: Any, settings: RunSettings) -> None:
    from peft import LoraConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_words("lora", settings.seed)[0] >> 1)
        rank = settings.lora_rank
        unet.add_adapter(
            LoraConfig(
                r=rank,
                lora_alpha=rank,
                init_lora_weights="gaussian",
                target_modules=list(LORA_TARGETS[type(unet).__name__]),
                use_dora=settings.method == "dora",
            )
        )
    for parameter in unet.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def learning_rate_at(settings: RunSettings, step: int) -> float:
    """The learning rate of the update with index `step` (from 0): linear warm-up, then constant, or a half cosine that
    reaches zero after the last update."""
    warmup = settings.warmup_steps
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - warmup) / max(1, settings.steps - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def learning_rate_of(learner: Learner) -> float:
    """The rate of the learner's next update: the schedule's, halved for every rollback."""
    return learning_rate_at(learner.settings, learner.step) * 0.5**learner.rollbacks


def apply_gradients(learner: Learner, loss: float) -> tuple[float, bool]:
    """One optimizer update from the accumulated gradients: (gradient norm before clipping, whether it was made).

    A loss or gradient that is not finite leaves weights, moments and average untouched. The step counts all the same,
    so the next one draws other examples.
    """
    norm = float(whole(_clip(learner)))
    if are_finite(loss, norm):
        learner.optimizer.step()
    _end_step(learner)
    return norm, settle_update(learner, loss, norm)


def begin_update(learner: Learner, loss: torch.Tensor) -> torch.Tensor:
    """The same update by AdamW, for whoever cannot wait for the loss: whether it is made, the device decides. Returns the
    gradient norm, on the device. Before anything else is done with the learner, but for gradients, `settle_update`
    completes it."""
    norm = _clip(learner)
    # As torch's GradScaler does: where this is 1, the fused update leaves weights, moments and their count of steps alone.
    learner.optimizer.found_inf = (~(torch.isfinite(loss) & torch.isfinite(norm))).float()
    try:
        learner.optimizer.step()
    finally:
        del learner.optimizer.found_inf
    _end_step(learner)
    return norm


def settle_update(learner: Learner, loss: float, norm: float) -> bool:
    """The average and the counts after an update with these figures; returns whether it was made."""
    updated = are_finite(loss, norm)
    if updated:
        _update_average(learner)
        learner.final_loss = loss
        learner.updates += 1
    learner.skipped_in_row = 0 if updated else learner.skipped_in_row + 1
    remembered = [each for each in learner.skipped_lately if each > learner.step - SKIP_WINDOW]
    learner.skipped_lately = remembered if updated else [*remembered, learner.step]
    return updated


def are_finite(loss: float, norm: float) -> bool:
    return math.isfinite(loss) and math.isfinite(norm)


def _clip(learner: Learner) -> torch.Tensor:
    """Sets the rate of the update besides."""
    for group in learner.optimizer.param_groups:
        group["lr"] = learning_rate_of(learner)
    return torch.nn.utils.clip_grad_norm_(list(learner.parameters.values()), learner.settings.max_grad_norm)


def _end_step(learner: Learner) -> None:
    learner.optimizer.zero_grad(set_to_none=True)
    learner.step += 1


def _update_average(learner: Learner) -> None:
    """ema <- d ema + (1 - d) weights, with d by `averages.decay_at`, after the update with index `step - 1`."""
    if learner.ema is None or learner.settings.ema_decay is None:
        return
    decay = decay_at(learner.settings.ema_decay, learner.step - 1)
    averages = [local(learner.ema[name]) for name in learner.parameters]
    torch._foreach_lerp_(averages, [local(each.detach()) for each in learner.parameters.values()], 1 - decay)


@contextmanager
def weights_for_use(learner: Learner) -> Iterator[Any]:
    """The network as it would be published: in eval mode, and with the moving average where the run keeps one."""
    live = None
    if learner.ema is not None:
        live = {name: each.detach().clone() for name, each in learner.parameters.items()}
        _copy_into(learner, learner.ema)
    learner.network.eval()
    try:
        # What is used once is not worth compiling for.
        with torch.compiler.set_stance("force_eager"):
            yield learner.network
    finally:
        learner.network.train()
        if live is not None:
            _copy_into(learner, live)


def _copy_into(learner: Learner, tensors: Tensors) -> None:
    with torch.no_grad():
        for name, parameter in learner.parameters.items():
            _fill(parameter, tensors[name])


def _fill(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Write a value into a tensor; a whole one also into shards."""
    local(tensor).copy_(local(shared_out(value, tensor)))


def gather_snapshot(learner: Learner, group: Group, **state: Any) -> Checkpoint | None:
    """The learner as a checkpoint, whole, for the main process; None for the others. Exchanges shards, one tensor at a
    time, so that no GPU ever holds all of it; what comes of them lies in memory of its own, else in the learner's."""
    if not group.is_sharded:
        return snapshot(learner, **state) if group.is_main else None
    checkpoint = snapshot(learner, **state)
    for tensors in (checkpoint.weights, checkpoint.optimizer, checkpoint.ema or {}):
        for name, tensor in tensors.items():
            gathered = whole(tensor)
            # What is in no shards would still be the learner's own.
            tensors[name] = gathered.to("cpu", copy=gathered is tensor) if group.is_main else torch.empty(0)
    return checkpoint if group.is_main else None


def snapshot(learner: Learner, **state: Any) -> Checkpoint:
    """The learner as a checkpoint; `state` adds small JSON values to its state.json."""
    names = {parameter: name for name, parameter in learner.parameters.items()}
    return Checkpoint(
        step=learner.step,
        weights={name: each.detach() for name, each in learner.parameters.items()},
        optimizer=optimizer_tensors(learner.optimizer, names),
        ema=None if learner.ema is None else dict(learner.ema),
        state={
            "skipped_in_row": learner.skipped_in_row,
            "skipped_lately": learner.skipped_lately,
            "rollbacks": learner.rollbacks,
            "updates": learner.updates,
            "went_back_to": learner.went_back_to,
            "micro_batch": learner.micro_batch,
            "final_loss": learner.final_loss,
            **state,
        },
    )


def restore(learner: Learner, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's state into a fresh learner. Raises `RunRefused` if it belongs to another network."""
    if set(checkpoint.weights) != set(learner.parameters) or (checkpoint.ema is None) != (learner.ema is None):
        raise RunRefused("The run's checkpoint belongs to another network or another method.")
    _copy_into(learner, checkpoint.weights)
    restore_optimizer(learner.optimizer, learner.parameters, checkpoint.optimizer)
    if learner.ema is not None and checkpoint.ema is not None:
        for name, tensor in checkpoint.ema.items():
            _fill(learner.ema[name], tensor)
    learner.step = checkpoint.step
    learner.skipped_in_row = int(checkpoint.state["skipped_in_row"])
    # Older checkpoints know none of these.
    learner.skipped_lately = [int(each) for each in checkpoint.state.get("skipped_lately", [])]
    learner.rollbacks = int(checkpoint.state.get("rollbacks", 0))
    learner.updates = updates_of(checkpoint.state)
    learner.went_back_to = checkpoint.state.get("went_back_to")
    learner.micro_batch = int(checkpoint.state.get("micro_batch", learner.settings.batch_size))
    learner.final_loss = checkpoint.state["final_loss"]


def updates_of(state: Mapping[str, Any]) -> int:
    """How many updates made a checkpoint's weights; older ones only say how many steps were tried."""
    return int(state.get("updates", state["step"]))


def low_rank_weights(learner: Learner) -> Tensors | None:
    """The low-rank updates on the CPU, named as diffusers and most other tools read them; None for full training."""
    if not learner.settings.is_low_rank:
        return None
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import get_peft_model_state_dict

    with weights_for_use(learner) as unet:
        named = get_peft_model_state_dict(unet)
        if not is_transformer(unet):
            # Transformers keep peft's own names, as diffusers' scripts for them do.
            named = convert_state_dict_to_diffusers(named)
        part = "transformer" if is_transformer(unet) else "unet"
        return {f"{part}.{name}": tensor.detach().cpu().clone() for name, tensor in named.items()}


def merged_weights(learner: Learner) -> Tensors:
    """The published weights by name, on the CPU: the U-Net's, with LoRA merged in, or those of the decoder. The learner
    cannot train afterwards."""
    with weights_for_use(learner) as network:
        if learner.settings.is_low_rank:
            network.fuse_lora()
            network.unload_lora()
        weights = {name: each.detach().cpu().contiguous().clone() for name, each in network.state_dict().items()}
        if learner.settings.is_low_rank:
            learner.ema = None
    return decoder_weights(weights) if learner.settings.trains_decoder else weights

"""Which noise levels a model's scheduler describes, and which settings of a run do not apply to them."""

from collections.abc import Mapping
from typing import Any

from generation.engine.families import FLOW_SCHEDULER
from generation.engine.requests import FLOW_SCHEDULERS
from training.engine.bands import Schedule
from training.engine.flows import FLOW_DEFAULTS, FlowSchedule
from training.engine.noise import NoiseSchedule
from training.engine.recipe import RunSettings


def read_schedule(config: Mapping[str, Any], image_tokens: int = 0, pipeline: str = "") -> Schedule:
    """The schedule of a `scheduler_config.json`. `image_tokens` are the patches of the model's image, which a scheduler
    that shifts by size needs, and `pipeline` is the class that draws. Raises `TableRefused` for one that cannot be trained on."""
    if config.get("_class_name") == FLOW_SCHEDULER:
        return FlowSchedule.from_config(config, image_tokens, pipeline)
    return NoiseSchedule.from_config(config, pipeline)


def misplaced_setting(values: Mapping[str, Any], schedule: Schedule) -> tuple[str, str]:
    """(key, sentence) of the first setting that does not apply to models of this kind; empty if there is none."""
    if schedule.is_flow:
        if values.get("min_snr_gamma") is not None:
            return (
                "min_snr_gamma",
                "Min-SNR weights are of models that remove noise; a flow-matching model has its own.",
            )
        if values.get("noise_offset"):
            return (
                "noise_offset",
                "A flow-matching model begins with pure noise; an offset would teach it another start.",
            )
        if values.get("sample_scheduler", FLOW_SCHEDULERS[0]) not in FLOW_SCHEDULERS:
            return "sample_scheduler", "A flow-matching model is drawn by its own scheduler alone."
        return "", ""
    for key, default in FLOW_DEFAULTS.items():
        if values.get(key, default) != default:
            label = key.replace("_", " ").capitalize()
            return key, f"{label} is of flow-matching models; this one removes noise of a schedule."
    # Those of a flow are points of a line, which may be as many as one likes.
    drawing_steps = values.get("sample_steps") or RunSettings.sample_steps
    # A recipe knows of no prompts yet; a run may have none.
    draws = values.get("sample_every") != 0 and values.get("sample_prompts", True)
    if draws and drawing_steps > schedule.num_timesteps:
        return (
            "sample_steps",
            f"A drawing of {drawing_steps} steps needs as many timesteps, and the model has {schedule.num_timesteps}: "
            "choose fewer steps of a drawing, or no drawings.",
        )
    return "", ""

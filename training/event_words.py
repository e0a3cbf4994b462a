"""What a trainer says of itself, in words."""

from typing import Any


class EventWords:
    """An event of a run, by the trainer's kinds: see `training.engine.run_files`."""

    kind: str
    step: int
    detail: dict[str, Any]

    @property
    def in_words(self) -> str:
        """The event for a person."""
        if self.kind == "kernels":
            return self._kernels
        words = {
            "started": "The trainer started.",
            "restarted": "The trainer started again from the beginning: no checkpoint had been saved yet.",
            "started_over": self._given_up,
            "resumed": f"The trainer went on from the checkpoint of step {self.step}.",
            "cached": "Latents and texts are cached.",
            "checkpoint": f"Checkpoint saved at step {self.step}.",
            "validation": f"Validated at step {self.step}{self._measured}.",
            "samples": f"Samples drawn at step {self.step}.",
            "quarantined": "A damaged checkpoint was set aside.",
            "skipped": f"Step {self.step} had no finite loss and was skipped.",
            "rolled_back": (
                f"Too many steps up to {self.step} had no finite loss: back to step {self.detail.get('to')}, "
                "with half the learning rate."
            ),
            "on_demand": (
                f"Latents and texts of {', '.join(self.detail.get('sources', []))} are made as they are drawn: those of all "
                f"{int(self.detail.get('images') or 0):,} images would take too long, or too much room, to make first."
            ),
            "cache_damaged": (
                f"The cache of latents and texts had damaged files ({len(self.detail.get('files', []))}): they were set aside, "
                "and what they held was made again."
            ),
            "no_room": (
                f"The machine's memory has no room for a copy of a checkpoint ({self._gigabytes('needed')} with what a step "
                f"takes, {self._gigabytes('free')} free): the training waits while checkpoints are written."
            ),
            "smaller_batch": (
                f"Memory was short at step {self.step}: a pass takes {self.detail.get('images')} images from here on, "
                "and a step more passes."
            ),
            "unrepeatable": (
                f"This device has no way to compute {self.detail.get('operation')} that gives the same bits each time: a run that "
                "is resumed or repeated may end in slightly other weights."
            ),
            "overfitting": (
                "Overfitting: the loss on images that it does not train on stays more than 5% above that of step "
                f"{self.detail.get('best_step')}. Fewer steps may make the better version."
            ),
            "explosion": (
                f"Explosion: for {self.detail.get('steps')} steps in a row the {self._figure} was more than 100 times its "
                f"median of the steps before, at last {float(self.detail.get('times') or 0):,.0f} times. The training goes "
                "on: look at its curves."
            ),
            "collapse": self._collapse,
            "tracked": f"{self.detail.get('tracker')} has this run's curves.",
            "tracker_failed": (
                f"{self.detail.get('tracker')} gets no curves of this run from here on: {self.detail.get('why')}. "
                "The training goes on; its log may say more."
            ),
            "stopped": f"Stopped at step {self.step}, with all progress saved.",
            "finished": f"Finished after {self.step} steps.",
            "failed": "The trainer gave up.",
        }
        return words.get(self.kind, f"{self.kind} at step {self.step}")

    def _gigabytes(self, key: str) -> str:
        return f"{int(self.detail.get(key) or 0) / 1e9:.1f} GB"

    @property
    def _figure(self) -> str:
        return "gradient norm" if self.detail.get("figure") == "grad_norm" else "loss"

    @property
    def _collapse(self) -> str:
        share = f"{100 * float(self.detail.get('share') or 0):.0f}%"
        if self.detail.get("of") == "seeds":
            return (
                f"Drawings of one prompt with different seeds differ at step {self.step} by {share} of what the parent's do: "
                "look whether each prompt still has more than one image."
            )
        # Of a run from before, which drew each prompt once.
        return (
            f"The drawings of step {self.step} differ from each other by {share} of what the parent's do: look whether they "
            "still show their prompts."
        )

    @property
    def _kernels(self) -> str:
        """Which way of computing a step was the fastest, and what each way took."""

        def named(way: str) -> str:
            return (way or "plain").replace("_", " ").replace("+", " and ")

        took = [f"{named(way)} {seconds:.3f} s" for way, seconds in self.detail.get("seconds", {}).items()]
        took += [f"{named(way)} failed" for way in self.detail.get("failed", {})]
        return f"Steps are computed {named('+'.join(self.detail.get('way', [])))}; tried: {', '.join(took)}."

    @property
    def _given_up(self) -> str:
        """Who started the run over, and what was saved until then."""
        saved = self.detail.get("saved")
        given_up = "" if saved is None else f" and gave up the checkpoint of step {saved}"
        return f"{self.detail.get('by', 'Somebody')} started the run over from the beginning{given_up}."

    @property
    def _measured(self) -> str:
        """What a validation found: ": loss 0.0412", and of a decoder how well it says alpha and colour too."""
        words = {"loss": "loss {:.4f}", "alpha_iou": "alpha IoU {:.3f}", "psnr_on_white": "PSNR on white {:.1f} dB"}
        found = [(text, self.detail.get(key)) for key, text in words.items()]
        said = ", ".join(text.format(value) for text, value in found if isinstance(value, float))
        return f": {said}" if said else ""

"""AdamW whose moments lie in the memory of the CPU, and visit the device for the moment of a step: 8 bytes a weight less there.

The arithmetic stays that of the device, so that offloading changes no bit of a result.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

MOMENTS = ("exp_avg", "exp_avg_sq")


class OffloadedAdamW(torch.optim.AdamW):
    """AdamW that takes one weight after the other, with its moments."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Step on every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step_on(weight, group)

    def _step_on(self, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            # As AdamW itself begins: the fused kernel wants the number of steps on the device.
            state["step"] = torch.zeros((), dtype=torch.float32, device=weight.device)
            for name in MOMENTS:
                state[name] = _on_cpu(torch.zeros_like(weight, device="cpu"), weight.device)
        # All of it is in the order of the device's stream: moments go there, are changed, and come back before the next step.
        visiting = [state[name].to(weight.device, non_blocking=True) for name in MOMENTS]
        adamw(
            [weight],
            [weight.grad],  # type: ignore[list-item]
            [visiting[0]],
            [visiting[1]],
            [],
            [state["step"]],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        for name, moment in zip(MOMENTS, visiting, strict=True):
            if moment is not state[name]:
                state[name].copy_(moment, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """The state, all of which has come back from the device."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state, whose moments never lie on the device together."""
        stored = state_dict["state"]
        rest = {place: {name: value for name, value in one.items() if name not in MOMENTS} for place, one in stored.items()}
        super().load_state_dict({**state_dict, "state": rest})
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for place, one in stored.items():
            for name in MOMENTS:
                self.state[weights[place]][name] = _on_cpu(one[name].clone(), weights[place].device)


def _on_cpu(moment: Tensor, device: torch.device) -> Tensor:
    """A tensor in memory of the CPU that a GPU reads and writes on its own."""
    moment = moment.cpu()
    return moment.pin_memory() if device.type == "cuda" else moment

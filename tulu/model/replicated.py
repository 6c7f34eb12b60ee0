"""Training without sharding: one process, or several that each hold the whole model and add up their gradients once a step."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tulu.model import state_files
from tulu.model.masters import HALF, LossScale, Masters, clip, parameters_of, steps_on
from tulu.model.processes import Processes


class Replicated:
    """A module and its optimizer, whole in every process."""

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, processes: Processes, precision: str) -> None:
        self.module, self.optimizer, self.processes = module, optimizer, processes
        self.masters = Masters(module, parameters_of(optimizer), HALF.get(precision))
        self.scale = LossScale(HALF.get(precision))
        steps_on(optimizer, self.masters)
        places = {parameter: name for name, parameter in module.named_parameters()}
        self._named = {places[parameter]: master for parameter, master in self.masters.pairs}

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradients of a micro-batch."""
        (loss * self.scale.factor if self.scale.moves else loss).backward()

    def gradient_norm(self) -> Tensor:
        """The norm of the gradients of all processes together, which every process holds from now on."""
        if self.processes.world > 1:
            self._add_up_gradients()
        gradients = [master.grad for master in self.masters.with_gradients() if master.grad is not None]
        if self.scale.moves:
            for gradient in gradients:
                gradient.div_(self.scale.factor)
        return torch.nn.utils.get_total_norm(gradients)

    def _add_up_gradients(self) -> None:
        """A weight that no process used has no gradient, as in one process; where only some used it, the others add nothing."""
        masters = list(self.masters)
        device = self.processes.device
        used = torch.tensor([master.grad is not None for master in masters], dtype=torch.int32, device=device)
        shared = [master for master, flag in zip(masters, self.processes.most(used).tolist(), strict=True) if flag]
        for master in shared:
            if master.grad is None:
                master.grad = torch.zeros_like(master)
        self.processes.add_up_all([master.grad for master in shared if master.grad is not None])

    def step(self, clip_norms: Sequence[float | None], norm: Tensor) -> None:
        """Clip the gradients of each group of parameters to a norm, and step; `norm` is that of all gradients."""
        clip(self.optimizer, clip_norms, norm, total=lambda own: own)
        self.optimizer.step()
        self.masters.publish()

    def clear(self) -> None:
        """Forget the gradients."""
        self.masters.clear()

    def save(self, folder: Path) -> None:
        """Write masters and optimizer once, and the random states of every process."""
        if self.processes.is_main:
            state_files.write(self._named, folder / "pytorch_model.bin")
            state_files.write({"state": self.optimizer.state_dict(), "scale": self.scale.state()}, folder / "optimizer.bin")
        state_files.write_random_states(folder, self.processes.rank)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        weights = folder / "pytorch_model.bin"
        state_files.fill(self._named, state_files.read(weights), weights)
        self.masters.publish()
        stored = state_files.read(folder / "optimizer.bin")
        self.optimizer.load_state_dict(stored["state"])
        self.scale.load(stored["scale"])
        state_files.read_random_states(folder, self.processes.rank)

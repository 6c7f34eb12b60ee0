"""vLLM's own way of taking new weights, fed with tensors that are in its process already; imported only where vLLM runs."""

from dataclasses import dataclass, field
from typing import Any

import torch
from vllm.distributed.weight_transfer import WeightTransferEngine, WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

BACKEND = "tulu"
"""The name under which WeightTransferConfig finds this transfer."""


@dataclass
class Nothing(WeightTransferInitInfo):
    """There is no connection to make."""


@dataclass
class Tensors(WeightTransferUpdateInfo):
    """Weights under their published names."""

    weights: list[tuple[str, torch.Tensor]] = field(default_factory=list)


class InProcessTransfer(WeightTransferEngine[Nothing, Tensors]):
    """Loads layer by layer, because the CPU backend prepacks weights and frees the parameters they came from."""

    init_info_cls = Nothing
    update_info_cls = Tensors

    def init_transfer_engine(self, init_info: Nothing) -> None:
        """Nothing to do: the tensors come with the call."""

    def start_weight_update(self) -> None:
        """Give every layer back the parameters that a checkpoint loads into."""
        if self.device.type == "cpu":
            forget_expert_kernels(self.model)
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: Tensors) -> None:
        """Load a whole set. Raises ValueError if a parameter of the model is not among it."""
        wanted = {name for name, _ in self.model.named_parameters()}
        model: Any = self.model
        loaded = model.load_weights(iter(update_info.weights))
        if loaded is not None and wanted - loaded:
            raise ValueError(f"no weight was loaded into {min(wanted - loaded)}")

    def finish_weight_update(self) -> None:
        """Pack what was loaded for computing, in the memory that it had."""
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Nothing to release."""


def forget_expert_kernels(model: torch.nn.Module) -> None:
    """Have the CPU backend pack the experts again: vLLM 0.32 does so only where it finds no kernel, and else computes wrongly."""
    for module in model.modules():
        if isinstance(module, UnquantizedFusedMoEMethod):
            module.moe_kernel = None


def register() -> str:
    """Make the transfer known to vLLM; returns the name of its backend."""
    WeightTransferEngineFactory.register_engine(BACKEND, InProcessTransfer)
    return BACKEND

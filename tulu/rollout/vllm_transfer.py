"""vLLM's own mechanism for new weights, fed with tensors that are already in its process.

This file imports vLLM, so only the process that runs vLLM imports it.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from vllm.distributed.weight_transfer import WeightTransferEngine, WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

BACKEND = "tulu"
"""The name by which WeightTransferConfig finds this transfer."""


@dataclass
class NoConnection(WeightTransferInitInfo):
    """What vLLM needs to connect to the sender: nothing, because the tensors are in its process."""


@dataclass
class NewWeights(WeightTransferUpdateInfo):
    """Weights, each with its name in a published checkpoint: a whole set, or a part of one that more parts follow."""

    weights: list[tuple[str, torch.Tensor]] = field(default_factory=list)


class InProcessTransfer(WeightTransferEngine[NoConnection, NewWeights]):
    """Loads layer by layer, because vLLM's CPU backend repacks weights and frees the parameters that they came from."""

    init_info_cls = NoConnection
    update_info_cls = NewWeights
    missing: frozenset[str] = frozenset()
    """The model's parameters that nothing was loaded into since the update began."""

    def init_transfer_engine(self, init_info: NoConnection) -> None:
        """Do nothing: the tensors come with the call."""

    def start_weight_update(self) -> None:
        """Give every layer the parameters again that a checkpoint is loaded into."""
        if self.device.type == "cpu":
            forget_expert_kernels(self.model)
        self.missing = frozenset(name for name, _ in self.model.named_parameters())
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: NewWeights) -> None:
        """Load these weights. vLLM may keep them until the rest of their layer has come, so their memory must not be reused."""
        model: Any = self.model
        loaded = model.load_weights(iter(update_info.weights))
        # Not every model of vLLM says what it loaded.
        self.missing = frozenset() if loaded is None else self.missing - loaded

    def finish_weight_update(self) -> None:
        """Prepare the loaded weights for computing, in the memory that the former weights had.

        Raises ValueError if nothing was loaded into a parameter of the model.
        """
        if self.missing:
            raise ValueError(f"no weight was loaded into {min(self.missing)}")
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Do nothing: there is nothing to release."""


def forget_expert_kernels(model: torch.nn.Module) -> None:
    """Make vLLM's CPU backend pack the experts of a mixture again.

    vLLM 0.32 packs them only if a layer has no kernel yet; otherwise it goes on with the old experts and computes wrongly.
    """
    for module in model.modules():
        if isinstance(module, UnquantizedFusedMoEMethod):
            module.moe_kernel = None


def register() -> str:
    """Register the transfer with vLLM and return the name of its backend."""
    WeightTransferEngineFactory.register_engine(BACKEND, InProcessTransfer)
    return BACKEND

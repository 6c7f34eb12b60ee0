"""Memory of a GPU that two processes on the same GPU share, by CUDA's own means (IPC).

Only a GPU can run this file. What is around it, the packing, the digests and the order of calls, is the same for every way that
weights take and is tested without one.
"""

import pickle
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.multiprocessing.reductions import rebuild_cuda_tensor, reduce_tensor


def card_of(device: torch.device) -> str:
    """The name of a GPU that all processes of the machine have for it; "" if the device is none."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""


def handles_of(memory: Tensor) -> dict[str, bytes]:
    """What another process needs to open this memory, under the name of its GPU.

    Each of these is for one opening: torch counts openings to know when the memory is free.
    """
    return {card_of(memory.device): pickle.dumps(reduce_tensor(memory)[1])}


def opened(handles: Mapping[str, bytes], device: torch.device) -> Tensor:
    """The memory behind a handle. Raises KeyError if none of them is of this process's GPU."""
    arguments = list(pickle.loads(handles[card_of(device)]))
    # The sender's number of the GPU; this process may see others, or count them otherwise.
    arguments[6] = torch.cuda.current_device() if device.index is None else device.index
    memory: Tensor = rebuild_cuda_tensor(*arguments)
    return memory

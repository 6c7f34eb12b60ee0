"""What is added to vLLM's worker, in the process that computes: it takes weights wherever they lie, and ends with its parent.

vLLM imports this file by its name in every worker of an engine, before the worker makes its weight transfer. Only a process
that runs vLLM imports it.
"""

import os
import pickle
import signal
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from safetensors.torch import save_file
from threadpoolctl import threadpool_limits
from vllm.utils.nccl import unpinned_nccl_env

from tulu.config.processes import end_with_the_parent
from tulu.rollout.broadcast import Broken, Joining
from tulu.rollout.card_memory import card_of
from tulu.rollout.receiver import Receiver, digests
from tulu.rollout.vllm_transfer import register
from tulu.rollout.vllm_worker import adapter_request

register()


class TuluExtension:
    """Methods that vLLM's `collective_rpc` calls by name. Arguments and results are plain, because vLLM packs nothing else."""

    def tulu_begin(self, threads: int) -> None:
        """A new set of weights is about to come; a CPU loads them with so many threads."""
        self.__dict__["tulu_threads"] = threads
        self.__dict__["tulu_loaded"] = set()
        self.__dict__["tulu_apart"] = {}

    def tulu_take(self, packed: bytes, apart: bool = False) -> dict[str, Any]:
        """Load the tensors of a piece, if all are what was sent; those of adapters, which come `apart`, are kept at first.

        Returns the digest of each tensor as it stands in this process. Where one is not what was sent, nothing is loaded. `free`
        are the files that vLLM is done with: of a layer of which a part is still to come, it keeps the tensors where they are.
        """
        place, layout = pickle.loads(packed)
        worker: Any = self
        receiver, loaded = self._tulu_receiver(), worker.tulu_loaded
        began = time.monotonic()
        try:
            memory = receiver.memory(place, layout)
        except Broken as error:
            return {"digests": {}, "missed": str(error), "free": [], "verify": 0.0, "load": 0.0}
        found = digests(memory, layout)
        verified = time.monotonic()
        # A piece comes twice where another worker of this engine did not get it. vLLM counts what it loads, and would miscount.
        if all(found[name] == info.digest for name, info in layout.infos.items()) and not loaded >= layout.infos.keys():
            if apart:
                worker.tulu_apart |= {name: tensor.cpu().clone() for name, tensor in layout.tensors(memory)}
            else:
                # vLLM switches torch's own setting off. Most of the time goes into the layout that oneDNN multiplies with.
                with threadpool_limits(worker.tulu_threads, user_api="openmp") if memory.is_cpu else nullcontext():
                    worker.update_weights({"weights": layout.tensors(memory)})
            loaded |= layout.infos.keys()
        del memory
        times = {"verify": verified - began, "load": time.monotonic() - verified}
        return {"digests": found, "missed": "", "free": receiver.free(), **times}

    def tulu_adopt(self, config: str) -> None:
        """Compute with the adapters that came, in place of those before. vLLM reads adapters from files alone."""
        worker: Any = self
        with TemporaryDirectory(prefix="tulu-adapter-") as folder:
            save_file(worker.tulu_apart, os.path.join(folder, "adapter_model.safetensors"))
            with open(os.path.join(folder, "adapter_config.json"), "w", encoding="utf-8") as file:
                file.write(config)
            worker.add_lora(adapter_request(folder))
        if worker.list_loras() != {1}:
            raise ValueError("vLLM did not take the adapter")
        self.__dict__["tulu_apart"] = {}

    def tulu_meet(self, packed: bytes) -> str:
        """Join the group in which the learner sends weights; returns why that failed, or ""."""
        joining: Joining = pickle.loads(packed)
        worker: Any = self
        try:
            # vLLM pins settings of NCCL in its workers; a process that has others would wait for ever.
            with unpinned_nccl_env():
                self._tulu_receiver().join(replace(joining, rank=joining.rank + worker.rank))
        except Broken as error:
            return str(error)
        return ""

    def tulu_card(self) -> str:
        """The name of the GPU that this process computes on; "" without one."""
        return card_of(self._tulu_receiver().device)

    def _tulu_receiver(self) -> Receiver:
        worker: Any = self
        if "tulu_receiver" not in self.__dict__:
            self.__dict__["tulu_receiver"] = Receiver(worker.device)
        receiver: Receiver = worker.tulu_receiver
        return receiver

    def tulu_end_with(self, owner: int) -> None:
        """End this process as soon as the process `owner` ends, however that is killed; so does the process between the two."""
        between = os.getppid()
        end_with_the_parent()
        if os.getppid() != between:  # It died before the line above.
            os.kill(os.getpid(), signal.SIGKILL)
        if between == owner:
            return
        # With tensor parallelism the workers are children of vLLM's engine core, and that is the child of the owner. One that was
        # forked is the child of a fork server, which ends with the owner.
        threading.Thread(target=_end_with, args=(owner, between), name="tulu-end-with", daemon=True).start()


def _end_with(owner: int, between: int) -> None:
    above, beside = psutil.Process(owner), psutil.Process(between)
    while above.is_running() and above.status() != psutil.STATUS_ZOMBIE:
        time.sleep(1)
    if beside.is_running():
        beside.kill()
    os.kill(os.getpid(), signal.SIGKILL)

"""What is added to vLLM's worker, in the process that computes: it takes weights from shared memory, and ends with its parent.

vLLM imports this file by its name in every worker of an engine, before the worker makes its weight transfer. Only a process
that runs vLLM imports it.
"""

import ctypes
import os
import pickle
import signal
import threading
import time
import weakref
from typing import Any

import psutil

from tulu.rollout.sync import Layout, mapped
from tulu.rollout.vllm_transfer import register

PARENT_DEATH = 1
"""PR_SET_PDEATHSIG of Linux."""

register()


class TuluExtension:
    """Methods that vLLM's `collective_rpc` calls by name. Arguments and results are plain, because vLLM packs nothing else."""

    def tulu_take(self, path: str, packed_layout: bytes) -> dict[str, Any]:
        """Load the tensors of a parcel from a file in memory, if all of them are what was sent.

        Returns the digest of each tensor as it stands in this process. Where one is not what was sent, nothing is loaded. `free`
        are the files that vLLM is done with: of a layer of which a part is still to come, it keeps the tensors where they are.
        """
        layout: Layout = pickle.loads(packed_layout)
        began = time.monotonic()
        memory = mapped(path, layout.size)
        in_use = self.__dict__.setdefault("tulu_in_use", {})
        in_use[path] = weakref.ref(memory)
        digests = layout.digests(memory)
        verified = time.monotonic()
        if all(digests[name] == info.digest for name, info in layout.infos.items()):
            worker: Any = self
            worker.update_weights({"weights": layout.tensors(memory)})
        del memory
        free = [each for each, reference in in_use.items() if reference() is None]
        for each in free:
            del in_use[each]
        return {"digests": digests, "free": free, "verify": verified - began, "load": time.monotonic() - verified}

    def tulu_end_with(self, owner: int) -> None:
        """End this process as soon as the process `owner` ends, however that is killed; so does the process between the two."""
        between = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(PARENT_DEATH, signal.SIGKILL)
        if between == owner:
            if os.getppid() != owner:
                os.kill(os.getpid(), signal.SIGKILL)
            return
        # With tensor parallelism the workers are children of vLLM's engine core, and that is the child of the owner.
        threading.Thread(target=_end_with, args=(owner, between), name="tulu-end-with", daemon=True).start()


def _end_with(owner: int, between: int) -> None:
    above, beside = psutil.Process(owner), psutil.Process(between)
    while above.is_running() and above.status() != psutil.STATUS_ZOMBIE:
        time.sleep(1)
    if beside.is_running():
        beside.kill()
    os.kill(os.getpid(), signal.SIGKILL)

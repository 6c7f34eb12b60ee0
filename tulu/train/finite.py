"""Numbers of a written model that are not finite, and how a message names tensors."""

from collections.abc import Sequence
from pathlib import Path


def not_finite_tensors(folder: Path) -> list[str]:
    """The tensors in the safetensors files of a folder that hold a NaN or an infinity, by name."""
    import torch
    from safetensors import safe_open

    names = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names += [name for name in tensors.keys() if not torch.isfinite(tensors.get_tensor(name)).all()]  # noqa: SIM118
    return names


def named_tensors(names: Sequence[str]) -> str:
    """So many tensors in words, the first ones by name."""
    return f"{len(names)} tensors, such as {', '.join(names[:3])}" if len(names) > 1 else names[0]


def advice(kept: Path | None) -> str:
    """What is left of a run whose numbers are no longer finite, its last checkpoint or nothing, and what a person can do."""
    left = f"{kept.name} is the last checkpoint and is whole" if kept else "No checkpoint was written yet"
    return (
        f"{left}; no model was written. Where single rows are named, look at them; where all are, the weights have grown too "
        "large: lower the learning rate or set clip_norm. A changed recipe needs --fresh or another name."
    )

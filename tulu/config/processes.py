"""What torchrun and accelerate tell a process about itself, known before the processes are connected."""

import os

from tulu.errors import RecipeError


def world_size() -> int:
    """How many processes torchrun or accelerate started; 1 where neither did. Raises RecipeError."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdigit() or int(text) < 1:
        raise RecipeError(f"WORLD_SIZE={text!r}: should be a whole number of processes; unset it or launch with torchrun")
    return int(text)


def is_main_process() -> bool:
    """Whether this process speaks for all: the one of rank 0, or the only one."""
    rank = os.environ.get("RANK", "0")
    return not rank.isdigit() or int(rank) == 0

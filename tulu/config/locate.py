"""Checks of the names of data sets and models that need not read what the names stand for.

Each `..._problem` returns what is wrong with a name, or None.
"""

import re
from glob import has_magic, iglob
from importlib.util import find_spec
from pathlib import Path

from tulu.config.model_folder import causal_problem, folder_problem, missing_folder, quantised_problem, read_config
from tulu.config.tasks import GENERATED
from tulu.config.tasksets import REASONING_GYM, VERIFIERS, taskset_problem
from tulu.errors import DataError, nearest

DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
"""The kinds of data files that every command reads, each also as .gz."""
CLASSIFIER = "ForSequenceClassification"
"""How the name of an architecture with a scalar head ends."""
HUB_NAME = re.compile(r"^[\w.-]+(/[\w.-]+)?$")


def refuse_empty(path: Path, name: str) -> None:
    """DataError where a data set of this name is a file without a byte."""
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{name}: the file is empty; point data at one that holds rows")


def source_problem(name: str) -> str | None:
    """What is wrong with the name of a data set."""
    if Path(name).expanduser().exists():
        return None
    if has_magic(name):
        matched = any(iglob(str(Path(name).expanduser()), recursive=True))
        return None if matched else f"no file matches this pattern (looked from {Path.cwd()}); correct it"
    task, colon, split = name.partition(":")
    if colon and task.isidentifier():
        return _generated_problem(task, split)
    if is_local_data(name):
        return f"no such file or folder (looked from {Path.cwd()}); correct the path"
    return None if HUB_NAME.match(name) else "is neither a file here nor a name on the hub (OWNER/NAME); correct it"


def _generated_problem(task: str, split: str) -> str | None:
    if task == REASONING_GYM:
        missing = find_spec(REASONING_GYM) is None
        return "reasoning-gym is not installed: pip install 'tulu[environments]'" if missing else None
    if task == VERIFIERS:
        return taskset_problem(split)
    if task not in GENERATED:
        return f"unknown generated task {task}{nearest(task, GENERATED)}; known are {', '.join(GENERATED)}"
    splits = GENERATED[task]
    return None if split in splits else f"{task} has no split {split!r}{nearest(split, splits)}; it has {', '.join(splits)}"


def data_suffix(name: str) -> str:
    """The suffix that says how a data file is read, in lower case: .jsonl of rows.jsonl.gz."""
    return Path(name.lower().removesuffix(".gz")).suffix


def is_local_data(name: str) -> bool:
    """Whether the name of a data set can only be a path: it ends as a data file does, or looks like a path."""
    return data_suffix(name) in (*DATA_SUFFIXES, ".npy") or _looks_local(name)


def _looks_local(name: str) -> bool:
    """Whether a name opens like a path, or has more slashes than a name on the hub."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def model_problem(name: str) -> str | None:
    """What is wrong with the name of a model, or with the folder that it names."""
    path = Path(name)
    if path.is_dir():
        return folder_problem(path)
    if path.exists():
        return "is a file; name the folder that holds config.json"
    if _looks_local(name):
        return missing_folder(name)
    return None if HUB_NAME.match(name) else "is neither a folder here nor a name on the hub (OWNER/NAME); correct it"


def start_problem(name: str) -> str | None:
    """What is wrong with a model that is to be trained."""
    if (problem := model_problem(name)) is not None:
        return problem
    config = read_config(Path(name)) if Path(name).is_dir() else None
    return None if config is None else quantised_problem(config) or causal_problem(config)


def reward_model_problem(name: str) -> str | None:
    """What is wrong with the name of a reward model: the folder may hold another kind of model."""
    if (problem := model_problem(name)) is not None:
        return problem
    kind = _architecture(name)
    if kind is None or kind.endswith(CLASSIFIER):
        return None
    return f"is no reward model: its config.json says {kind}; name one that `tulu rm` trained (.../rm/model)"


def policy_problem(name: str) -> str | None:
    """Why a model cannot answer: among others, transformers would give a reward model an output head of random weights."""
    if (problem := model_problem(name)) is not None:
        return problem
    if (_architecture(name) or "").endswith(CLASSIFIER):
        return "is a reward model, which scores answers and gives none; name the model that is to answer"
    return None


def model_label(name: str) -> str:
    """A model's name in folders and titles: its whole path, because every trained model lies in a folder called model."""
    return name.strip("/").replace("/", "-")


def _architecture(name: str) -> str | None:
    """The first architecture that a folder's config.json names; None where there is no such file."""
    if not (Path(name) / "config.json").is_file():
        return None
    config = read_config(Path(name))
    return "nothing that can be read" if config is None else str((config.get("architectures") or ["nothing"])[0])

"""Tasks of lm-eval by the folder of its package that they lie in, so that its ten thousand others need not be read.

A suite writes FOLDER/TASK, such as truthfulqa/truthfulqa_mc2: the folder below lm_eval/tasks, and the name of a task or a group.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tulu.config.suite_needs import harness_folder
from tulu.errors import DataError, RecipeError


class _Loader(yaml.SafeLoader):
    """Reads lm-eval's YAML without the functions that it names."""


_Loader.add_multi_constructor("!", lambda _loader, _tag, _node: None)


def config_of(name: str) -> Mapping[str, Any]:
    """What lm-eval's YAML says of a task or a group, without what it includes. Raises RecipeError where there is none."""
    folder, task = harness_folder(name)
    for file in sorted(folder.rglob("*.yaml")):
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
        if isinstance(content, dict) and task in (content.get("task"), content.get("group")):
            return content
    raise RecipeError(f"{name}: no task or group of this name in lm-eval's folder {folder.name}")


def examples_of(name: str) -> list[dict[str, Any]]:
    """The solved examples that lm-eval's YAML of a task holds. Raises DataError where it holds none."""
    samples = (config_of(name).get("fewshot_config") or {}).get("samples")
    if not isinstance(samples, list) or not samples:
        raise DataError(
            f"{name}: lm-eval's task writes no solved examples (fewshot_config.samples); give shots.rows or shots.data"
        )
    return samples


def specs(name: str, local: Path | None) -> list[str | dict[str, Any]]:
    """What lm-eval is asked to load: its task as it is, or with local files in place of its data sets.

    A local file serves every split of a task. A folder holds TASK.jsonl or TASK.SPLIT.jsonl, for each task of a group.
    """
    _, task = harness_folder(name)
    if local is None:
        return [task]
    by_task: dict[str, dict[str, Path]] = {}
    if local.is_file():
        by_task[task] = {"": local}
    else:
        for file in sorted(local.glob("*.jsonl")):
            member, _, part = file.stem.partition(".")
            by_task.setdefault(member, {})[part] = file
    if not by_task:
        raise DataError(f"{local}: holds no TASK.jsonl; name each file after its task of lm-eval, such as {task}.jsonl")
    # Only the members of a group take what they have in place of what their own YAML says.
    return [{"group": "local", "task": [_local_spec(member, files) for member, files in by_task.items()]}]


def _local_spec(task: str, files: Mapping[str, Path]) -> dict[str, Any]:
    splits = ("train", "validation", "test", "dev")
    data = {split: str(files.get(split, files.get(""))) for split in splits if split in files or "" in files}
    return {"task": task, "dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": data}}

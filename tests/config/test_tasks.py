"""The task table agrees with the verifiers and the generated data that it names."""

import pytest

from tulu.config.locate import source_problem
from tulu.config.tasks import GENERATED, TASKS
from tulu.data.sources import load_rows
from tulu.verifiers.registry import check_name


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_rows_and_a_verifier_that_exist(name: str) -> None:
    task = TASKS[name]
    assert source_problem(task.source.name) is None
    if task.verifier is not None:
        check_name(task.verifier)


@pytest.mark.parametrize(("task", "split"), [(task, split) for task, splits in GENERATED.items() for split in splits])
def test_every_generated_split_has_the_stated_number_of_rows(task: str, split: str) -> None:
    source = TASKS[task].source.model_copy(update={"name": f"{task}:{split}", "count": None, "fraction": 1.0})
    assert len(load_rows(source)) == GENERATED[task][split]

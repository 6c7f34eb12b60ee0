"""What a process knows of itself."""

from typing import Any

import pytest
import torch

from tulu.model.processes import Processes, numbered


def test_a_gpu_goes_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate tells one process alone "cuda"; torch.cuda.set_device, which the thread of rows calls, refuses that."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert numbered(torch.device("cuda")) == torch.device("cuda", 3)
    assert numbered(torch.device("cuda", 1)) == torch.device("cuda", 1)
    assert numbered(torch.device("cpu")) == torch.device("cpu")


def test_the_device_of_a_process_has_a_number_where_there_are_several(monkeypatch: pytest.MonkeyPatch) -> None:
    class State:
        process_index, num_processes, is_main_process = 0, 1, True
        device = torch.device("cuda")

        def __init__(self, **options: Any) -> None:
            pass

    monkeypatch.setattr("accelerate.PartialState", State)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert Processes().device == torch.device("cuda", 0)

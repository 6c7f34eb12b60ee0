"""The ledger counts every run once, however it ended, and touches none of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tulu.config.footprint import Facility
from tulu.errors import DataError
from tulu.train.ledger import PHASES, by_purpose, by_time, read_entry, read_ledger

PLAIN = Facility(2.0, 0.5, 0.0, 1.0, "")


def stage(folder: Path, manifest: Any = None, state: Any = None, metrics: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest or {}))
    if state is not None:
        (folder / "checkpoints" / "step-000009").mkdir(parents=True)
        (folder / "checkpoints" / "step-000009" / "state.json").write_text(json.dumps(state))
    if metrics:
        (folder / "metrics.jsonl").write_text(metrics)
    return folder


def energy(gpu: float, cpu: float = 0.0) -> dict[str, Any]:
    return {"kwh": gpu + cpu, "gpu_kwh": gpu, "cpu_kwh": cpu, "ram_kwh": 0.0, "estimated": []}


def gpus(count: int) -> dict[str, Any]:
    return {"accelerators": ["H100"] * count}


def test_a_run_that_was_killed_counts_by_its_last_checkpoint(tmp_path: Path) -> None:
    found = read_entry(stage(tmp_path / "a" / "sft", {"hardware": gpus(8)}, {"energy": energy(4.0, 1.0), "seconds": 7200}))
    assert (found.state, found.kwh, found.gpu_hours) == ("unfinished", 5.0, 16.0)


def test_of_manifest_and_checkpoint_the_one_that_knows_more_counts(tmp_path: Path) -> None:
    found = read_entry(stage(tmp_path / "a" / "sft", {"energy": energy(6.0), "finished": True}, {"energy": energy(4.0)}))
    assert (found.state, found.kwh) == ("finished", 6.0)


def test_damaged_files_are_counted_as_not_measured(tmp_path: Path) -> None:
    kinds = ["", "{", "[]", '{"energy": 3}', '{"energy": {"gpu_kwh": "x"}}', '{"energy": {"kwh": NaN, "gpu_kwh": NaN}}']
    kinds += ['{"hardware": 1}', '{"hardware": {"accelerators": 8}}', '{"energy": {"estimated": 1, "gpu_kwh": -1}}']
    for number, manifest in enumerate(kinds):
        found = read_entry(stage(tmp_path / str(number) / "sft", manifest, metrics="[]\n{\n"))
        assert (found.state, found.kwh, found.phases) == ("unfinished, not measured", 0.0, {})


def test_phases_are_shares_of_the_learner_s_time(tmp_path: Path) -> None:
    """Of two steps of 10 s: 12 s of sampling, 4 of forward and backward, 1 of sync; 3 are left, and 5 of a look after the second.

    The cut line is left as it is.
    """
    row = {"seconds": 10.0, "sampling_seconds": 6.0, "share_forward": 0.1, "share_backward": 0.1, "share_sync": 0.05}
    text = json.dumps(row) + "\n" + json.dumps({**row, "eval/seconds": 5.0}) + '\n{"seconds": 10'
    folder = stage(tmp_path / "a" / "rlvr", metrics=text)
    found = read_entry(folder).phases
    assert [round(found[phase], 6) for phase in PHASES] == [0.48, 0.16, 0.04, 0.2, 0.12]
    assert (folder / "metrics.jsonl").read_text() == text


def test_final_development_and_unfinished(tmp_path: Path) -> None:
    stage(tmp_path / "release" / "sft", {"energy": energy(1.0), "finished": True})
    stage(tmp_path / "release" / "dpo", {"energy": energy(2.0)})
    stage(tmp_path / "try" / "sft", {"energy": energy(4.0), "finished": True})
    entries = read_ledger([tmp_path, tmp_path / "try", tmp_path / "try" / "sft"])
    assert len(entries) == 3, "each stage once, however often its folder is named"
    totals = by_purpose(entries, ["release"], PLAIN)
    assert {name: total.measured_kwh for name, total in totals.items()} == {
        "final": 1.0,
        "development": 6.0,
        "of it unfinished": 2.0,
        "all": 7.0,
    }
    assert totals["all"].facility_kwh == 14.0


def test_a_folder_without_runs_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run lies there"):
        read_ledger([tmp_path])


def test_results_written_before_energy_was_measured_are_there_and_not_measured(tmp_path: Path) -> None:
    (tmp_path / "mine" / "evaluate" / "sft").mkdir(parents=True)
    (tmp_path / "mine" / "evaluate" / "sft" / "results.json").write_text('{"accuracy": 0.5}')
    [entry] = read_ledger([tmp_path])
    assert (entry.name, entry.state, entry.run) == ("mine/evaluate/sft", "finished, not measured", "mine")


def test_results_alone_say_what_they_took(tmp_path: Path) -> None:
    folder = tmp_path / "evaluate" / "model" / "gsm8k"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"energy": {**energy(3.0), "seconds": 60.0}}))
    [entry] = read_ledger([tmp_path])
    assert (entry.state, entry.kwh, entry.seconds, entry.kwh_by_time) == ("finished", 3.0, 60.0, {"evaluation": 3.0})


def test_an_evaluation_that_is_done_anew_is_not_counted_by_its_old_results(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"energy": energy(3.0)}))
    (tmp_path / ".earlier").mkdir()
    (tmp_path / ".earlier" / "1.json").write_text(json.dumps({"energy": energy(3.0), "finished": True}))
    assert [one.kwh for one in read_ledger([tmp_path])] == [3.0], "killed between the two steps"
    (tmp_path / "energy.json").write_text(json.dumps({"energy": energy(1.0), "phase": "rollout"}))
    assert [(one.kwh, one.state) for one in read_ledger([tmp_path])] == [(3.0, "finished, started over"), (1.0, "unfinished")]
    assert by_time(read_ledger([tmp_path]))["rollout"] == 1.0


def test_the_evaluations_of_a_final_run_are_final_and_its_attempts_are_not(tmp_path: Path) -> None:
    stage(tmp_path / "release" / "sft", {"energy": energy(1.0), "finished": True})
    stage(tmp_path / "release" / ".earlier" / "sft" / "1", {"energy": energy(8.0), "finished": True})
    for number, folder in enumerate(("release/evaluate/sft", "evaluate/by-hand/gsm8k")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "energy.json").write_text(json.dumps({"energy": energy(2.0 + 2 * number), "finished": True}))
    entries = read_ledger([tmp_path])
    assert by_purpose(entries, ["release"], PLAIN)["final"].measured_kwh == 3.0
    totals = by_purpose(entries, ["release", "evaluate/by-hand/gsm8k"], PLAIN)
    assert [totals[name].measured_kwh for name in ("final", "development", "of it unfinished", "all")] == [7.0, 8.0, 0.0, 15.0]


def test_energy_of_a_phase_is_its_share_of_all(tmp_path: Path) -> None:
    row = {"seconds": 10.0, "sampling_seconds": 6.0, "share_forward": 0.2}
    found = read_entry(stage(tmp_path / "a" / "rlvr", {"energy": energy(40.0, 10.0)}, metrics=json.dumps(row) + "\n"))
    assert found.kwh_by_time == {"rollout": 30.0, "training": 10.0, "sync": 0.0, "evaluation": 0.0, "idle and other": 10.0}


def test_hours_of_a_session_that_failed_before_a_checkpoint_count(tmp_path: Path) -> None:
    found = read_entry(stage(tmp_path / "a" / "sft", {"energy": {**energy(1.0), "seconds": 3600.0}, "hardware": gpus(8)}))
    assert found.gpu_hours == 8.0

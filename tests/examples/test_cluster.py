"""The scripts of examples/cluster: their commands are right, they ask for what their recipe takes, and the one of Slurm saves.

There is neither Slurm nor Kubernetes here. The script runs in its shell, with small programs in the place of Slurm's.
"""

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_cli import call

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "cluster"
SLURM, KUBERAY = FOLDER / "rlvr.sbatch", FOLDER / "rayjob.yaml"
COUNT, WORD = r"[1-9]\d*", r"[\w%.-]+"
OPTIONS = {
    "job-name": WORD,
    "nodes": COUNT,
    "ntasks-per-node": COUNT,
    "gpus-per-node": COUNT,
    "cpus-per-task": COUNT,
    "exclusive": None,
    "time": r"(\d+-)?\d{1,2}:\d{2}:\d{2}",
    "signal": r"(B:)?[A-Z0-9]+@\d+",
    "requeue": None,
    "open-mode": "append|truncate",
    "output": WORD,
}
"""The options of sbatch that the script uses, by the manual of sbatch, and what their values look like; None takes none."""


def commands(text: str) -> list[list[str]]:
    """The words behind `tulu` wherever a shell script calls it."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("#"):
            continue
        words = shlex.split(line, comments=True)
        if "tulu" in words:
            rest = words[words.index("tulu") + 1 :]
            found.append(rest[: next((place for place, word in enumerate(rest) if word in ("&", "&&", ";", "||")), None)])
    return found


def directives() -> dict[str, str | None]:
    """What the script asks Slurm for."""
    lines = SLURM.read_text().splitlines()
    asked: dict[str, str | None] = {}
    for line in lines:
        if line and not line.startswith("#"):
            break
        if line.startswith("#SBATCH"):
            option, equals, value = line.removeprefix("#SBATCH --").partition("=")
            asked[option] = value if equals else None
    assert sum(line.startswith("#SBATCH") for line in lines) == len(asked), "Slurm reads none behind the first command"
    return asked


def manifest() -> dict[str, Any]:
    return dict(yaml.safe_load(KUBERAY.read_text())["spec"])


def texts() -> dict[str, str]:
    return {"slurm": SLURM.read_text(), "kuberay": manifest()["entrypoint"]}


def resources(words: list[str]) -> dict[str, int]:
    """`rlvr.resources` as a command gives them."""
    prefix = "rlvr.resources."
    pairs = (word.removeprefix(prefix).split("=") for word in words if word.startswith(prefix))
    return {name: int(value) for name, value in pairs}


def adds_up(asked: Mapping[str, int], nodes: int, gpus: int, cores: int) -> None:
    """Every GPU has a learner or an engine, no engine is spread over two nodes, and graders have cores."""
    assert asked["learners"] % gpus == 0, "engines need whole nodes"
    assert gpus % asked["tensor_parallel"] == 0
    assert asked["learners"] + asked["engines"] * asked["tensor_parallel"] == nodes * gpus
    assert asked["learners"] + asked["graders"] <= nodes * cores


@pytest.mark.parametrize("name", ["slurm", "kuberay"])
def test_every_command_is_one_that_tulu_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its recipe is read with its overrides, and its batch divides over the learners."""
    monkeypatch.setattr("tulu.config.job.find_spec", lambda _: True)
    monkeypatch.chdir(ROOT)
    [words] = commands(texts()[name])
    result = call(*words, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert f"= {resources(words)['learners']} processes ×" in " ".join(result.stdout.split())
    typo = call(*[word.replace("learners", "learnres") for word in words], "--dry-run")
    assert (typo.exit_code, "did you mean learners?" in typo.stderr) == (2, True)


def test_what_is_asked_of_slurm_is_well_formed_and_adds_up() -> None:
    asked = directives()
    for option, value in asked.items():
        form = OPTIONS[option]
        assert value is None if form is None else value and re.fullmatch(form, value), f"--{option}={value}"
    [words] = commands(SLURM.read_text())
    nodes, gpus, cores = (int(asked[name] or 0) for name in ("nodes", "gpus-per-node", "cpus-per-task"))
    assert nodes == 64
    adds_up(resources(words), nodes, gpus, cores)
    assert f"--num-gpus={gpus}" in SLURM.read_text()
    subprocess.run(["bash", "-n", str(SLURM)], check=True)


def test_the_rayjob_has_what_kuberay_requires_and_adds_up() -> None:
    whole, spec = yaml.safe_load(KUBERAY.read_text()), manifest()
    assert (whole["apiVersion"], whole["kind"]) == ("ray.io/v1", "RayJob")
    assert whole["metadata"].keys() & {"name", "generateName"}
    cluster = spec["rayClusterSpec"]
    assert f"ray=={cluster['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()
    head, [workers] = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    assert workers["groupName"]
    containers = {}
    for group in (head, workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "KubeRay takes texts alone"
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        containers[container["name"]] = container
        assert container["resources"]["limits"] == container["resources"]["requests"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        places = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/dev/shm", "/shared"} <= places, "the object store, and the folder in which the ranks work"
    assert len({container["image"] for container in containers.values()}) == 1, "ranks are started by the image's own Python"
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in containers["ray-head"]["resources"]["limits"]
    [words] = commands(spec["entrypoint"])
    limits = containers["ray-worker"]["resources"]["limits"]
    adds_up(resources(words), workers["replicas"], int(limits["nvidia.com/gpu"]), int(limits["cpu"]))


PROGRAMS = {
    "scontrol": 'echo "scontrol $*" >> log; if [ "$1" = show ]; then printf "node1\\nnode2\\n"; fi',
    "hostname": 'echo "127.0.0.1 ::1"',
    "srun": 'echo "srun $*" >> log; while case "$1" in --*) true ;; *) false ;; esac; do shift; done; exec "$@"',
    "ray": 'echo "ray $*" >> log; case "$2" in --head) exec python3 -c "$LISTEN" "${3#--port=}" ;; esac; sleep 60',
    "tulu": 'echo "tulu $RAY_ADDRESS ${#RAY_AUTH_TOKEN} $*" >> log; {tulu}',
}
LISTEN = """
import signal, socket, sys, time
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    time.sleep(60)
"""
SAVES = "trap 'echo saved >> log; exit 130' TERM; echo ready >> log; while true; do sleep 0.1; done"


@pytest.fixture
def run_script(tmp_path: Path) -> "Callable[[str], subprocess.Popen[str]]":
    """Start the script as Slurm would, with these lines in the place of tulu."""

    def run(tulu: str) -> "subprocess.Popen[str]":
        programs = tmp_path / "bin"
        programs.mkdir()
        for name, body in PROGRAMS.items():
            (programs / name).write_text(f"#!/bin/bash\n{body.replace('{tulu}', tulu)}\n")
            (programs / name).chmod(0o755)
        slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_CPUS_PER_TASK": "96"}
        environment = {
            **os.environ,
            **slurm,
            "SLURM_JOB_NUM_NODES": "2",
            "LISTEN": LISTEN,
            "PATH": f"{programs}:{os.environ['PATH']}",
        }
        return subprocess.Popen(["bash", str(SLURM)], cwd=tmp_path, env=environment, text=True, start_new_session=True)

    return run


def ended(process: "subprocess.Popen[str]") -> int:
    """The exit code. What the script leaves behind ends with it under Slurm, and here by its process group."""
    try:
        return process.wait(120)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_the_script_of_slurm_starts_ray_everywhere_and_ends_as_tulu_ends(
    tmp_path: Path, run_script: "Callable[[str], subprocess.Popen[str]]"
) -> None:
    assert ended(run_script("until grep -q exclude=node1 log; do sleep 0.1; done; exit 7")) == 7
    log = (tmp_path / "log").read_text().splitlines()
    port = 20_000 + os.getpid() % 10_000
    assert f"srun --nodes=1 --ntasks=1 --nodelist=node1 ray start --head --port={port}" in "\n".join(log)
    assert f"srun --nodes=1 --ntasks=1 --exclude=node1 ray start --address=127.0.0.1:{port}" in "\n".join(log)
    [tulu] = [line for line in log if line.startswith("tulu")]
    assert tulu.split()[1:5] == [f"127.0.0.1:{port}", "64", "rlvr", "recipes/olmo3-32b-think.yaml"]
    assert not [line for line in log if "requeue" in line]


def test_before_its_time_is_up_the_run_saves_and_the_job_queues_again(
    tmp_path: Path, run_script: "Callable[[str], subprocess.Popen[str]]"
) -> None:
    process, log = run_script(SAVES), tmp_path / "log"
    until = time.monotonic() + 120
    while not log.exists() or "ready" not in log.read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == 130
    lines = log.read_text().splitlines()
    assert lines.count("saved") == 1
    assert lines.index("saved") < lines.index(f"scontrol requeue {os.getpid()}")


def test_every_fault_of_the_table_has_its_test() -> None:
    """docs/scaling.md says what happens where something fails, and which test makes it happen."""
    section = (ROOT / "docs" / "scaling.md").read_text().partition("## What fails")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 12
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", row.split("|")[4])
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (ROOT / "tests" / file).read_text(), f"{file}::{test}"

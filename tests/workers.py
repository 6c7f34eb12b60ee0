"""Which worker of pytest-xdist runs which tests: those of a file together, and some files together, the longest first.

A fixture of a module or of the session is made once in each worker that runs tests with it, and some take a minute: processes
that train together, engines of vLLM, a Ray cluster. xdist's own way, marks that group tests (`--dist loadgroup`), is silently
without effect under pytest 9.2 (pytest-dev/pytest-xdist, issue 1386). So `make test` asks for `--dist loadfile`, and this says
what of it is changed here.
"""

from typing import Any

from xdist.scheduler import LoadFileScheduling

TOGETHER = {
    "processes that train together": ("tests/ranks/", "tests/model/test_spreading.py"),
    "Ray": (
        "tests/rollout/test_ray_",
        "tests/rollout/test_graders.py",
        "tests/rollout/test_full_store.py",
        "tests/commands/test_ray_launch.py",
    ),
    "vLLM": ("tests/rollout/test_vllm_", "tests/reward_models/test_vllm_judge.py"),
}
"""How the paths of files begin that one worker runs: they share what is costly, or would fight for memory side by side."""
LONGEST = (
    "processes that train together",
    "tests/test_tiny_recipes.py",
    "vLLM",
    "Ray",
    "tests/test_resume.py",
    "tests/rollout/test_parts_killed.py",
    "tests/model/test_outliers.py",
    "tests/model/test_clipping.py",
    "tests/model/test_parallel.py",
    "tests/benchmarks/test_run.py",
    "tests/rollout/test_taskset_episodes.py",
    "tests/rollout/test_stream_killed.py",
    "tests/verifiers/code/test_limits.py",
    "tests/train/test_token_batches.py",
    "tests/train/test_ranks.py",
    "tests/benchmarks/test_gpu.py",
    "tests/verifiers/test_field.py",
    "tests/verifiers/code/test_verifier.py",
    "tests/verifiers/test_universal.py",
    "tests/stages/test_rlvr_environments.py",
    "tests/test_readers.py",
)
"""What is begun first, so that no worker is left with it at the end. Of the others those with the most tests come first."""


class ByFile(LoadFileScheduling):
    """The tests of a file, or of files that belong together, are the work of one worker."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return next((name for name, paths in TOGETHER.items() if file.startswith(paths)), file)

    def _assign_work_unit(self, node: Any) -> None:
        longest = next((name for name in LONGEST if name in self.workqueue), None)
        if longest is not None:
            self.workqueue.move_to_end(longest, last=False)
        super()._assign_work_unit(node)

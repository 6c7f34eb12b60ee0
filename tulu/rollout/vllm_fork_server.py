"""What a fork server of engine cores imports before it is asked for one. Its import is all that runs of it in the server."""

import os
from contextlib import suppress

from tulu.config.processes import end_with_the_parent

OWNER = "TULU_FORK_SERVER_OF"
"""The variable with the id of the process that started a fork server; no other process has it."""

if owner := os.environ.pop(OWNER, ""):
    end_with_the_parent()
    if os.getppid() != int(owner):  # It died before the line above.
        raise SystemExit(1)
    # What fails here fails again in an engine core, which tells it. This imports most of vLLM; with all that a core needs, two
    # seconds of a core more, an engine was back later where no core was idle (20.7 s against 18.6 s, the means of four), because
    # the actor's own import is what is waited for.
    with suppress(Exception):
        import tulu.rollout.vllm_extension  # noqa: F401

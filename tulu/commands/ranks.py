"""Who trains: this process alone, or ranks that it starts, on this machine or through Ray."""

from typing import TYPE_CHECKING

from tulu.commands.boundary import GIVEN
from tulu.config.processes import to_launch

if TYPE_CHECKING:
    from tulu.config.learners import Learners


def done_by_ranks(learners: "Learners") -> bool:
    """Whether ranks that were started from here have done the command. Everything that can be refused was refused before."""
    count = to_launch(learners.count, learners.said, learners.in_ray)
    if not count:
        return False
    from tulu.commands.launch import launch, rank_command

    command = rank_command(GIVEN.get())
    if learners.in_ray:
        from tulu.commands.ray_launch import launch_in_ray

        launch_in_ray(count, command)
    else:
        launch(count, command, learners.said)
    return True

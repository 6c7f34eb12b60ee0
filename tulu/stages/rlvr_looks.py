"""Looks at a task while RLVR trains: the engines that sample the rollouts answer its problems too, with the newest weights."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial

from tulu.config.parts import Source
from tulu.config.schema import Rlvr
from tulu.config.tasks import TASKS
from tulu.data.problems import Problems, load_problems
from tulu.errors import DataError
from tulu.evaluation.while_training import scored, task_name
from tulu.grading.grader import Grader
from tulu.rollout.acting import Acting
from tulu.rollout.sampler import RolloutGrader
from tulu.rollout.stream import Stream
from tulu.train.agreement import from_main
from tulu.train.looks import Looks, Seen
from tulu.train.open import StageRun
from tulu.types import Completion, Group, Problem, SamplingParams, Verdict

log = logging.getLogger("tulu")

NOT_SCORED = Verdict(None, "error", "no verifier scores it")
NOT_ENDED = Verdict(None, "timeout", "no engine ended it")


def read_asked(run: StageRun, problems: Sequence[Problem], acting: Acting | None) -> tuple[list[Problem], dict[str, str]]:
    """The problems of `eval_task` that each look asks, without those that are trained on, and what that rests on, by content.

    Where the policy acts in an environment, it does so here too. Raises DataError where all problems are trained on.
    """
    stage: Rlvr = run.section
    if stage.eval_task is None:
        return [], {}
    known = TASKS.get(stage.eval_task)
    source = known.source if known else Source(name=stage.eval_task, fraction=1.0)
    verifier = known.verifier if known else stage.verifier
    load = partial(load_problems, [source], run.tokenizer, stage.max_prompt, verifier=verifier, seed=stage.seed)
    if acting is not None:
        load = partial(acting.load, load)
    read: Problems = from_main(run.parallel, "the problems of eval_task", load)
    read.report.show()
    trained = {tuple(problem.prompt) for problem in problems}
    unseen = [problem for problem in read if tuple(problem.prompt) not in trained]
    if len(unseen) < len(read):
        log.warning("eval_task: %d of %d problems are trained on too, and are left out", len(read) - len(unseen), len(read))
    if not unseen:
        raise DataError(f"{run.job.stage}.eval_task: all problems of {stage.eval_task} are trained on; name another task")
    return unseen[: stage.eval_rows], {"eval_task": read.digest}


def looks_of(run: StageRun, stream: Stream, asked: Sequence[Problem]) -> Looks:
    """What is looked at in a run of RLVR."""
    return Looks(run, [partial(answer, run, stream, asked)] if asked else [])


def answer(run: StageRun, stream: Stream, asked: Sequence[Problem], step: int) -> Seen:
    """The greedy answers of the policy to these problems, and how they are graded, in the main process."""
    stage: Rlvr = run.section
    completions = stream.answer(asked, SamplingParams(stage.max_tokens, 0.0, stop=stage.stop))
    if not completions:
        return Seen()
    ended = {place: completion for place, completion in enumerate(completions) if completion is not None}
    graders = " and ".join(sorted({name for problem in asked for name in problem.verifiers}))
    with Grader() as grader, stream.status.waiting(f"the answers of a look to be graded by {graders}"):
        graded = RolloutGrader(grader, run.tokenizer, asked, stage).verify(
            [(place, Group(asked[place].prompt, [completion], asked[place].id)) for place, completion in ended.items()]
        )
    found: Mapping[int, tuple[str, Verdict]] = {
        place: (one.texts[0], one.grades[0].verdict or NOT_SCORED) for place, one in zip(ended, graded, strict=True)
    }
    rows = [found.get(place, ("", NOT_ENDED)) for place in range(len(asked))]
    whole = [completion or Completion([], []) for completion in completions]
    return scored(task_name(str(stage.eval_task)), asked, whole, [text for text, _ in rows], [verdict for _, verdict in rows])

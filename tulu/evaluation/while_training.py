"""The answers of a model to some prompts while it trains: those of a task, which are scored, or of rows that are held out.

The model samples in the processes that train it, each its share, greedily, so that the answers of two looks differ by the weights
alone. RLVR has engines of its own, which answer there (stages/rlvr_looks.py).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tulu.config.parts import Source
from tulu.config.positions import NO_LIMIT
from tulu.config.tasks import TASKS
from tulu.data.problems import Problems, load_problems
from tulu.grading.grader import Grader, grade_by_verifiers, pair_with_problems
from tulu.model.gathering import is_spread
from tulu.model.generation import turn_end_tokens
from tulu.model.policy import Policy
from tulu.model.positions import longest_document
from tulu.rollout.engine import EngineSpec
from tulu.rollout.transformers_engine import TransformersEngine
from tulu.train.agreement import from_main
from tulu.train.looks import SHOWN, Look, SampleAnswer, Seen, spread
from tulu.train.open import StageRun
from tulu.types import Completion, Group, Problem, SamplingParams, Verdict

HELD_OUT = "held-out"
"""The name of answers to prompts that no task has."""
NOT_SCORED = Verdict(None, "error", "no verifier scores it")


def answer_looks(
    run: StageRun, policy: Policy, tokenizer: PreTrainedTokenizerBase, held_out: Sequence[Group] = ()
) -> tuple[list[Look], dict[str, str]]:
    """What is asked of a policy while a stage trains, and what that rests on, by content.

    Where the recipe names no task, the model answers a few prompts of rows that are held out, which nothing scores.
    """
    stage = run.section
    if stage.eval_every is None:
        return [], {}
    most = longest_document(policy.model.config) or NO_LIMIT
    room = most - stage.eval_tokens
    if stage.eval_task is not None:
        problems = from_main(run.parallel, "the problems of eval_task", lambda: read_task(run, stage.eval_task, tokenizer, room))
        asked = list(problems)[: stage.eval_rows]
        return [AnswerLook(run, policy, task_name(stage.eval_task), asked)], {"eval_task": problems.digest}
    fits = [group for group in spread(held_out, SHOWN) if 1 < len(group.prompt) <= room]
    prompts = [Problem(group.id, (), group.prompt, None, ()) for group in fits]
    return [AnswerLook(run, policy, HELD_OUT, prompts)] if prompts else [], {}


def read_task(run: StageRun, task: str, tokenizer: PreTrainedTokenizerBase, max_prompt: int) -> Problems:
    """The problems of a task or of a file of problems, with prompts of at most so many tokens."""
    known = TASKS.get(task)
    source = known.source if known else Source(name=task, fraction=1.0)
    problems = load_problems([source], tokenizer, max_prompt, known.verifier if known else None, run.section.seed)
    problems.report.show()
    return problems


def task_name(task: str) -> str:
    """A task as its figures name it; of a file, the file's name."""
    return task if task in TASKS else Path(task).name.split(".")[0].replace(":", "-")


def scored(
    task: str, problems: Sequence[Problem], completions: Sequence[Completion], texts: Sequence[str], verdicts: Sequence[Verdict]
) -> Seen:
    """What answers and their verdicts say of a model: its accuracy over those that have a score, and how many have none."""
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    figures = {
        f"{task}/ungraded": 1 - len(scores) / len(verdicts),
        f"{task}/truncated": sum(one.finish == "length" for one in completions) / len(completions),
        f"{task}/tokens": sum(len(one.tokens) for one in completions) / len(completions),
    }
    accuracy = {f"{task}/accuracy": sum(scores) / len(scores)} if scores else {}
    answers = [
        SampleAnswer(
            task, problem.id, _asked(problem), text, verdict.score, verdict.detail, completion.finish, str(problem.ground_truth)
        )
        for problem, completion, text, verdict in zip(problems, completions, texts, verdicts, strict=True)
    ]
    return Seen({**accuracy, **figures}, answers)


def _asked(problem: Problem) -> str:
    """The last message that a problem asks."""
    return problem.messages[-1]["content"] if problem.messages else ""


class AnswerLook:
    """The answers of a policy to the same prompts at each look."""

    def __init__(self, run: StageRun, policy: Policy, task: str, problems: Sequence[Problem]) -> None:
        """Problems that name no verifier are not scored."""
        self.run, self.policy, self.task, self.problems = run, policy, task, problems
        self._engine: TransformersEngine | None = None

    def __call__(self, step: int) -> Seen:
        """Sample and score; the main process knows all answers."""
        groups = self._sample(step)
        parallel = self.run.parallel
        return from_main(parallel, "the answers of a look to be graded", lambda: self._seen(groups))

    def _sample(self, step: int) -> list[Group]:
        parallel, tokens = self.run.parallel, self.run.section.eval_tokens
        if self._engine is None:
            self._engine = self._make_engine()
        self._engine.sync((), step)
        own = parallel.share(self.problems)
        groups = self._engine.generate(own, 1, SamplingParams(tokens, 0.0)) if own else []
        found: Mapping[str, Group] = {group.id: group for part in parallel.exchange(groups) for group in part}
        return [found[problem.id] for problem in self.problems]

    def _make_engine(self) -> TransformersEngine:
        run, policy = self.run, self.policy
        spec = EngineSpec(
            run.job.start or "",
            max(len(problem.prompt) for problem in self.problems) + run.section.eval_tokens,
            run.section.precision,
            revision=run.job.revision,
            trust_remote_code=run.job.recipe.trust_remote_code,
            turn_ends=turn_end_tokens(policy.tokenizer),
        )
        if is_spread(policy.module):
            # No process holds the weights as a whole, so each has a copy to sample with, which takes them over at every look.
            return TransformersEngine.load(spec, learner=policy.module.model)
        return TransformersEngine(policy.model, policy.tokenizer, spec)

    def _seen(self, groups: Sequence[Group]) -> Seen:
        tokenizer = self.policy.tokenizer
        items = pair_with_problems(self.problems, groups, tokenizer)
        completions = [group.completions[0] for group in groups]
        if self.run.section.eval_task is None:
            prompts = [str(tokenizer.decode(list(problem.prompt))) for problem in self.problems]
            rows = zip(self.problems, prompts, items, completions, strict=True)
            return Seen(
                {}, [SampleAnswer(self.task, one.id, asked, text, finish=end.finish) for one, asked, (text, _), end in rows]
            )
        with Grader() as grader:
            verdicts = [verdict or NOT_SCORED for verdict in grade_by_verifiers(grader, items)]
        return scored(self.task, self.problems, completions, [text for text, _ in items], verdicts)

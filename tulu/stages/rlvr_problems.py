"""The problems that a stage of RLVR trains on, read once for all processes of the learner."""

from functools import partial
from typing import Any

from tulu.config.schema import Rlvr
from tulu.data.problems import Problems, load_problems
from tulu.rollout.acting import Acting
from tulu.train.agreement import from_main
from tulu.train.open import StageRun
from tulu.verifiers.contract import Settings


def read_problems(run: StageRun, stage: Rlvr, acting: Acting | None = None) -> Problems:
    """The problems of the stage, which the main process reads, tokenises and proves, and sends to the others.

    Those of an environment have its tools in their prompts.
    """
    load = partial(
        load_problems,
        stage.data,
        run.tokenizer,
        stage.max_prompt,
        verifier=stage.verifier,
        seed=stage.seed,
        with_reward_model=stage.reward_model is not None,
        bad_golds=stage.bad_golds,
        mode=stage.verifier_mode,
        settings=settings_of(stage),
    )
    if acting is not None:
        load = partial(acting.load, load)
    return from_main(run.parallel, "the problems to be read and their ground truths to be proven", load)


def rows_facts(problems: Problems, stage: Rlvr) -> dict[str, Any]:
    """What verdicts rest on beyond what every stage pins of its data, by content."""
    # Rows that an environment brings along are made anew each time, and pinned by what makes them.
    brings = stage.env is not None and stage.env.brings_rows
    return {**problems.verdicts_rest_on, **({} if brings else {"columns": problems.columns})}


def settings_of(stage: Rlvr) -> Settings:
    """The recipe's settings of its verifiers."""
    return stage.verifier_settings.settings if stage.verifier_settings else Settings()

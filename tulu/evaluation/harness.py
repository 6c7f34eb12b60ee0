"""lm-eval's tasks over this package's engines and policy: what it asks for is answered here, what it counts is counted there.

lm-eval builds prompts and shots, and scores each answer; the mean, its interval and the table are made here, from the score of
every problem. Answers are kept in a data base beside the results, so that a command that was killed goes on where it stopped.
"""

import hashlib
import json
import logging
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from jinja2 import TemplateError
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM, TemplateLM
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from tulu.config.suite_needs import LM_EVAL, harness_folder
from tulu.config.suites import SuiteTask
from tulu.data.chat import template_hash
from tulu.errors import DataError, RecipeError, TuluError
from tulu.evaluation.harness_tasks import specs
from tulu.evaluation.shared_engine import SharedEngine
from tulu.losses import sum_by_owner
from tulu.model.batch import pack
from tulu.model.policy import Policy
from tulu.progress import Progress
from tulu.types import Completion, Group, Problem, SamplingParams

CHUNK = 256
"""Requests between two writes of the data base, which is what a killed command may lose."""
ROW_TOKENS = 8192
"""Most tokens of a packed row of log-probs."""
Value = tuple[str, str, float]
"""Task of lm-eval, id of the problem, and the metric's value."""
ORDER_SEED, SHOTS_SEED = 0, 1234
"""lm-eval's own seeds, of the order of options where a task shuffles them, and of the choice of solved examples."""
KINDS = ("multiple_choice", "generate_until")
"""Kinds of tasks that can be run: log-probs of given answers, and free answers."""


class HarnessModel(TemplateLM):
    """What lm-eval sees of the model."""

    def __init__(self, engine: SharedEngine, tokenizer: Any, name: str, max_tokens: int, chat: bool = True) -> None:
        """`name` stands beside the progress bar; `max_tokens` is the most of an answer where the task does not say.

        Without `chat`, prompts are plain texts, before which the tokenizer puts its special tokens; a chat template writes them
        itself.
        """
        super().__init__()
        self.engine, self.tokenizer, self.name, self.max_tokens, self.chat = engine, tokenizer, name, max_tokens, chat
        self.max_length = engine.spec.max_length
        self.cut = 0
        """Prompts that were too long for the model, of which the beginning was cut off."""

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval names its own caches after."""
        return template_hash(self.tokenizer)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_others: Any) -> list[int]:
        """The tokens of a text."""
        special = not self.chat if add_special_tokens is None else add_special_tokens
        return list(self.tokenizer.encode(string, add_special_tokens=special))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A chat as text; without the generation prompt, the last turn is begun and not ended."""
        unfinished = not add_generation_prompt
        return str(
            self.tokenizer.apply_chat_template(
                chat_history, tokenize=False, add_generation_prompt=add_generation_prompt, continue_final_message=unfinished
            )
        )

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Perplexity is no metric of a suite."""
        raise RecipeError("lm-eval's tasks of perplexity are not run here; choose one of multiple choice or of free answers")

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_others: Any
    ) -> list[tuple[float, bool]]:
        """The summed log-prob of each continuation. Whether it is the greedy one is asked for by no kind of task that is run."""
        policy, results = self.engine.policy(), list[tuple[float, bool]]()
        with Progress(self.name, len(requests)) as progress:
            for first in range(0, len(requests), CHUNK):
                chunk = requests[first : first + CHUNK]
                sums = logps_of(policy, [(context, answer) for _, context, answer in map(self._fitting, chunk)])
                for (texts, *_tokens), value in zip(chunk, sums, strict=True):
                    results.append((value, False))
                    self.cache_hook.add_partial("loglikelihood", texts, results[-1])
                progress.update(len(results), {})
        return results

    def _fitting(self, request: tuple[Any, list[int], list[int]]) -> tuple[Any, list[int], list[int]]:
        texts, context, answer = request
        room = max(1, self.max_length - len(answer))
        self.cut += len(context) > room
        return texts, context[-room:], answer[: self.max_length - 1]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answers, up to the first of the task's stop texts."""
        texts: list[str] = [""] * len(requests)
        by_settings: dict[SamplingParams, list[int]] = {}
        for place, request in enumerate(requests):
            by_settings.setdefault(self._params(request.args[1]), []).append(place)
        done = 0
        with Progress(self.name, len(requests)) as progress, self.engine.telling(lambda n, _: progress.update(done + n, {})):
            for params, places in by_settings.items():
                for first in range(0, len(places), CHUNK):
                    chunk = places[first : first + CHUNK]
                    problems = [self._problem(place, requests[place].args[0], params.max_tokens) for place in chunk]
                    for place, group in zip(chunk, self.engine.generate(problems, 1, params), strict=True):
                        texts[place] = self._text(group.completions[0], params.stop)
                        self.cache_hook.add_partial("generate_until", requests[place].args, texts[place])
                    done += len(chunk)
        return texts

    def _params(self, given: Mapping[str, Any]) -> SamplingParams:
        until = given.get("until") or ()
        stops = tuple(text for text in ((until,) if isinstance(until, str) else until) if text)
        sampled = given.get("do_sample") and float(given.get("temperature") or 0) > 0
        most = min(int(given.get("max_gen_toks") or self.max_tokens), max(1, self.max_length // 2))
        return SamplingParams(most, float(given["temperature"]) if sampled else 0.0, float(given.get("top_p") or 1.0), stops)

    def _problem(self, place: int, prompt: str, max_tokens: int) -> Problem:
        tokens, room = self.tok_encode(prompt), self.max_length - max_tokens
        self.cut += len(tokens) > room
        return Problem(f"{self.name}:{place}", [{"role": "user", "content": prompt}], tokens[-room:], None, ())

    def _text(self, completion: Completion, stops: Sequence[str]) -> str:
        text = str(self.tokenizer.decode(list(completion.tokens), skip_special_tokens=True))
        return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def logps_of(policy: Policy, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
    """The summed log-prob of each answer behind its prompt; a prompt with several answers is computed once."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, (context, _) in enumerate(pairs):
        places.setdefault(tuple(context), []).append(place)
    groups = [
        Group(context, [Completion(pairs[place][1], [True] * len(pairs[place][1])) for place in members])
        for context, members in places.items()
    ]
    order, sums = list(places.values()), [math.nan] * len(pairs)
    for batch in pack(groups, ROW_TOKENS):
        logps_N = policy.logps(batch)
        totals = sum_by_owner(logps_N, batch.owner_N.to(logps_N.device), batch.n_completions).tolist()
        for (group, completion), total in zip(batch.index_C, totals, strict=True):
            sums[order[group][completion]] = total
    return sums


def load_tasks(task: SuiteTask, local: Path | None) -> list[Any]:
    """lm-eval's task objects, with their data. Raises DataError where the data cannot be had, RecipeError for another kind."""
    assert task.harness is not None
    folder, _ = harness_folder(task.harness)
    quiet()
    random.seed(ORDER_SEED)
    np.random.seed(SHOTS_SEED)
    try:
        loaded = TaskManager(include_defaults=False, include_path=str(folder)).load(specs(task.harness, local))
    except TuluError:
        raise
    except (OSError, ValueError, LookupError, ImportError, TypeError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{task.title}: lm-eval cannot load {task.harness} ({type(error).__name__}: {reason}); "
            "check the network, or give local files with --data TASK=PATH"
        ) from error
    tasks = list(loaded["tasks"].values())
    others = sorted({str(one.OUTPUT_TYPE) for one in tasks} - set(KINDS))
    if others:
        raise RecipeError(
            f"{task.title}: lm-eval's tasks of kind {', '.join(others)} are not run here; known are {', '.join(KINDS)}"
        )
    return tasks


def quiet() -> None:
    """Keep lm-eval's own lines out of ours, except its errors."""
    logging.getLogger(LM_EVAL).setLevel(logging.ERROR)


def cache_of(folder: Path, settings: Mapping[str, Any], fresh: bool) -> Path:
    """The beginning of the name of the data base that keeps the answers of these weights and settings; a fresh one is empty."""
    key = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
    if fresh:
        for file in folder.glob(f"answers-{key}*"):
            file.unlink()
    return folder / f"answers-{key}"


def answer_tasks(model: HarnessModel, tasks: Sequence[Any], task: SuiteTask, cache: Path, limit: int | None) -> list[Value]:
    """The value of the metric for every problem, in order."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    for one in tasks:
        shots = one.get_config("num_fewshot") if task.harness_shots is None else task.harness_shots
        one.set_config("num_fewshot", shots or 0)
        one.set_fewshot_seed(SHOTS_SEED)
        if one.OUTPUT_TYPE == "generate_until" and (own := _overrides(task)):
            one.set_config("generation_kwargs", own, update=True)
    try:
        # Its simple_evaluate would also describe the machine, which takes longer than a small task.
        results = evaluate(
            lm=CachingLM(model, f"{cache}.db"),
            task_dict={"tasks": {one.task_name: one for one in tasks}, "groups": {}, "group_map": {}},
            limit=limit,
            bootstrap_iters=0,
            apply_chat_template=model.chat,
            fewshot_as_multiturn=True,
        )
    except (ValueError, LookupError, TypeError, TemplateError) as error:
        raise DataError(
            f"{task.title}: lm-eval cannot use its rows ({type(error).__name__}: {error}); "
            "check that they have the form of the task's own data set, and as many solved examples as it draws"
        ) from error
    assert results is not None
    return values_of(results["samples"], task.metric)


def _overrides(task: SuiteTask) -> dict[str, Any]:
    """What the suite says of answers in place of lm-eval's task."""
    stops = {"until": list(task.stop)} if task.stop else {}
    return {**stops, "max_gen_toks": task.max_tokens} if "max_tokens" in task.model_fields_set else stops


def values_of(samples: Mapping[str, Sequence[Mapping[str, Any]]], metric: str) -> list[Value]:
    """The metric of every problem: METRIC, or METRIC,FILTER where answers are read in several ways.

    Raises RecipeError, which names what there is, where no problem has it.
    """
    name, _, chosen = metric.partition(",")
    values = [
        (task, f"{task}:{sample['doc_id']}", float(sample[name]))
        for task, rows in samples.items()
        for sample in rows
        if name in sample and chosen in ("", sample["filter"])
    ]
    if not values:
        known = sorted({f"{one},{sample['filter']}" for rows in samples.values() for sample in rows for one in sample["metrics"]})
        raise RecipeError(f"metric {metric}: lm-eval's task has none such; it has {', '.join(known) or 'none'}")
    return values

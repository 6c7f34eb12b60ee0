"""Rejection sampling: several answers to each prompt, of which the best become rows to train on."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tulu.config.locate import model_label
from tulu.config.lock import only_user
from tulu.config.positions import NO_LIMIT
from tulu.config.schema import RewardModelSettings, Source
from tulu.data.chat import template_hash
from tulu.data.problems import load_problems
from tulu.errors import TuluError
from tulu.evaluation.candidates import Candidate, SampleFile, SampleRequest, ScoredProblem, collect, model_identity
from tulu.evaluation.options import SampleOptions
from tulu.evaluation.positions import answer_tokens
from tulu.evaluation.refusals import OWN, check_sample
from tulu.files import json_lines, write_atomic
from tulu.model.load import checked_config, load_tokenizer
from tulu.model.positions import longest_document
from tulu.train.manifest import environment
from tulu.train.measured import measured
from tulu.types import Message, SamplingParams
from tulu.verifiers.reward_model import NAME as REWARD_MODEL

log = logging.getLogger("tulu")

RUNS = Path("runs")
"""Where results lie without --out."""


@dataclass(frozen=True, slots=True)
class Selected:
    """Rows to train on."""

    sft: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    outcomes: Counter[str]
    """How many prompts have a row, or lack one for which reason."""


def sample(model: str, options: SampleOptions, revision: str | None = None) -> Path:
    """Sample and score answers, choose rows among them, and write the folder of the result; returns the folder.

    samples.jsonl grows as answers come, so that a command that was killed goes on where it stopped, and another choice of rows
    (--keep, --pairs, --limit) samples nothing again. Raises InUseError if another command is at work in the folder.
    """
    check_sample(model, options)
    rows = Path(options.data[0]).name.split(".")[0].replace(":", "-")
    folder = options.out or RUNS / "sample" / model_label(model) / rows
    with only_user(folder, inside=True):
        return _sample(model, options, folder, revision)


def _sample(model: str, options: SampleOptions, folder: Path, revision: str | None) -> Path:
    trusted = options.trust_remote_code
    tokenizer = load_tokenizer(model, options.template, revision, trusted)
    sources = [Source(name=name, fraction=1.0) for name in options.data]
    verifier = REWARD_MODEL if options.verifier is None else None if options.verifier == OWN else options.verifier
    with_reward_model = options.reward_model is not None
    config = checked_config(model, trainable=False, revision=revision, trust_remote_code=trusted)
    most = longest_document(config) or NO_LIMIT
    tokens = answer_tokens(options.max_tokens, most, "--max-tokens")
    dataset = load_problems(sources, tokenizer, most - tokens, verifier, options.seed, with_reward_model, bad_golds="skip")
    dataset.report.show()
    params = SamplingParams(tokens, options.temperature, options.top_p, seed=options.seed)
    reward_model = RewardModelSettings(path=options.reward_model) if options.reward_model else None
    settings = {
        "model": model_identity(model, revision, trusted),
        "reward_model": model_identity(options.reward_model, trust_remote_code=trusted) if options.reward_model else None,
        "data": dataset.digest,
        "verifier": verifier,
        **dataset.verdicts_rest_on,
        "template": template_hash(tokenizer),
        "n": options.n,
        **{name: asdict(params)[name] for name in ("max_tokens", "temperature", "top_p", "seed")},
    }
    samples = SampleFile(folder, settings)
    samples.open(options.fresh)
    limited = dataset[: options.limit] if options.limit else dataset
    if samples.rows:
        log.info("%s holds the answers to %d prompts already", samples.log.path, len(samples.rows))
    request = SampleRequest("sample", model, options.n, params, options.engine, options.batch, reward_model, revision, trusted)
    with measured(folder, options.fresh, "rollout") as meter:
        scored = collect(request, limited, tokenizer, samples)
    return finish(folder, scored, options, {"model": model, "settings": settings, "energy": meter.energy})


def rank(answers: Sequence[Candidate]) -> list[Candidate]:
    """The answers that can be used, best first: by the verifier's score, then by the reward; equal ones keep their order.

    An answer that did not stop, is empty or could not be scored cannot be used, and a text that recurs counts once.
    """
    usable: dict[str, Candidate] = {}
    for answer in answers:
        if not _fault(answer) and answer.finish != "length" and answer.text.strip():
            usable.setdefault(answer.text, answer)
    return sorted(usable.values(), key=_scores, reverse=True)


def _fault(answer: Candidate) -> str:
    """Why an answer lacks a score; empty where it lacks none."""
    if answer.status != "ok":
        return f"{answer.status}: {answer.detail}"
    return answer.reward_detail


def _scores(answer: Candidate) -> tuple[float, float]:
    return (answer.score or 0.0, answer.reward or 0.0)


def select(problems: Sequence[ScoredProblem], keep: int, pairs: bool) -> Selected:
    """The best `keep` answers of each prompt as conversations, and with `pairs` also the best against the worst one.

    Where there is a verifier, only answers that it gave more than 0 are kept, or chosen over another.
    """
    selected = Selected([], [], Counter())
    for problem in problems:
        ranked = rank(problem.answers)
        good = [answer for answer in ranked if answer.score is None or answer.score > 0]
        selected.outcomes[_outcome(problem, ranked, good)] += 1
        for answer in good[:keep]:
            conversation = _conversation(problem, answer)
            selected.sft.append({"id": problem.id, "messages": conversation, "score": answer.score, "reward": answer.reward})
        if pairs and good and _scores(ranked[-1]) < _scores(good[0]):
            selected.pairs.append(_pair(problem, good[0], ranked[-1]))
    return selected


def _outcome(problem: ScoredProblem, ranked: Sequence[Candidate], good: Sequence[Candidate]) -> str:
    """Whether a prompt has a row, or why not."""
    if good:
        return "kept"
    if ranked:
        return "no right answer"
    if all(answer.finish == "length" for answer in problem.answers):
        return "no answer that stopped"
    return "no answer that could be used"


def _conversation(problem: ScoredProblem, answer: Candidate) -> list[Message]:
    return [*problem.messages, {"role": "assistant", "content": answer.text}]


def _pair(problem: ScoredProblem, chosen: Candidate, rejected: Candidate) -> dict[str, Any]:
    sides = {"chosen": chosen, "rejected": rejected}
    return {
        "id": problem.id,
        **{side: _conversation(problem, answer) for side, answer in sides.items()},
        **{f"{side}_score": answer.score for side, answer in sides.items()},
        **{f"{side}_reward": answer.reward for side, answer in sides.items()},
    }


def finish(folder: Path, problems: Sequence[ScoredProblem], options: SampleOptions, facts: Mapping[str, Any]) -> Path:
    """Choose rows, write sft.jsonl, pairs.jsonl and results.json, and print the counts.

    Raises TuluError where no row is left to train on.
    """
    selected = select(problems, options.keep, options.pairs)
    figures = summarise(problems, selected)
    content = {**facts, **figures, "keep": options.keep, "environment": environment()}
    write_atomic(folder / "results.json", json.dumps(content, indent=2, default=str) + "\n")
    rows = {"sft.jsonl": selected.sft, **({"pairs.jsonl": selected.pairs} if options.pairs else {})}
    for name, lines in rows.items():
        (folder / name).unlink(missing_ok=True)
        if lines:
            write_atomic(folder / name, json_lines(lines))
    console = Console()
    console.print(_table(figures, options))
    if not selected.sft:
        reasons = ", ".join(f"{count} × {reason}" for reason, count in selected.outcomes.most_common())
        if figures["faults"]:
            reasons += f" (scoring failed {figures['unscored']} times, first of all with {next(iter(figures['faults']))})"
        raise TuluError(f"no row is left to train on: {reasons}\n{folder}/samples.jsonl holds every answer and its scores.")
    written = [name for name, lines in rows.items() if lines]
    print(f"  {folder}: {', '.join([*written, 'samples.jsonl', 'results.json'])}")
    print(f"  tulu sft RECIPE sft.data={folder}/sft.jsonl")
    if selected.pairs:
        print(f"  tulu dpo RECIPE dpo.data={folder}/pairs.jsonl")
    return folder


def summarise(problems: Sequence[ScoredProblem], selected: Selected) -> dict[str, Any]:
    """Counts, and the mean score and reward of all answers and of those that were kept."""
    answers = [answer for problem in problems for answer in problem.answers]
    faults = Counter(fault for answer in answers if (fault := _fault(answer)))
    return {
        "prompts": len(problems),
        "answers": len(answers),
        "outcomes": dict(selected.outcomes),
        "unfinished": sum(answer.finish == "length" for answer in answers),
        "unscored": faults.total(),
        "faults": dict(faults.most_common()),
        "score": {"all": _mean(a.score for a in answers), "kept": _mean(row["score"] for row in selected.sft)},
        "reward": {"all": _mean(a.reward for a in answers), "kept": _mean(row["reward"] for row in selected.sft)},
        "rows": len(selected.sft),
        "pairs": len(selected.pairs),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are there; None where there is none."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _table(figures: Mapping[str, Any], options: SampleOptions) -> Table:
    table = Table(title="sample", show_header=False)
    table.add_row("prompts", str(figures["prompts"]))
    table.add_row("answers", f"{figures['answers']}, {figures['unfinished']} did not stop, {figures['unscored']} not scored")
    for name in ("score", "reward"):
        if figures[name]["all"] is not None:
            kept = figures[name]["kept"]
            table.add_row(
                f"mean {name}", f"{figures[name]['all']:.3f}" + (f", of rows kept {kept:.3f}" if kept is not None else "")
            )
    table.add_row("rows", str(figures["rows"]))
    if options.pairs:
        table.add_row("pairs", str(figures["pairs"]))
    for reason, count in figures["outcomes"].items():
        if reason != "kept":
            table.add_row(f"prompts with {reason}", str(count))
    for fault, count in list(figures["faults"].items())[:3]:
        table.add_row("answers not scored", f"{count} × {escape(fault)}")
    return table

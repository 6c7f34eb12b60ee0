"""The card of a trained model: what it was made from, how, what it can do and what it took, all read from its run."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tulu.config.footprint import DEFAULT, FACILITIES, NOTHING
from tulu.config.job import MODEL
from tulu.config.locate import CLASSIFIER, is_local_data
from tulu.config.model_folder import read_config
from tulu.config.named_models import runs_in
from tulu.errors import RecipeError, TuluError, nearest
from tulu.train.ledger import read_entry
from tulu.train.manifest import read_manifest, read_record

_VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as the largest rank of adapters (vllm/config/lora.py, MaxLoRARanks); without one it takes 16."""
_ELSEWHERE = ("/", "~", "../")
"""How a path begins that leads out of the folder in which the command was given."""
_WORDS, _JOINTS = re.compile(r"(\s+)"), re.compile(r"([:=,])")
_NO_NAME = ("name", "model", "revision", "template", "start")
"""What a stage's recipe.yaml holds beside the section of the stage."""


@dataclass(frozen=True)
class TrainedStage:
    """A stage that has a model, as its folder says."""

    folder: Path
    recipe: Mapping[str, Any]
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Such as sft, or the name of one of several stages of a kind."""
        return self.folder.name

    @property
    def start(self) -> str | None:
        """The model that it started from."""
        return self.recipe.get("start")

    @property
    def section(self) -> Mapping[str, Any]:
        """The fields of the stage."""
        found = [value for key, value in self.recipe.items() if key not in _NO_NAME and isinstance(value, dict)]
        return found[0] if found else {}


def find_stage(name: str, runs: Path) -> TrainedStage:
    """The stage of a run (`NAME/STAGE`, or its folder), or the one of a run that was finished last. Raises RecipeError."""
    for place in (Path(name), runs / name):
        if (place / "manifest.json").is_file():
            return _open(place)
        stages = [file.parent for file in place.glob("*/manifest.json") if (file.parent / MODEL / "config.json").is_file()]
        if stages:
            return _open(max(stages, key=lambda folder: (folder / MODEL / "config.json").stat().st_mtime))
    near = nearest(name, runs_in(runs))
    raise RecipeError(
        f"{name}: no run with a model lies there or in {runs}{near}; name a run, NAME/STAGE or the folder of a stage"
    )


def _open(folder: Path) -> TrainedStage:
    try:
        manifest = read_manifest(folder)
        recipe = read_record(folder / "recipe.yaml", yaml.safe_load) if (folder / "recipe.yaml").is_file() else {}
    except TuluError as error:
        raise RecipeError(str(error)) from error
    if not manifest.get("finished") or not (folder / MODEL / "config.json").is_file():
        raise RecipeError(f"{folder}: is not finished, so it has no model; run the same command again to resume it")
    return TrainedStage(folder, recipe, manifest)


def chain_of(stage: TrainedStage) -> list[TrainedStage]:
    """The stages of the same run that led to a stage, the first one first, and the stage itself."""
    chain = [stage]
    while (start := chain[0].start) is not None:
        folder = Path(start).parent
        known = {one.folder.resolve() for one in chain}
        # The path in a recipe is that of the command's folder then; of a run that was moved, the stages still lie side by side.
        beside = stage.folder.parent / folder.name
        if Path(start).name != MODEL or not (beside / "manifest.json").is_file() or beside.resolve() in known:
            break
        chain.insert(0, _open(beside))
    return chain


def model_card(stage: TrainedStage, adapters: tuple[Path, str] | None = None) -> str:
    """The card as Markdown, with the fields that the hub reads at its top.

    `adapters` are the folder of the stage's adapters, where the card is theirs, and the name of the folder that it will lie in.
    """
    chain = chain_of(stage)
    base, versions = chain[0].start, stage.manifest.get("versions", {})
    kinds = (read_config(stage.folder / MODEL) or {}).get("architectures") or [""]
    task = "text-classification" if str(kinds[0]).endswith(CLASSIFIER) else "text-generation"
    head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": task, "tags": ["tulu", stage.name]}
    if base and _is_on_hub(base):
        head["base_model"] = base
    if adapters is not None:
        head["library_name"] = "peft"
    if sets := sorted({name for one in chain for name in _data(one) if _is_on_hub(name)}):
        head["datasets"] = sets
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---",
        f"# {stage.recipe.get('name', stage.folder.parent.name)}, after {stage.name}",
        f"Trained from {plain(base) if base else 'random weights'} with tulu {versions.get('tulu', '?')}"
        f" (commit {stage.manifest.get('commit') or 'unknown'}).",
        *([] if adapters is None else [_loading(*adapters)]),
        "## Stages\n\n" + _table(["stage", "steps", "hours", "data", "digest of the data"], [_stage_row(one) for one in chain]),
    ]
    if rows := [row for one in chain for row in _results(one)]:
        parts.append("## Held-out accuracy\n\n" + _table(["after", "task", "accuracy", "95 % interval", "problems"], rows))
    if rows := [row for one in chain if not any(_results(one)) for row in _last_look(one)]:
        parts.append("## Held out while it trained\n\n" + _table(["stage", "after step", "figure", "value"], rows))
    parts.append("## What it took\n\n" + _energy(chain))
    for one in chain:
        recipe = yaml.safe_dump(plain(dict(one.recipe)), sort_keys=False, allow_unicode=True)
        parts.append(f"## Recipe of {one.name}\n\n```yaml\n{recipe}```")
    return "\n\n".join(parts) + "\n"


def plain(value: Any) -> Any:
    """A value of a recipe without the folders of a machine, which are nobody's business: of a path there, its last name.

    Of a stage's model, the last two, because every model lies in a folder of the same name. A path within the folder that the
    command was given in, such as data/mine.jsonl, says nothing of the machine and stays.
    """
    if isinstance(value, Mapping):
        return {plain(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if not isinstance(value, str) or "\n" in value:
        return value
    # A path may hold blanks; in a text or a command, it ends at one. A verifier of one's own is FILE.py:NAME.
    scheme, _, rest = value.partition("://")
    value = rest if scheme == "file" else value
    words = [value] if value.startswith(_ELSEWHERE) else _WORDS.split(value)
    return "".join(word if "://" in word else "".join(map(_last_name, _JOINTS.split(word))) for word in words)


def _last_name(text: str) -> str:
    parts = Path(text).parts
    if not text.startswith(_ELSEWHERE) or len(parts) < (3 if parts[0] == "/" else 2):
        # Such as /no_think, which is no path.
        return text
    return "/".join(parts[-2:] if parts[-1] == MODEL and len(parts) > 3 else parts[-1:])


def _loading(folder: Path, name: str) -> str:
    """The lines that load the adapters of a folder in transformers and in vLLM; `name` is what the folder will be called."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    base, scores = plain(config.get("base_model_name_or_path") or "BASE"), config.get("task_type") == "SEQ_CLS"
    kind = "AutoModelForSequenceClassification" if scores else "AutoModelForCausalLM"
    lines = [
        "from peft import PeftModel",
        f"from transformers import {kind}, AutoTokenizer",
        "",
        f'base = {kind}.from_pretrained("{base}"{", num_labels=1" if scores else ""})',
        f'model = PeftModel.from_pretrained(base, "{name}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
    ]
    text = "## Use\n\nThese are adapters: they belong to the model that the stage began with.\n\n```python\n"
    text += "\n".join(lines) + "\n```"
    if scores:
        return text
    rank = next((most for most in _VLLM_RANKS if most >= config.get("r", 1)), _VLLM_RANKS[-1])
    return f"{text}\n\n    vllm serve {base} --enable-lora --max-lora-rank {rank} --lora-modules {name}={name} --tokenizer {name}"


def _data(stage: TrainedStage) -> Iterator[str]:
    sources = stage.section.get("data") or ()
    for source in [sources] if isinstance(sources, (str, dict)) else sources:
        yield str(source.get("name") if isinstance(source, dict) else source)


def _is_on_hub(name: str) -> bool:
    named = name.count("/") == 1 and ":" not in name and not name.startswith(("/", "~", "."))
    return named and not is_local_data(name) and not Path(name).exists()


def _stage_row(stage: TrainedStage) -> list[str]:
    hours = float(stage.manifest.get("seconds") or 0.0) / 3600
    pinned = stage.manifest.get("pinned") or {}
    return [
        stage.name,
        str(stage.manifest.get("steps", "")),
        f"{hours:.2f}",
        ", ".join(map(plain, _data(stage))),
        str(pinned.get("data", "")),
    ]


def _results(stage: TrainedStage) -> Iterator[list[str]]:
    file = stage.folder.parent / "evaluate" / stage.name / "results.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        low, high = found["ci95"]
        problems = str(found.get("judged", found.get("problems", "")))
        task = found.get("settings", {}).get("task", "")
        yield [stage.name, str(task), f"{found['accuracy']:.1%}", f"{low:.1%} to {high:.1%}", problems]
    except (OSError, ValueError, KeyError, TypeError):
        return


def _last_look(stage: TrainedStage) -> Iterator[list[str]]:
    """The figures of the last look that the stage took while it trained."""
    last: Mapping[str, Any] = {}
    file = stage.folder / "metrics.jsonl"
    with file.open("rb") if file.is_file() else nullcontext(()) as lines:
        for line in lines:
            with suppress(ValueError):
                row = json.loads(line) if b'"eval/' in line else None
                last = row if isinstance(row, dict) else last
    for name, value in last.items():
        if name.startswith("eval/") and name != "eval/seconds" and isinstance(value, (int, float)):
            yield [stage.name, str(last.get("step", "")), name.removeprefix("eval/"), f"{value:.4g}"]


def _energy(chain: Sequence[TrainedStage]) -> str:
    facility = FACILITIES[DEFAULT]
    total = sum((read_entry(one.folder).footprint(facility) for one in chain), NOTHING)
    if not total.measured_kwh:
        return "No energy is on record."
    return (
        f"{total.measured_kwh:.3g} kWh, measured or estimated on the main process's machine: {total.facility_kwh:.3g} kWh in "
        f"the data centre, {total.carbon_kg:.3g} kg CO2e, {total.water_litres:.3g} l of water. Making the GPUs: "
        f"{total.embodied_kg:.3g} kg CO2e.\nBy the constants of {facility.source}. Runs that led nowhere are not in it."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in lines)

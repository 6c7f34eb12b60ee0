"""The weighted mean of several models, such as of SFT runs with different learning rates, as a model of its own.

Olmo 3 32B Think is one: its DPO starts from the merge of two SFT runs. Nothing is trained and nothing is loaded: the files of the
checkpoints are read side by side, so a model of any size is merged in the memory of a small machine.
"""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoTokenizer

from tulu.config.hub import reach_hub
from tulu.config.job import MODEL, Job
from tulu.config.locate import policy_problem
from tulu.config.merging import Merge, MergedModel, require
from tulu.config.model_folder import tokenizer_problem
from tulu.data.datasets import tokenizer_digest
from tulu.errors import CheckpointError, RecipeError, ResumeError, first_few
from tulu.files import differences, file_digest, remove_partials, sync_folder, write_atomic
from tulu.model.average import differing_weights, write_average
from tulu.model.load import checked_config, from_pretrained
from tulu.model.processes import Processes
from tulu.model.refusals import explain
from tulu.model.stored import open_checkpoint
from tulu.train.agreement import from_main, start_digest
from tulu.train.begun import job_recipe
from tulu.train.manifest import environment
from tulu.train.run import model_faults, read_manifest

log = logging.getLogger("tulu")

OF_NO_WEIGHT = frozenset({"_name_or_path", "transformers_version", "use_cache"})
"""Entries of a configuration that say nothing about what the weights compute."""
WEIGHTS = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.bin",
    "*.bin.index.json",
    "*.pt",
    "*.pth",
    "*.gguf",
    "*.h5",
    "*.msgpack",
)
"""Files that hold weights or say where they are; everything else beside them is copied."""


@dataclass(frozen=True)
class Member:
    """One of the models that are merged."""

    label: str
    """What messages call it: the folder or the hub name."""
    folder: Path
    """Where its files lie."""
    digest: str
    """A hash of its files, or its commit on the hub."""


def run(job: Job) -> Path:
    """Merge, and return the folder of the model. One process works, and the others wait for it."""
    return from_main(Processes(), "the models to be merged", lambda: merge(job))


def merge(job: Job) -> Path:
    """Merge the models of a job, unless that is done already.

    Raises RecipeError where they cannot be merged, ResumeError where the folder holds a merge of other models, and
    CheckpointError where the disk refuses.
    """
    section: Merge = job.section
    began = time.monotonic()
    members = [find_member(model, job) for model in section.models]
    models = [{"model": member.label, "digest": member.digest} for member in members]
    pinned = {"models": models, "shares": list(section.shares)}
    folder = job.folder / MODEL
    if job.fresh and job.folder.exists():
        shutil.rmtree(job.folder)
    if _is_done(job.folder, pinned):
        return folder
    refuse_differences(members, job.recipe.trust_remote_code)
    partial = job.folder / f".partial-{MODEL}"
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        remove_partials(job.folder)
        write_atomic(job.folder / "recipe.yaml", yaml.safe_dump(job_recipe(job), sort_keys=False, allow_unicode=True))
        _write(members, section.shares, partial)
        sync_folder(partial)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
        facts = {"pinned": pinned, **environment(), "seconds": round(time.monotonic() - began, 3), "model": _digests(folder)}
        write_atomic(job.folder / "manifest.json", json.dumps({**facts, "finished": True}, indent=2) + "\n")
    except OSError as error:
        cure = "Free some space and run the same command again."
        raise CheckpointError(f"{folder}: the model could not be written ({error})\n{cure}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    listed = ", ".join(f"{share:.3g} × {member.label}" for share, member in zip(section.shares, members, strict=True))
    log.info("merged %s", listed)
    return folder


def find_member(model: MergedModel, job: Job) -> Member:
    """A model to be merged, all files of which are here. Raises RecipeError."""
    runs, trusted = job.folder.parents[1], job.recipe.trust_remote_code
    require(model, job.recipe.name, runs)
    place = model.place(job.recipe.name, runs)
    if problem := policy_problem(place):
        raise RecipeError(f"{place}: {problem}")
    if faults := model_faults(Path(place)):
        cure = "Run the stage that wrote it again: it writes the model anew from its last checkpoint"
        raise RecipeError(f"{place}: is damaged: {'; '.join(faults)}\n{cure}.")
    checked_config(place, trainable=True, revision=model.revision, trust_remote_code=trusted)
    label = place if model.revision is None else f"{place} @ {model.revision}"
    return Member(label, _here(place, model.revision), start_digest(place, model.revision))


def _here(place: str, revision: str | None) -> Path:
    """The folder of a model; one on the hub is downloaded into its cache."""
    if Path(place).is_dir():
        return Path(place)
    reach_hub()
    try:
        folder = Path(snapshot_download(place, revision=revision, ignore_patterns=["*.bin", "*.pt", "*.pth", "*.gguf", "*.h5"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(place, revision=revision, allow_patterns=["*.bin", "*.bin.index.json"]))
    except (OSError, ValueError) as error:
        raise explain(AutoConfig, place, revision, error) from error
    return folder


def refuse_differences(members: list[Member], trust_remote_code: bool) -> None:
    """RecipeError where models are not of one kind: configuration, tokenizer, chat template, and names and shapes of weights."""
    first, *others = members
    with ExitStack() as stack:
        weights = {member: stack.enter_context(open_checkpoint(member.folder)) for member in members}
        kinds = {member: _kind(member, trust_remote_code) for member in members}
        for other in others:
            lines = differences(kinds[first], kinds[other]) + differing_weights(weights[first], weights[other])
            if lines:
                what = f"{other.label} is no model of the kind of {first.label}, so the two have no mean"
                raise RecipeError(f"merge: {what}: {first_few(lines, 6)}\nMerge models that were trained from one model alike.")


def _kind(member: Member, trusted: bool) -> dict[str, Any]:
    """What a model is besides its weights, as plain values; of large ones a hash."""
    config: Mapping[str, Any] = from_pretrained(AutoConfig, member.folder, trust_remote_code=trusted).to_dict()
    if problem := tokenizer_problem(member.folder):
        raise RecipeError(f"{member.label}: {problem}")
    tokenizer = from_pretrained(AutoTokenizer, member.folder, trust_remote_code=trusted)
    plain = json.loads(json.dumps({key: value for key, value in config.items() if key not in OF_NO_WEIGHT}, default=str))
    template = hashlib.blake2b(json.dumps(tokenizer.chat_template).encode(), digest_size=8).hexdigest()
    return {"config.json": plain, "tokenizer": tokenizer_digest(tokenizer), "chat template": template}


def _write(members: list[Member], shares: tuple[float, ...], folder: Path) -> None:
    """Everything but the weights of the first model, and the mean of the weights of all."""
    shutil.copytree(members[0].folder, folder, ignore=shutil.ignore_patterns(*WEIGHTS, ".*"), dirs_exist_ok=True)
    labels = [member.label for member in members]
    with ExitStack() as stack:
        write_average([stack.enter_context(open_checkpoint(member.folder)) for member in members], shares, labels, folder)


def _is_done(folder: Path, pinned: Mapping[str, Any]) -> bool:
    """Whether a run folder holds the merge of just these models, as it was written. ResumeError where it is one of others."""
    manifest = read_manifest(folder)
    if not manifest.get("finished") or not (folder / MODEL).is_dir():
        return False
    if lines := differences(manifest.get("pinned", {}), json.loads(json.dumps(pinned))):
        listed = "\n  ".join(lines)
        cure = "Undo the change, run with --fresh to merge anew, or give the recipe another name."
        raise ResumeError(f"{folder}: holds a merge of other models:\n  {listed}\n{cure}")
    if faults := model_faults(folder / MODEL):
        log.warning("%s is damaged: %s\nIt is written again.", folder / MODEL, "; ".join(faults))
    return not faults


def _digests(folder: Path) -> dict[str, list[Any]]:
    """[bytes, digest] of every file of the model, by which damage is found later."""
    files = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}
    return {name: [file.stat().st_size, file_digest(file)] for name, file in files.items()}

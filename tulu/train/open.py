"""How every training stage begins: its section, its processes, its run directory, its tokenizer, its data and its model."""

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tulu.config.job import Job
from tulu.config.positions import longest_of
from tulu.config.schema import Source, drops_long, labels_of
from tulu.config.training import ROW_TOKENS, sequences_of
from tulu.data.chat import template_hash
from tulu.data.datasets import cache_groups, open_groups
from tulu.data.masked import sample_row
from tulu.data.stability import prompt_break
from tulu.data.token_cache import Groups
from tulu.errors import RecipeError
from tulu.files import JsonLines
from tulu.model.batch import Batch
from tulu.model.embeddings import check_vocabulary
from tulu.model.load import Origin, checked_config, load_tokenizer
from tulu.model.parallel import Parallel
from tulu.model.positions import check_length
from tulu.model.trunk import Trunk
from tulu.train.agreement import agree, from_main, software, start_digest
from tulu.train.begun import job_recipe
from tulu.train.finite import named_tensors
from tulu.train.model_files import model_faults
from tulu.train.optimizer import Learner, Trainable
from tulu.train.remembered import changes, looks_of
from tulu.train.row_size import GpuMemory, Memory, longest_row
from tulu.train.run import Run

log = logging.getLogger("tulu")


ROWS = "rows.jsonl"
"""The file of a run that holds some rows as the model reads them, with what is trained of them."""
KEPT_ROWS = 24
"""Rows in that file."""


class Pinnable(Protocol):
    """Data of which it is known later whether it is the same."""

    @property
    def digest(self) -> str:
        """Hash of all of it."""

    @property
    def digests(self) -> dict[str, str]:
        """Hash of each source, by its name."""


class StageRun(Run):
    """The run of a stage that trains a model, with what the stage reads: a tokenizer, data and a model to start from."""

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the model that the stage starts from, with the recipe's template.

        It is read before data is, so a model that cannot be trained is refused here, before the work begins.
        """
        recipe, trusted = self.job.recipe, self.job.recipe.trust_remote_code
        if faults := from_main(self.parallel, f"a look at {self.start}", lambda: model_faults(Path(self.start))):
            cure = "Run the stage that wrote it again: it writes the model anew from its last checkpoint"
            raise RecipeError(f"{self.start}: is damaged: {'; '.join(faults)}\n{cure}.")
        name, pinned = self.job.template
        config = checked_config(self.start, trainable=True, revision=self.job.revision, trust_remote_code=trusted)
        tokenizer = load_tokenizer(self.start, name, self.job.revision, trusted, pinned)
        check_vocabulary(self.start, tokenizer, config, recipe.resize_embeddings)
        check_length(*longest_of(self.section, self.job.stage), config, self.start)
        return tokenizer

    @property
    def start_options(self) -> Origin:
        """How the model that the stage starts from is loaded wherever it is, be it trained or frozen."""
        recipe = self.job.recipe
        return Origin(
            revision=self.job.revision,
            trust_remote_code=recipe.trust_remote_code,
            resize_embeddings=recipe.resize_embeddings,
        )

    @property
    def finished(self) -> bool:
        """Whether an earlier session brought the stage to its end; then it is told where what it began with has changed."""
        done = super().finished
        if done and self.parallel.is_main and isinstance(before := self.manifest().get("began_with"), dict):
            for line in changes(before, looks_of(self.section.data, self.job.start)):
                log.warning(
                    "%s: finished, and nothing is read again although %s; --fresh trains on what is there now",
                    *(self.job.stage, line),
                )
        return done

    def load_groups(self, tokenizer: PreTrainedTokenizerBase, sources: Sequence[Source] | None = None) -> Groups:
        """The groups of the stage's data, or of other sources, tokenised as the stage table says; what became of rows is logged.

        The main process tokenises them, and the others read what it left in the cache.
        """
        mix = self.section.data if sources is None else sources
        stage, section = self.job.row, self.section
        options = {"seed": section.seed, "drop_long": drops_long(stage, section), "labels": labels_of(section)}

        def tokenise() -> list[Path]:
            return cache_groups(stage.rows, mix, tokenizer, section.max_length, self.cache, **options)

        groups = open_groups(from_main(self.parallel, f"the rows of {stage.name} to be tokenised", tokenise))
        groups.report.show()
        if sources is None and self.parallel.is_main and not (kept := JsonLines(self.path / ROWS)).has_rows():
            # From the whole mix, evenly: its sources follow each other.
            count = min(KEPT_ROWS, len(groups))
            places = [len(groups) * number // count for number in range(count)]
            kept.append(sample_row(groups[place], tokenizer) for place in places)
        asks = stage.yields_policy and not stage.makes_model and sources is None
        if asks and self.parallel.is_main and (told := prompt_break(tokenizer)):
            log.warning("the template is not prefix-stable, so the model is asked in other words than it is trained on: %s", told)
        return groups

    def load(self, model_class: Any, **options: Any) -> Any:
        """The model that the stage starts from, ready to train, as a Policy or a RewardModel."""
        model = model_class.load(
            self.start,
            template=self.job.template[0],
            lora=self.section.lora,
            gradient_checkpointing=self.section.gradient_checkpointing,
            trainable=True,
            **self.start_options,
            **options,
        )
        if self.parallel.is_main:
            model.rehearse_saving(self.path / ".partial-rehearsal")
        self.save_model = model.save
        return model

    def begin(self, trained: Trainable, data: Pinnable, **facts: Any) -> Learner:
        """Pin what the run rests on, its data and facts such as the digest of its starting weights, and set up the optimizer.

        Raises ResumeError if the run began with other data, weights, template or processes, and RecipeError if a weight that
        it begins with is not finite, or another process sees other ones.
        """
        if names := self.parallel.not_finite(trained.module):
            cure = "Nothing can be learned from there; take another checkpoint of it"
            raise RecipeError(f"{self.job.start or self.job.stage}: weights that are not finite: {named_tensors(names)}\n{cure}.")
        facts |= {"data": data.digest, "sources": data.digests}
        if self.job.start is not None:
            facts["template"] = template_hash(self.tokenizer)
        seen = {} if self.job.start is None else {"files of the start": start_digest(self.job.start, self.job.revision)}
        agree(self.parallel, {**facts, **seen})
        self.pin(**facts)
        if self.parallel.is_main:
            self._update_manifest(began_with=looks_of(self.section.data, self.job.start))
        return Learner(trained, self.section, self.parallel)

    def settle_rows(self, learner: Learner, forward: Callable[[Batch], Tensor]) -> None:
        """Replace `row_tokens: auto` in the section by a number, which a resumed run finds in the manifest.

        `forward` makes a number of a row that depends on all that is trained; it is asked where memory can be measured.
        """
        section, parallel = self.section, self.parallel
        if section.row_tokens != "auto":
            return
        settled = parallel.exchange(self.manifest().get("settled") if parallel.is_main else None)[0]
        if settled is None:
            settled = {"row_tokens": ROW_TOKENS}
            # DeepSpeed has no way of giving gradients back.
            if (memory := self.device_memory()) is not None and not parallel.deepspeed:
                settled = {"row_tokens": longest_row(learner, section, forward, memory)}
                if all(trunk.rows == "packed" for trunk in learner.model.module.modules() if isinstance(trunk, Trunk)):
                    settled["micro_batch"] = max(section.micro_batch, sequences_of(section))
                log.info("row_tokens: auto is %d on this device", settled["row_tokens"])
            if parallel.is_main:
                self._update_manifest(settled=settled)
        self.section = section.model_copy(update=settled)

    def device_memory(self) -> Memory | None:
        """The memory that rows must fit, where it can be measured: that of a GPU."""
        return GpuMemory(self.parallel.device) if self.parallel.device.type == "cuda" else None


def open_stage(job: Job) -> StageRun:
    """Connect the processes and open the run directory. Raises ResumeError if it holds a run of another recipe.

    RecipeError if the processes were given different recipes, or have different software.
    """
    parallel = Parallel(job.section)
    agree(parallel, {"recipe": job_recipe(job), **software()})
    return StageRun(job, parallel)

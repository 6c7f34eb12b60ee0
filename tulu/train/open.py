"""How every training stage begins: its section, its processes, its run directory, its tokenizer and its model."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from tulu.config.job import Job, section_of
from tulu.data.chat import template_hash
from tulu.model.load import load_tokenizer
from tulu.model.parallel import Parallel
from tulu.train.optimizer import Learner, Trainable
from tulu.train.run import Run


@dataclass(frozen=True)
class OpenStage:
    """A stage whose run directory is open and whose model is not loaded yet."""

    job: Job
    section: Any
    """The recipe's section of the stage."""
    parallel: Parallel
    run: Run

    @property
    def finished(self) -> bool:
        """Whether an earlier session brought the stage to its end."""
        return self.run.finished

    @property
    def model_folder(self) -> Path:
        """The folder of the trained model."""
        return self.run.path / "model"

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the model that the stage starts from, with the recipe's template."""
        return load_tokenizer(self.run.start, self.job.recipe.template, self.job.revision)

    def load(self, model_class: Any, **options: Any) -> Any:
        """The model that the stage starts from, ready to train, as a Policy or a RewardModel."""
        return model_class.load(
            self.run.start,
            template=self.job.recipe.template,
            lora=self.section.lora,
            gradient_checkpointing=self.section.gradient_checkpointing,
            revision=self.job.revision,
            trainable=True,
            **options,
        )

    def begin(self, trained: Trainable, **facts: Any) -> Learner:
        """Pin what the run rests on, such as the digests of its data and starting weights, and set up the optimizer.

        Raises CheckpointError if the run began with other data, weights, template or processes.
        """
        if self.job.start is not None:
            facts["template"] = template_hash(self.tokenizer)
        self.run.pin(**facts)
        return Learner(trained, self.section, self.parallel)


def open_stage(job: Job) -> OpenStage:
    """Connect the processes and open the run directory. Raises CheckpointError if it holds a run of another recipe."""
    section = section_of(job.recipe, job.stage)
    parallel = Parallel(section)
    return OpenStage(job, section, parallel, Run(job, parallel))

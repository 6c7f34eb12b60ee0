"""`tulu sample MODEL`: what it names may be a run or a recipe too, and wrong options are told before torch is imported."""

from dataclasses import replace
from pathlib import Path

from tulu.config.named_models import naming
from tulu.config.vllm_import import need_engine
from tulu.evaluation.options import SampleOptions
from tulu.evaluation.refusals import check_sample

RUNS = Path("runs")
"""Where a run's name is looked up."""


def sample_named(name: str, options: SampleOptions) -> None:
    """Sample answers of the model that a name stands for. Raises RecipeError where options contradict each other."""
    with naming(name, RUNS) as named:
        options = replace(options, template=named.template or options.template)
        check_sample(named.model, options)
        need_engine(options.engine)
        from tulu.evaluation.sample import sample

        sample(named.model, options, named.revision)

"""TRL's side of benchmarks.rlvr: GRPOTrainer with vLLM in its own process ("colocate"), on the same rows as our side.

    python -m benchmarks.rlvr_trl SETTINGS.json OUT.json

SETTINGS.json holds model, recipe fields, the number of steps and the engine, vllm or asleep; OUT.json gets the seconds of
every step.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from benchmarks.asleep import LOGP, seconds_of, tokens_of
from benchmarks.sleeping_fleet import TOKEN
from tulu.config.schema import Rlvr
from tulu.data.problems import load_problems
from tulu.model.load import load_tokenizer
from tulu.types import Problem
from tulu.verifiers.registry import find


class Clock(TrainerCallback):
    """The seconds of every optimizer step, sampling and grading included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.last = time.perf_counter()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.last = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.last = now


def reward(completions: Sequence[str], gold: Sequence[Any], verifier: Sequence[str], **_: Any) -> list[float | None]:
    """What our verifiers say."""
    verdicts = [find(name)(text, json.loads(truth)) for text, truth, name in zip(completions, gold, verifier, strict=True)]
    return [verdict.score for verdict in verdicts]


def row(problem: Problem, tokenizer: Any) -> dict[str, Any]:
    """A problem as TRL reads it. It makes tokens of the text again, which must be the same."""
    text = tokenizer.decode(problem.prompt)
    assert tokenizer(text)["input_ids"] == list(problem.prompt), "TRL would sample from another prompt"
    return {"prompt": text, "gold": json.dumps(problem.ground_truth), "verifier": problem.verifiers[0]}


def sync_in_one(generation: Any) -> None:
    """TRL's sync for a CPU, where vLLM packs weights and frees what they came from: one by one they cannot be set."""
    engine = generation.llm.llm_engine
    runner = engine.model_executor.driver_worker.model_runner
    initialize_layerwise_reload(runner.model)
    runner.model.load_weights(iter([(name, weight.detach().clone()) for name, weight in generation._iter_named_params()]))
    finalize_layerwise_reload(runner.model, engine.model_config)
    generation.llm.reset_prefix_cache()


def sleep_and_write(prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
    """Completions of an engine that sleeps as ours does (benchmarks/asleep.py): TRL asks for all of a step at once."""
    samples = [place % trainer.num_generations for place in range(len(prompts))]
    time.sleep(seconds_of(samples))
    lengths = [tokens_of(sample) for sample in samples]
    return {
        "prompt_ids": [trainer.processing_class(prompt)["input_ids"] for prompt in prompts],
        "completion_ids": [[TOKEN] * length for length in lengths],
        "logprobs": [[LOGP] * length for length in lengths],
    }


def main(settings_file: Path, out: Path) -> None:
    """Train so many steps and write how long each took."""
    settings = json.loads(settings_file.read_text())
    stage = Rlvr.model_validate(settings["rlvr"])
    asleep = settings["engine"] == "asleep"
    tokenizer = load_tokenizer(settings["model"], "tulu")
    problems = load_problems(stage.data, tokenizer, stage.max_prompt, stage.verifier, bad_golds=stage.bad_golds)
    dataset = Dataset.from_list([row(problem, tokenizer) for problem in problems])
    sequences = stage.prompts * stage.samples
    config = GRPOConfig(
        output_dir=str(out.with_suffix(".trl")),
        per_device_train_batch_size=settings["micro_batch"],
        gradient_accumulation_steps=sequences // settings["micro_batch"],
        num_generations=stage.samples,
        max_completion_length=stage.max_tokens,
        temperature=stage.temperature,
        max_steps=stage.steps or 1,
        learning_rate=stage.learning_rate,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        beta=0.0,
        use_vllm=not asleep,
        vllm_mode="colocate",
        vllm_max_model_length=stage.max_length,
        vllm_gpu_memory_utilization=0.1,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        dataloader_pin_memory=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    # TRL asks the CUDA device for its memory; its answer is not used on a CPU.
    torch.cuda.get_device_properties = lambda *_: SimpleNamespace(total_memory=1 << 34)  # type: ignore[assignment]
    clock = Clock()
    trainer = GRPOTrainer(
        settings["model"],
        reward_funcs=reward,
        args=config,
        train_dataset=dataset,
        processing_class=tokenizer,
        callbacks=[clock],
        rollout_func=sleep_and_write if asleep else None,
    )
    if not asleep:
        generation: Any = trainer.vllm_generation
        generation.sync_weights = lambda: sync_in_one(generation)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    lengths = [entry["completions/mean_length"] for entry in trainer.state.log_history if "completions/mean_length" in entry]
    out.write_text(json.dumps({"seconds": clock.seconds, "rewards": rewards, "lengths": lengths}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

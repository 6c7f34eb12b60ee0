"""The process that holds vLLM: loads a model, takes verified weights, samples."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tulu.errors import EngineError
from tulu.rollout.engine import STALE, EngineSpec
from tulu.rollout.sampling import end_tokens
from tulu.rollout.sync import Entry, expected_weights, verified
from tulu.types import Completion, Problem, SamplingParams

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CPU_ROWS = 256
"""Completions that a CPU decodes together."""
CPU_TOKENS = 4096
"""Tokens of prompts that a CPU reads together."""

Finished = list[tuple[int, int, Completion]]
"""Completions that ended in one step: (index of the problem, of the sample, the completion)."""


def request_seed(seed: int, problem: str, sample: int) -> int:
    """The seed of one completion: a function of the three alone, on every machine (Python's own hash is not)."""
    name = hashlib.blake2b(f"{seed}\0{problem}\0{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(name, "big") >> 1


class VllmWorker:
    """Body of the Ray actor; its methods are called one after the other."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.version = STALE
        self.llm: Any = None
        self.ends: list[int] = []
        self.expected: dict[str, tuple[int, ...]] = {}

    def start(self) -> None:
        """Load the folder. Raises EngineError if vLLM refuses it."""
        from transformers import AutoConfig
        from vllm import LLM
        from vllm.config import WeightTransferConfig

        from tulu.rollout.vllm_transfer import register

        spec = self.spec
        folder = local_folder(spec.folder)
        tied = bool(AutoConfig.from_pretrained(folder).get_text_config().tie_word_embeddings)
        self.expected = expected_weights(folder, tied)
        try:
            self.llm = LLM(
                str(folder),
                dtype="float32" if spec.precision == "fp32" else "bfloat16",
                max_model_len=spec.max_length,
                # The raw ones know nothing of the temperature that was sampled at.
                logprobs_mode="processed_logprobs",
                weight_transfer_config=WeightTransferConfig(backend=register()),
                disable_log_stats=True,
                **placement(spec),
            )
        except (ValueError, RuntimeError, OSError) as error:
            raise EngineError(f"{spec.folder}: vLLM does not load it ({error})") from error
        self.ends = end_tokens(generation_settings(folder), self.llm.get_tokenizer())
        self.version = spec.version

    def load(self, arrived: Sequence[Any], entries: Mapping[str, Entry], version: int) -> None:
        """Sample with these weights from now on; `arrived` holds references to the bytes of each parcel.

        Raises EngineError, and samples no more until a later load succeeds, if a tensor is missing or not what was sent.
        """
        import ray

        self.version = STALE
        data = {name: array for part in ray.get(list(arrived), timeout=self.spec.timeout) for name, array in part.items()}
        weights = verified(data, entries, self.expected, DTYPES[self.spec.precision])
        self.llm.collective_rpc("start_weight_update")
        self.llm.collective_rpc("update_weights", args=({"weights": weights},))
        self.llm.collective_rpc("finish_weight_update")
        # Keys and values of the old weights under the new ones are the output of neither.
        if not self.llm.reset_prefix_cache():
            raise EngineError("vLLM did not clear its prefix cache after the new weights; nothing may be sampled")
        self.llm.llm_engine.set_weight_version(str(version))
        self.version = version

    def generate(self, problems: Sequence[Problem], n: int, params: SamplingParams, version: int) -> Iterator[Finished]:
        """Sample n completions of each problem; yields them as they end. Raises EngineError if the weights are not `version`."""
        if version == STALE or self.version != version:
            raise EngineError(f"vLLM holds weights of version {self.version}, not {version}: sync it before sampling")
        engine = self.llm.llm_engine
        for index, problem in enumerate(problems):
            for sample in range(n):
                prompt = {"prompt_token_ids": list(problem.prompt)}
                engine.add_request(f"{index}:{sample}", prompt, self._request(params, problem.id, sample))
        while engine.has_unfinished_requests():
            finished: Finished = []
            for output in engine.step():
                if output.finished:
                    index, sample = (int(part) for part in output.request_id.split(":"))
                    finished.append((index, sample, completion(output.outputs[0], version)))
            if finished:
                yield finished

    def _request(self, params: SamplingParams, problem: str, sample: int) -> Any:
        from vllm import SamplingParams as Request
        from vllm.sampling_params import RequestOutputKind

        return Request(
            max_tokens=params.max_tokens,
            temperature=params.temperature,
            top_p=params.top_p if params.temperature else 1.0,
            seed=request_seed(params.seed, problem, sample),
            stop=list(params.stop),
            include_stop_str_in_output=True,
            # What ends a completion is what ends it in the other engine, and vLLM's own idea of it besides that is not.
            ignore_eos=True,
            stop_token_ids=self.ends,
            skip_special_tokens=False,
            spaces_between_special_tokens=False,
            detokenize=bool(params.stop),
            logprobs=0,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


def placement(spec: EngineSpec) -> dict[str, Any]:
    """How much memory vLLM takes here, and whether it records graphs, which a CPU has none of."""
    if torch.cuda.is_available():
        return {"gpu_memory_utilization": spec.gpu_share}
    return {
        "kv_cache_memory_bytes": spec.cache_bytes,
        "enforce_eager": True,
        "max_num_seqs": CPU_ROWS,
        # A prompt read in parts has its generator set back after each, which vLLM 0.32 cannot do with one on a CPU.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(CPU_TOKENS, spec.max_length),
    }


def local_folder(name: str) -> Path:
    """The folder of a model given as one or by its hub name. Raises EngineError if it cannot be fetched."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]))
    except (OSError, ValueError) as error:
        raise EngineError(f"{name}: no such folder, and the hub does not give it ({error})") from error


def generation_settings(folder: Path) -> Any:
    """The generation settings that transformers gives the model: its own file's, or what its configuration says."""
    from transformers import AutoConfig, GenerationConfig

    if (folder / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(folder)
    return GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder))


def completion(output: Any, version: int) -> Completion:
    """What vLLM sampled as a completion; the token or text that ended it is part of it."""
    tokens = list(output.token_ids)
    return Completion(
        tokens=tokens,
        trained=[True] * len(tokens),
        sampler_logps=[position[token].logprob for token, position in zip(tokens, output.logprobs, strict=True)],
        finish="stop" if output.finish_reason == "stop" else "length",
        versions=[(0, version)],
    )

"""The process that runs vLLM: it loads a model, takes verified weights and samples."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedConfig

from tulu.config.shortage import is_shortage, say_engine_shortage
from tulu.config.vllm_import import cannot_be_imported
from tulu.errors import EngineError, EngineMissing
from tulu.model.generation import stop_token_ids
from tulu.rollout.cache import bytes_per_token
from tulu.rollout.engine import SHARED_SHARE, STALE, EngineSpec, Part
from tulu.rollout.sampling import stable_seed
from tulu.rollout.sync import TensorInfo, read_shapes, verify_weights
from tulu.types import Completion, Problem, SamplingParams

CPU_ROWS = 256
"""Most completions that a CPU decodes together."""
CACHE_BLOCK = 256
"""The most tokens by which vLLM gives a row memory for keys and values on a CPU."""
KEEPS_KEYS = {"full_attention", "sliding_attention", "chunked_attention"}
"""The layers of a configuration's `layer_types` that keep keys and values."""
CPU_TOKENS = 4096
"""Most prompt tokens that a CPU reads together."""

VLLM_DTYPES: Mapping[str, Literal["float32", "bfloat16", "float16"]] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""vLLM's names of the number formats."""

PULSE_SECONDS = 10.0
"""How often a worker says that it goes on while no completion ends."""


class VllmWorker:
    """The body of the Ray actor. Ray calls its methods one after the other."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.version = STALE
        self.llm: Any = None
        self.end_tokens: list[int] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        """The weights that a sync must bring, by name."""

    def start(self) -> None:
        """Load the model. Raises EngineError if vLLM refuses it, EngineMissing if vLLM cannot be imported."""
        need_vllm()
        from transformers import AutoConfig
        from vllm import LLM
        from vllm.config import WeightTransferConfig

        from tulu.rollout.vllm_transfer import register

        spec = self.spec
        folder = local_folder(spec.folder, spec.revision)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=spec.trust_remote_code)
        tied = bool(config.get_text_config().tie_word_embeddings)
        self.shapes = read_shapes(folder, tied)
        try:
            self.llm = LLM(
                str(folder),
                dtype=VLLM_DTYPES[spec.precision],
                max_model_len=spec.max_length,
                # The raw log-probs ignore the temperature; these are those of the distribution that was sampled from.
                logprobs_mode="processed_logprobs",
                weight_transfer_config=WeightTransferConfig(backend=register()),
                trust_remote_code=spec.trust_remote_code,
                disable_log_stats=True,
                **memory_options(spec, config),
            )
        except (ValueError, RuntimeError, OSError) as error:
            told = say_engine_shortage(error) if is_shortage(error) else str(error)
            raise EngineError(f"{spec.folder}: vLLM does not load it ({told})") from error
        self.end_tokens = stop_token_ids(self.llm.get_tokenizer(), generation_settings(folder, config), spec.turn_ends)
        self.version = spec.version

    def load(self, references: Sequence[Any], infos: Mapping[str, TensorInfo], version: int) -> None:
        """Sample with these weights from now on. `references` are Ray's references to the data of each parcel.

        Raises EngineError if a tensor is missing or is not what was sent; nothing is sampled then until a later load succeeds.
        """
        import ray

        self.version = STALE
        data = {name: array for part in ray.get(list(references), timeout=self.spec.timeout) for name, array in part.items()}
        weights = verify_weights(data, infos, self.shapes, self.spec.dtype)
        self.llm.collective_rpc("start_weight_update")
        self.llm.collective_rpc("update_weights", args=({"weights": weights},))
        self.llm.collective_rpc("finish_weight_update")
        # Cached keys and values come from the old weights, and continuing from them would be the output of neither model.
        if not self.llm.reset_prefix_cache():
            raise EngineError("vLLM did not clear its prefix cache after the new weights; nothing may be sampled")
        self.llm.llm_engine.set_weight_version(str(version))
        self.version = version

    def generate(
        self, problems: Sequence[Problem], wanted: Sequence[tuple[int, int]], params: SamplingParams, version: int
    ) -> Iterator[Part]:
        """Sample what is `wanted`, each by the place of its problem and its place within the group, and yield it as it ends.

        An empty part says that sampling goes on. Raises EngineError if the weights are not those of `version`.
        """
        if version == STALE or self.version != version:
            raise EngineError(f"vLLM holds weights of version {self.version}, not {version}: sync it before sampling")
        engine = self.llm.llm_engine
        for index, sample in wanted:
            prompt = {"prompt_token_ids": list(problems[index].prompt)}
            seed = stable_seed(params.seed, problems[index].id, sample)
            options = request_options(params, seed, params.max_tokens, self.end_tokens)
            engine.add_request(f"{index}:{sample}", prompt, options)
        told = time.monotonic()
        while engine.has_unfinished_requests():
            part: Part = []
            for output in engine.step():
                if output.finished:
                    index, sample = (int(number) for number in output.request_id.split(":"))
                    part.append((index, sample, to_completion(output.outputs[0], [(0, version)])))
            if part or time.monotonic() - told >= PULSE_SECONDS:
                told = time.monotonic()
                yield part


def need_vllm() -> None:
    """Raises EngineMissing where vLLM is installed and cannot be imported."""
    try:
        import vllm.sampling_params
        from vllm import LLM
    except Exception as error:  # noqa: BLE001
        # Libraries that do not fit each other fail in many ways: symbols that are missing, files, attributes.
        raise EngineMissing(cannot_be_imported(f"{type(error).__name__}: {error}")) from None
    del LLM, vllm


def request_options(params: SamplingParams, seed: int, max_tokens: int, end_tokens: Sequence[int]) -> Any:
    """vLLM's options of one request."""
    from vllm import SamplingParams as Request
    from vllm.sampling_params import RequestOutputKind

    return Request(
        max_tokens=max_tokens,
        temperature=params.temperature,
        top_p=params.top_p if params.temperature else 1.0,
        seed=seed,
        stop=list(params.stop),
        include_stop_str_in_output=True,
        # A completion ends with the same tokens as in the transformers engine; vLLM's own choice of them is switched off.
        ignore_eos=True,
        stop_token_ids=list(end_tokens),
        skip_special_tokens=False,
        spaces_between_special_tokens=False,
        detokenize=bool(params.stop),
        logprobs=0,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def memory_options(spec: EngineSpec, config: PreTrainedConfig) -> dict[str, Any]:
    """vLLM's options of memory and batch size for this machine; a CPU has no graphs to record."""
    if torch.cuda.is_available():
        return {"gpu_memory_utilization": SHARED_SHARE if spec.gpu_share is None else spec.gpu_share}
    return {
        "kv_cache_memory_bytes": cache_needed(spec, config),
        "enforce_eager": True,
        "max_num_seqs": CPU_ROWS,
        # vLLM 0.32 resets the random generator after each part of a chunked prompt, which fails for a generator on a CPU.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(CPU_TOKENS, spec.max_length),
    }


def cache_needed(spec: EngineSpec, config: PreTrainedConfig) -> int:
    """The bytes for keys and values of all rows that a CPU decodes together, at most `spec.cache_bytes`.

    vLLM clears what it is given before it samples, which takes seconds a GB where the machine's memory is in pieces, so a small
    model is given no more than it can fill.
    """
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    if getattr(text, "num_attention_heads", None) is None or not kinds <= KEEPS_KEYS:
        # Recurrent layers keep a state, whose size is not known here.
        return spec.cache_bytes
    tokens = -(-spec.max_length // CACHE_BLOCK) * CACHE_BLOCK
    return min(spec.cache_bytes, CPU_ROWS * tokens * bytes_per_token(config, spec.dtype))


ADAPTER_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks for which vLLM 0.32 makes room."""


def adapter_options(spec: EngineSpec) -> dict[str, Any]:
    """vLLM's options for the one adapter that a learner trains. Raises EngineError if its rank is too large."""
    if spec.adapters is None:
        return {}
    ranks = [rank for rank in ADAPTER_RANKS if rank >= spec.adapters.rank]
    if not ranks:
        raise EngineError(f"lora.rank {spec.adapters.rank}: vLLM takes at most 512; set rlvr.resources.adapters to merged")
    return {"enable_lora": True, "max_lora_rank": ranks[0], "max_loras": 1}


def adapter_request(folder: str) -> Any:
    """The adapter under the name that it always has; where `folder` holds one, it takes the place of the one before."""
    from vllm.lora.request import LoRARequest

    return LoRARequest("tulu", 1, folder, load_inplace=folder != "none")


def local_folder(name: str, revision: str | None = None) -> Path:
    """The folder of a model, which is downloaded if `name` is a hub name. Raises EngineError if that fails."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        files = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.py"]
        return Path(snapshot_download(name, revision=revision, allow_patterns=files))
    except (OSError, ValueError) as error:
        raise EngineError(f"{name}: no such folder, and the hub does not give it ({error})") from error


def generation_settings(folder: Path, config: Any) -> Any:
    """The generation settings as transformers loads them: from their own file if there is one, else from the configuration."""
    from transformers import GenerationConfig

    if (folder / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(folder)
    return GenerationConfig.from_model_config(config)


def to_completion(output: Any, spans: Sequence[tuple[int, int]]) -> Completion:
    """Make a Completion of vLLM's output; it includes the token or text that ended it.

    `spans` are the versions of the weights that its tokens were sampled with, as (first token, version).
    """
    tokens = list(output.token_ids)
    return Completion(
        tokens=tokens,
        trained=[True] * len(tokens),
        sampler_logps=[position[token].logprob for token, position in zip(tokens, output.logprobs or (), strict=True)],
        finish="stop" if output.finish_reason == "stop" else "length",
        versions=list(spans),
    )

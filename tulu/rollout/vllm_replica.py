"""A replica that samples with vLLM's AsyncLLM, tensor parallel inside. Ray shows its processes by the name of this class."""

import asyncio
import os
import pickle
from collections import Counter
from collections.abc import Awaitable, Sequence
from contextlib import nullcontext
from typing import Any

from tulu.config.shortage import is_shortage, say_engine_shortage
from tulu.errors import EngineError
from tulu.model.generation import stop_token_ids
from tulu.rollout.broadcast import Joining
from tulu.rollout.engine import EngineSpec
from tulu.rollout.fleet import Request
from tulu.rollout.fleet_replica import Replica, Taken, Waking
from tulu.rollout.pieces import Place
from tulu.rollout.sync import Layout, Shapes, read_shapes
from tulu.rollout.vllm_causes import broken, cause_of, own_log, points_elsewhere
from tulu.rollout.vllm_forks import ForkServer, fork_server
from tulu.rollout.vllm_worker import (
    VLLM_DTYPES,
    adapter_options,
    adapter_request,
    generation_settings,
    local_folder,
    memory_options,
    need_vllm,
    request_options,
    to_completion,
)
from tulu.types import Completion

EXTENSION = "tulu.rollout.vllm_extension.TuluExtension"
"""What vLLM adds to its own worker."""


class VllmReplica(Replica):
    """One vLLM engine. The engine itself runs in child processes of this one, which end when this one does."""

    llm: Any = None
    adapter: Any = None
    """What vLLM is told with every request, where syncs bring adapters alone."""
    end_tokens: list[int]
    forks: ForkServer | None = None
    """Where the engine core comes from; None where it is a new process."""

    def __init__(self, spec: EngineSpec, tensor_parallel: int = 1) -> None:
        super().__init__(spec, tensor_parallel)
        self.done_with: Counter[str] = Counter()
        """How many of the workers need a file in memory no more, by its path."""

    def get_ready(self) -> None:
        """vLLM takes 6 to 10 s of a core to import, here and again for the engine core: both are done at the same time."""
        self.forks = self.forks or fork_server()
        need_vllm()
        import vllm.v1.engine.async_llm  # noqa: F401

        import tulu.rollout.vllm_pulse
        import tulu.rollout.vllm_transfer  # noqa: F401

    async def load_model(self) -> Shapes:
        """Load the model into vLLM. Raises EngineError if vLLM refuses it, EngineMissing if it cannot be imported."""
        self.get_ready()
        from transformers import AutoConfig
        from vllm.config import WeightTransferConfig
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        from tulu.rollout.vllm_pulse import make_pulse
        from tulu.rollout.vllm_transfer import register

        spec = self.spec
        folder = local_folder(spec.folder, spec.revision)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=spec.trust_remote_code)
        shapes = read_shapes(folder, bool(config.get_text_config().tie_word_embeddings))
        if spec.adapters is not None:
            shapes = dict(spec.adapters.shapes)
        options = AsyncEngineArgs(
            model=str(folder),
            dtype=VLLM_DTYPES[spec.precision],
            max_model_len=spec.max_length,
            # The raw log-probs ignore the temperature; these are those of the distribution that was sampled from.
            logprobs_mode="processed_logprobs",
            weight_transfer_config=WeightTransferConfig(backend=register()),
            worker_extension_cls=EXTENSION,
            tensor_parallel_size=self.tensor_parallel,
            trust_remote_code=spec.trust_remote_code,
            enable_sleep_mode=spec.sleeps,
            **memory_options(spec, config),
            **adapter_options(spec),
        )
        try:
            with self.forks.serving() if self.forks else nullcontext():
                self.llm = AsyncLLM.from_engine_args(options, stat_loggers=[make_pulse(self.sampled)])
        except (ValueError, RuntimeError, OSError) as error:
            told = say_engine_shortage(error) if is_shortage(error) else cause_of(error) or str(error)
            cure = "; set rlvr.resources.adapters to merged if it takes no adapters" if spec.adapters else ""
            raise EngineError(f"{spec.folder}: vLLM does not load it ({told}); vLLM's own words: {own_log()}{cure}") from error
        self.adapter = adapter_request("none") if spec.adapters else None
        await self._patiently(self.llm.collective_rpc("tulu_end_with", args=(os.getpid(),)))
        await self._patiently(self.llm.update_weight_version(str(spec.version)))
        self.end_tokens = stop_token_ids(self.llm.get_tokenizer(), generation_settings(folder, config), spec.turn_ends)
        return shapes

    async def sample(self, request: Request) -> tuple[Completion, bool]:
        """Sample one request, behind what had begun of it."""
        begun = list(request.begun.tokens) if request.begun is not None else []
        prompt = {"prompt_token_ids": [*request.prompt, *begun]}
        params = request.params
        options = request_options(params, request.seed, params.max_tokens - len(begun), self.end_tokens)
        result = None
        try:
            async for output in self.llm.generate(prompt, options, request.key, lora_request=self.adapter):
                result = output.outputs[0]
        except Exception as error:
            # Only here the log can be read in which the cause stands.
            raise broken(error) from error
        if result is None:
            raise EngineError("vLLM gave no output")
        return to_completion(result, spans_of(result)), result.finish_reason != "abort"

    async def stop_sampling(self, keys: Sequence[str]) -> None:
        """Abort these requests; vLLM then hands over the tokens so far."""
        await self._patiently(self.llm.abort(keys))

    async def pause(self) -> None:
        """Keep the requests and drop all keys and values, which vLLM computes again with the new weights."""
        await self._patiently(self.llm.pause_generation(mode="keep", clear_cache=True))
        if self.adapter is None:
            await self._patiently(self.llm.start_weight_update())
        await self._patiently(self.llm.collective_rpc("tulu_begin", args=(self.spec.load_threads,)))

    async def receive(self, place: Place, layout: Layout) -> Taken:
        """Let every worker verify and load the piece; it counts only if all of them saw the same bytes."""
        apart = self.adapter is not None
        answers = await self._patiently(self.llm.collective_rpc("tulu_take", args=(pickle.dumps((place, layout)), apart)))
        missed = "; ".join(answer["missed"] for answer in answers if answer["missed"])
        if not missed and any(answer["digests"] != answers[0]["digests"] for answer in answers):
            raise EngineError("the workers of one engine read different weights from the same memory; its machine is broken")
        seconds = {part: max(answer[part] for answer in answers) for part in ("verify", "load")}
        for path in (path for answer in answers for path in answer["free"]):
            self.done_with[path] += 1
        free = [path for path, workers in self.done_with.items() if workers == len(answers)]
        for path in free:
            del self.done_with[path]
        return Taken({} if missed else answers[0]["digests"], missed, seconds, free)

    async def meet(self, joining: Joining) -> str:
        """Each worker joins under a rank of its own, one behind the other from that of `joining`."""
        reasons = await self._patiently(self.llm.collective_rpc("tulu_meet", args=(pickle.dumps(joining),)))
        return "; ".join(filter(None, reasons))

    async def cards(self) -> list[str]:
        """The GPU of each worker."""
        found: list[str] = await self._patiently(self.llm.collective_rpc("tulu_card"))
        return found

    async def adopt(self, version: int) -> None:
        """Compute with the new weights, and with no key or value of the old ones."""
        if self.spec.adapters is None:
            await self._patiently(self.llm.finish_weight_update(str(version)))
        else:
            await self._patiently(self.llm.collective_rpc("tulu_adopt", args=(self.spec.adapters.config,)))
            await self._patiently(self.llm.update_weight_version(str(version)))
        if not await self._patiently(self.llm.reset_prefix_cache()):
            raise EngineError("vLLM did not clear its prefix cache after the new weights; nothing may be sampled")

    async def resume(self) -> None:
        """Go on sampling."""
        await self._patiently(self.llm.resume_generation())

    async def sleep(self) -> None:
        """Weights stay on the CPU meanwhile (level 1 of vLLM) only if they do not come anew with the next sync (level 2)."""
        await self._patiently(self.llm.sleep(level=2 if self.adapter is None else 1, mode="keep"))

    async def wake(self, what: Waking) -> None:
        """Take one kind of memory again; vLLM goes on sampling by itself when it has both."""
        await self._patiently(self.llm.wake_up(tags=[what]))

    async def _patiently(self, call: Awaitable[Any]) -> Any:
        try:
            return await asyncio.wait_for(call, self.spec.timeout)
        except TimeoutError:
            raise EngineError(f"vLLM's engine core did not answer within {self.spec.timeout:.0f} s") from None
        except Exception as error:
            if points_elsewhere(error):
                raise broken(error) from error
            raise


def spans_of(output: Any) -> list[tuple[int, int]]:
    """(first token, weight version) wherever the weights changed, as vLLM noted it. Raises EngineError if it did not."""
    spans = [(span.start, int(span.version)) for span in output.weight_versions or () if span.end > span.start]
    if output.token_ids and not spans:
        raise EngineError("vLLM does not say with which weights it sampled")
    return spans

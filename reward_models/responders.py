"""Chat models that reply for a judge: one behind an OpenAI-compatible endpoint, or one that is run on this machine."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from tulu.config.positions import usual_answer
from tulu.data.chat import encode_prompts, template_hash
from tulu.errors import EngineError, RecipeError
from tulu.model.generation import turn_end_tokens
from tulu.model.load import checked_config, load_tokenizer
from tulu.model.positions import longest_document
from tulu.reward_models.options import RewardBenchOptions
from tulu.rollout.engine import EngineSpec
from tulu.rollout.engines import make_engine
from tulu.types import Message, Problem, SamplingParams
from tulu.verifiers.endpoint import Busy, Endpoint, EndpointError, Refused

THREADS = 10
"""Conversations that are under way at once."""
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between attempts while an endpoint is busy or unreachable."""
TIMEOUT = 600.0
"""Seconds that one reply may take."""


class Responder(Protocol):
    """A chat model that replies to conversations."""

    settings: dict[str, Any]
    """What the replies depend on."""

    def replies(self, chats: Sequence[Sequence[Message]], max_tokens: int) -> list[str | None]:
        """Greedy replies, in order; None for a conversation that is too long for the model."""

    def usual_tokens(self, usual: int) -> int:
        """Most tokens of a reply where nobody gave a number: the usual one, and of a model on this machine what fits it."""
        return usual

    def close(self) -> None:
        """Free the model, where it is on this machine."""
        return


class EndpointJudge(Responder):
    """Greedy replies of the model that a base URL serves under a name."""

    def __init__(self, base: str, model: str, api_key_env: str, pauses: Sequence[float] | None = None) -> None:
        if not base.startswith(("http://", "https://")):
            raise EngineError(f"--endpoint {base}: not an address; give the base URL, such as http://localhost:8000/v1")
        self.pauses = PAUSES if pauses is None else pauses
        self._endpoint = Endpoint(base, model, os.environ.get(api_key_env, ""))
        # The address is no setting of the judge: an evaluation resumes on another port.
        self.settings = {"backend": "endpoint"}

    def replies(self, chats: Sequence[Sequence[Message]], max_tokens: int) -> list[str | None]:
        """Replies in order; None for a conversation that the server refuses (400: too long for the model).

        Raises EngineError if the server cannot be reached, wants a key, knows no such model, or refuses everything.
        """
        if not chats:
            return []
        with ThreadPoolExecutor(THREADS) as threads:
            futures = [threads.submit(self._reply, chat, max_tokens) for chat in chats]
            try:
                results = [future.result() for future in futures]
            except BaseException:
                # One dead call means a dead server: the other calls need not wait out their attempts too.
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        refusals = [result for result in results if isinstance(result, Refused)]
        if len(refusals) == len(results):
            raise EngineError(f"{self._endpoint.url} refuses every request: {refusals[0]}")
        return [None if isinstance(result, Refused) else result for result in results]

    def _reply(self, chat: Sequence[Message], max_tokens: int) -> str | Refused:
        url = self._endpoint.url
        try:
            # A reasoning model that used up its tokens while thinking has written no text.
            return self._endpoint.complete(chat, max_tokens, timeout=TIMEOUT, pauses=self.pauses).text or ""
        except Refused as refusal:
            return refusal
        except Busy as busy:
            raise EngineError(
                f"{url} does not answer after {len(self.pauses) + 1} attempts ({busy}). What was judged is kept: "
                "run the same command again once the server is up, and it resumes"
            ) from busy
        except EndpointError as error:
            key = error.status in (401, 403)
            cure = "set the key's environment variable, or name it with --api-key-env" if key else "check URL and MODEL"
            raise EngineError(f"{url}: {error}; {cure}") from error


class LocalJudge(Responder):
    """A chat model in this machine's memory."""

    def __init__(self, model: str, options: RewardBenchOptions) -> None:
        """Raises RecipeError where nothing says how many tokens the model can read."""
        trusted = options.trust_remote_code
        config = checked_config(model, trainable=False, trust_remote_code=trusted)
        self.tokenizer = load_tokenizer(model, options.template or "tokenizer", trust_remote_code=trusted)
        most = options.max_length or longest_document(config)
        if most is None:
            raise RecipeError(f"{model}: its configuration states no longest length; give one with --max-length")
        if options.judge_tokens is not None and options.judge_tokens >= most:
            what = f"--judge-tokens {options.judge_tokens}: the judge reads {most} tokens, for question and reply"
            raise RecipeError(f"{what}; lower it")
        self.max_length = most
        spec = EngineSpec(
            model,
            self.max_length,
            options.precision,
            version=0,
            trust_remote_code=trusted,
            turn_ends=turn_end_tokens(self.tokenizer),
        )
        self.engine = make_engine(options.engine, spec)
        self.settings = {
            "backend": "local",
            "template": template_hash(self.tokenizer),
            "max_length": self.max_length,
            "precision": options.precision,
        }

    def usual_tokens(self, usual: int) -> int:
        return usual_answer(usual, self.max_length)

    def close(self) -> None:
        self.engine.close()

    def replies(self, chats: Sequence[Sequence[Message]], max_tokens: int) -> list[str | None]:
        """Greedy replies, in order; None for a conversation that leaves no room for a reply."""
        encoded = encode_prompts(self.tokenizer, chats)
        refused = next((one.problem for one in encoded if one.problem), None)
        if refused is not None:
            raise RecipeError(f"the judge's chat template refuses the judge prompt ({refused}); choose another --template")
        fits = [index for index, one in enumerate(encoded) if len(one.tokens) + max_tokens <= self.max_length]
        problems = [Problem(str(index), chats[index], encoded[index].tokens, None, ()) for index in fits]
        replies: list[str | None] = [None] * len(chats)
        if problems:
            groups = self.engine.generate(problems, 1, SamplingParams(max_tokens, temperature=0.0))
            for index, group in zip(fits, groups, strict=True):
                replies[index] = str(self.tokenizer.decode(list(group.completions[0].tokens), skip_special_tokens=True))
        return replies

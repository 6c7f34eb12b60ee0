"""From logits to tokens: which token is drawn, with which log-prob, and whether it ends the completion."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def stable_seed(*parts: object) -> int:
    """A seed of 63 bits made from the parts alone. It is the same on every machine, which Python's own hash is not."""
    name = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(name, "big") >> 1


def uniforms(seed: int, problem: str, n: int, length: int) -> Tensor:
    """(n, length) float32 random numbers in [0, 1).

    They depend on seed, problem id, n and length alone, not on what else is in the batch.
    """
    generator = torch.Generator().manual_seed(stable_seed(seed, problem))
    return torch.rand(n, length, generator=generator)


def draw(logits_RV: Tensor, uniform_R: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> tuple[Tensor, Tensor]:
    """Draw one token per row from softmax(logits / temperature), and return the (R,) tokens and their (R,) log-probs.

    The drawn token is where the distribution function first exceeds the row's uniform number. Temperature 0 takes the most
    likely token and gives its log-prob at temperature 1.
    """
    logits_RV = logits_RV.float()
    if temperature == 0:
        tokens_R = logits_RV.argmax(-1)
        return tokens_R, _select(logits_RV.log_softmax(-1), tokens_R)
    logits_RV = logits_RV / temperature
    if top_p < 1:
        logits_RV = nucleus(logits_RV, top_p)
    logps_RV = logits_RV.log_softmax(-1)
    cumulative_RV = logps_RV.exp().cumsum(-1)
    total_R = cumulative_RV[:, -1]
    # The target stays below the total even after rounding, so that the drawn token never has probability zero.
    target_R = torch.minimum(uniform_R * total_R, torch.nextafter(total_R, torch.zeros_like(total_R)))
    # No place in the order is that of a NaN; such a row gets the last token, with a log-prob of NaN.
    last = logits_RV.shape[-1] - 1
    tokens_R = torch.searchsorted(cumulative_RV, target_R[:, None], right=True).squeeze(-1).clamp(max=last)
    return tokens_R, _select(logps_RV, tokens_R)


def nucleus(logits_RV: Tensor, top_p: float) -> Tensor:
    """(R, V) logits that are -inf except for the fewest most likely tokens that reach top_p together (Holtzman et al. 2020)."""
    sorted_RV, order_RV = logits_RV.sort(-1, descending=True)
    probs_RV = sorted_RV.softmax(-1)
    before_RV = probs_RV.cumsum(-1) - probs_RV
    drop_RV = (before_RV >= top_p).scatter(-1, order_RV, before_RV >= top_p)
    return logits_RV.masked_fill(drop_RV, float("-inf"))


def _select(logps_RV: Tensor, tokens_R: Tensor) -> Tensor:
    return logps_RV.gather(-1, tokens_R[:, None]).squeeze(-1)


class StopTexts:
    """Finds completions whose newest token completes one of the stop texts."""

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.texts = tuple(texts)
        # Every token is at least one byte long, except special tokens that may stand inside the span of a stop text.
        self.window = max((len(text.encode()) for text in texts), default=0) + 8

    def contained(self, recent: list[list[int]]) -> list[bool]:
        """For each completion, given by its last `window` tokens: whether they contain a stop text."""
        texts = self.tokenizer.batch_decode(recent, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return [any(stop in text for stop in self.texts) for text in texts]

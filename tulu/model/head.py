"""The output head: hidden states to the log-probs of trained tokens, by the rule of each architecture, which is measured."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tulu.errors import RecipeError
from tulu.model.dropout import evaluating
from tulu.model.gathering import gathered, refuse_not_finite, whole, whole_values
from tulu.model.logprobs import token_logps
from tulu.model.softmax import LogitRule

CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""The fields of configurations that hold the cap of the logits: Gemma's, RecurrentGemma's, xLSTM's."""
FACTORS = ("logit_scale", "lm_head_multiplier")
"""Fields by which logits are multiplied: Cohere's, Falcon-H1's."""
DIVISORS = ("logits_scaling",)
"""Fields by which logits are divided: Granite's and MiniCPM's."""
LARGE = 60.0
"""The size of the logits with which the rule is measured, well above every cap."""
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""By dtype, the largest difference of logits, relative to the largest of them, that passes as rounding."""


class TokenLogps(nn.Module):
    """The output head, read where a token is trained; it shares its weight with the model's own head.

    It is a module because ZeRO-3 gathers a weight for the forward and backward pass of the module that owns it.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        head: Any = model.get_output_embeddings()
        self.weight = head.weight
        self.bias = getattr(head, "bias", None)
        self.rule = logit_rule(model.config.get_text_config())

    def forward(
        self, hidden_NH: Tensor, target_N: Tensor, temperature: float, entropy: bool, entropy_gradient: bool = False
    ) -> tuple[Tensor, Tensor]:
        numbers: dict[str, Any] = {"temperature": temperature, "entropy": entropy, "rule": self.rule}
        numbers["entropy_gradient"] = entropy_gradient
        return token_logps(hidden_NH, self.weight, target_N, bias_V=self.bias, **numbers)


def logit_rule(config: Any) -> LogitRule:
    """What a configuration says about the logits."""
    scale, caps = 1.0, [getattr(config, name, None) for name in CAPS]
    for name in FACTORS:
        scale *= _number(config, name)
    for name in DIVISORS:
        scale /= _number(config, name)
    return LogitRule(scale, next((float(cap) for cap in caps if cap), None))


def _number(config: Any, name: str) -> float:
    value = getattr(config, name, None)
    return float(value) if isinstance(value, (int, float)) else 1.0


def check_head(head: TokenLogps, model: PreTrainedModel, trunk: nn.Module) -> None:
    """Raise RecipeError unless the model's own logits are those that `head` makes of the trunk's hidden states.

    What goes into the model's head is enlarged until a cap or a factor cannot pass as rounding, whatever the dtype.
    """
    own: Any = model.get_output_embeddings()
    if trunk is model:
        raise RecipeError(f"{type(model).__name__}: its trunk and its output head cannot be told apart; it is not supported")
    tokens_T = torch.arange(8, device=head.weight.device) % model.config.get_text_config().vocab_size
    inputs: dict[str, Any] = {"input_ids": tokens_T[None], "use_cache": False}
    with gathered(model), evaluating(model):
        hidden_TH = trunk(**inputs).last_hidden_state[0]
        factor, products_TV = _enlarged(head, hidden_TH)
        hook = own.register_forward_pre_hook(lambda module, args: (factor * args[0], *args[1:]))
        try:
            logits_TV = model(**inputs).logits[0].float()
        finally:
            hook.remove()
    expected_TV = head.rule.apply(products_TV.float())
    difference = float((logits_TV - expected_TV).abs().max() / expected_TV.abs().max())
    if not math.isfinite(difference):
        refuse_not_finite(model)
        cure = "take precision fp32, or another checkpoint of it"
        raise RecipeError(f"{model.name_or_path}: its logits are not finite in {model.dtype}; {cure}")
    if not difference <= TOLERANCE[hidden_TH.dtype]:
        reason = f"its logits differ by {difference:.1e} of their size from those that are trained"
        raise RecipeError(f"{type(model).__name__}: {reason}; this architecture makes them in a way that is not supported")


def _enlarged(head: TokenLogps, hidden_TH: Tensor) -> tuple[float, Tensor]:
    """The factor that makes products of hidden states with the head large, and the (T, V) products."""
    with whole(head.weight) as weight_VH:
        factor = LARGE / max(float((hidden_TH @ weight_VH.to(hidden_TH.dtype).T).abs().max()), 1e-30)
        bias = None if head.bias is None else whole_values(head.bias).to(hidden_TH.dtype)
        return factor, nn.functional.linear(factor * hidden_TH, weight_VH.to(hidden_TH.dtype), bias)

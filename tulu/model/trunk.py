"""The transformer under every head: hidden states of a packed batch at the positions that are read.

Whether a model can share a prompt between completions is measured when it is loaded, not assumed: packed rows
must give the hidden states of plain forward passes, and a change in one document must not move another. A model
that fails (recurrent or hybrid layers, attention of its own) gets padded rows, one completion each.
"""

import logging
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tulu.model.attention import SEGMENTS, layout
from tulu.model.batch import Batch, pack_row, padded_rows
from tulu.model.last_layer import ReadOnlyLastLayer
from tulu.model.parallel import gathered
from tulu.types import Completion, Group

log = logging.getLogger("tulu")

Read = Literal["trained", "last"]
ALIGNMENT = 64
"""Bytes: torch's own allocations on a CPU begin at multiples of it."""
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
"""Largest mean |packed - plain| of hidden states, relative to their mean size, by dtype: rounding, not leakage.
Leakage of one neighbour moves hidden states by the order of their own size."""


def disable_dropout(model: nn.Module) -> None:
    """Log-probs must be a function of the weights: ratios, references and resumed runs all rest on it."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if "attention_dropout" in vars(module):
            vars(module)["attention_dropout"] = 0.0


def align(model: nn.Module) -> None:
    """Move weights that were mapped from a file to addresses as torch would choose: small matrix products round by them,
    and a model that was saved and loaded should give the same bits."""
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and parameter.data_ptr() % ALIGNMENT:
            parameter.data = parameter.data.clone()


class Trunk(nn.Module):
    """A transformer without its head, reading packed batches."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model.base_model
        self.owner = [model]
        """The model whose attention is switched; in a list, so that it is not registered a second time."""
        self.shares_prefix = False

    def forward(self, batch: Batch, read: Read = "trained") -> Tensor:
        """(N, H) hidden states at `batch.read_N`, or (C, H) at each completion's last token."""
        if self.shares_prefix:
            positions = batch.read_N if read == "trained" else batch.last_C
            return self._packed(batch, positions)[positions]
        rows = padded_rows(batch)
        hidden_CLH = self._last_hidden(input_ids=rows.tokens_CL, attention_mask=rows.mask_CL)
        return hidden_CLH.flatten(0, 1)[rows.read_N if read == "trained" else rows.last_C]

    def _packed(self, batch: Batch, read: Tensor | None = None) -> Tensor:
        """(T, H) hidden states of the row: of every token, or such that those at `read` are right."""
        return self._last_hidden(
            input_ids=batch.tokens_T[None],
            position_ids=batch.positions_T[None],
            attention_mask=None,
            layout=layout(batch, read),
        )[0]

    def _last_hidden(self, **inputs: Any) -> Tensor:
        hidden: Tensor = self.model(**inputs, use_cache=False).last_hidden_state
        return hidden

    def adopt_segments(self) -> None:
        """Use segment attention if it is exact for this model; otherwise keep the model's own, and say why."""
        model = self.owner[0]
        before = model.config._attn_implementation
        reason = ""
        try:
            model.set_attn_implementation(SEGMENTS)
            with gathered(self.model):
                reason = self._packing_fault()
        except (TypeError, ValueError, NotImplementedError, RuntimeError, KeyError, AttributeError) as error:
            # An architecture whose forward pass refuses the layout says so in a way of its own.
            reason = f"{type(error).__name__}: {error}"
        self.shares_prefix = not reason
        if reason:
            capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None
            model.set_attn_implementation("eager" if capped else before)
            log.warning("%s takes padded rows, one completion each: %s", type(model).__name__, reason)
        else:
            self._read_only_last_layer()

    @torch.no_grad()
    def _read_only_last_layer(self) -> None:
        """Compute the last layer where it is read, if that changes nothing there; measured too, like packing."""
        layers = getattr(self.model, "layers", None)
        if not isinstance(layers, nn.ModuleList):
            return
        hooks = ReadOnlyLastLayer(layers[-1])
        batch = pack_row([self._probe(seed) for seed in (1, 2)]).to(next(self.model.parameters()).device)
        try:
            with gathered(self.model):
                whole_TH = self._packed(batch)
                read_CH = self._packed(batch, batch.last_C)[batch.last_C]
            difference = float((read_CH - whole_TH[batch.last_C]).abs().mean() / whole_TH.abs().mean())
            fault = "" if difference <= TOLERANCE[whole_TH.dtype] else f"hidden states differ by {difference:.1e} of their size"
        except (TypeError, ValueError, RuntimeError) as error:
            # A feed-forward that returns more than a tensor, or counts on its row being whole.
            fault = f"{type(error).__name__}: {error}"
        if fault:
            hooks.remove()
            log.info("the last layer of %s is computed whole: %s", type(self.owner[0]).__name__, fault)

    @torch.no_grad()
    def _packing_fault(self) -> str:
        """Why packed rows are not exact for this model; empty where they are."""
        training = self.training
        self.eval()
        device = next(self.model.parameters()).device
        first, second, changed = (self._probe(seed) for seed in (1, 2, 3))
        batch = pack_row([first, second]).to(device)
        packed_TH = self._packed(batch)
        moved_TH = self._packed(pack_row([first, changed]).to(device))
        own = first.n_tokens
        # Eager is what the architecture means: SDPA leaves out soft caps without a word.
        self.owner[0].set_attn_implementation("eager")
        fault = ""
        scale = packed_TH.abs().mean()
        for segment in batch.completions:
            runs = (segment.prefix_start, segment.prefix_end), (segment.start, segment.end)
            tokens_T = torch.cat([batch.tokens_T[start:end] for start, end in runs])
            plain_TH = self._last_hidden(input_ids=tokens_T[None])[0]
            difference = (plain_TH[segment.prefix_length :] - packed_TH[segment.start : segment.end]).abs().mean() / scale
            if not difference <= TOLERANCE[packed_TH.dtype]:
                fault = f"packed and plain hidden states differ by {difference:.1e} of their size"
        # Experts see all tokens of a row in one product, whose order of summation may depend on the neighbours.
        leak = (packed_TH[:own] - moved_TH[:own]).abs().mean() / scale
        if not leak <= TOLERANCE[packed_TH.dtype]:
            fault = f"changing one document moves another by {leak:.1e} of its size"
        self.owner[0].set_attn_implementation(SEGMENTS)
        self.train(training)
        return fault

    def _probe(self, seed: int) -> Group:
        """A prompt of 9 tokens and completions of 7, 5 and 11 random ones."""
        vocabulary = self.owner[0].config.get_text_config().vocab_size
        generator = torch.Generator().manual_seed(seed)

        def tokens(n: int) -> list[int]:
            return torch.randint(0, vocabulary, (n,), generator=generator).tolist()

        return Group(tokens(9), tuple(Completion(tokens(n), [True] * n) for n in (7, 5, 11)))

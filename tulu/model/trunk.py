"""The trunk: a transformer without its head, which gives the hidden states of a packed batch where they are read.

Whether the completions of a prompt can share it in one row is measured when a model is loaded: packed rows must give the
hidden states of plain forward passes, and a change in one document must not move another. A model that fails, for example
one with recurrent layers or with attention of its own, gets padded rows, one completion each.
"""

import logging
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tulu.model.attention import SEGMENTS, layout
from tulu.model.batch import Batch, pack_row, padded_rows
from tulu.model.dropout import evaluating
from tulu.model.last_layer import ReadOnlyLastLayer
from tulu.model.parallel import gathered
from tulu.model.private_state import attention_of
from tulu.types import Completion, Group

log = logging.getLogger("tulu")

Read = Literal["trained", "last"]
"""What is read of a batch: the states that predict its trained tokens, or the state at each completion's last token."""
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
"""By dtype, the largest mean |packed - plain| of hidden states, relative to their mean size, that passes as rounding.
Where a neighbour leaks into a document, its hidden states move by about their own size."""


class Trunk(nn.Module):
    """A transformer without its head, reading packed batches."""

    owner: PreTrainedModel
    """The model with its head, whose attention is switched."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model.base_model
        # nn.Module's own way of setting it would register the model, and count its parameters, a second time.
        object.__setattr__(self, "owner", model)
        self.shares_prefix = False
        """Whether the completions of a prompt share it in one row."""

    def forward(self, batch: Batch, read: Read = "trained") -> Tensor:
        """(N, H) hidden states at `batch.read_N`, or (C, H) at each completion's last token."""
        if self.shares_prefix:
            positions = batch.read_N if read == "trained" else batch.last_C
            return self._packed(batch, positions)[positions]
        rows = padded_rows(batch)
        hidden_CLH = self._last_hidden(input_ids=rows.tokens_CL, attention_mask=rows.mask_CL)
        return hidden_CLH.flatten(0, 1)[rows.read_N if read == "trained" else rows.last_C]

    def _packed(self, batch: Batch, read: Tensor | None = None) -> Tensor:
        """(T, H) hidden states of the row. Where positions are given in `read`, only the states there are right."""
        return self._last_hidden(
            input_ids=batch.tokens_T[None],
            position_ids=batch.positions_T[None],
            attention_mask=None,
            layout=layout(batch, read),
        )[0]

    def _last_hidden(self, **inputs: Any) -> Tensor:
        """(B, T, H) hidden states behind the last layer and its norm."""
        hidden: Tensor = self.model(**inputs, use_cache=False).last_hidden_state
        return hidden

    def adopt_segments(self) -> None:
        """Use segment attention if it is exact for this model; otherwise keep the model's own attention and log the reason."""
        model = self.owner
        before = attention_of(model)
        try:
            model.set_attn_implementation(SEGMENTS)
            with gathered(self.model), evaluating(self):
                reason = self._packing_fault()
        except (TypeError, ValueError, NotImplementedError, RuntimeError, KeyError, AttributeError) as error:
            # Each architecture has its own way of refusing the layout in its forward pass.
            reason = f"{type(error).__name__}: {error}"
        self.shares_prefix = not reason
        if reason:
            capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None
            model.set_attn_implementation("eager" if capped else before)
            log.warning("%s takes padded rows, one completion each: %s", type(model).__name__, reason)
        else:
            self._read_only_last_layer()

    def _read_only_last_layer(self) -> None:
        """Compute the last layer at the read positions alone, if a measurement shows that it changes nothing there."""
        layers = getattr(self.model, "layers", None)
        if not isinstance(layers, nn.ModuleList):
            return
        hooks = ReadOnlyLastLayer(layers[-1])
        batch = pack_row([self._probe(seed) for seed in (1, 2)]).to(next(self.model.parameters()).device)
        try:
            with gathered(self.model), evaluating(self):
                whole_TH = self._packed(batch)
                read_CH = self._packed(batch, batch.last_C)[batch.last_C]
            difference = float((read_CH - whole_TH[batch.last_C]).abs().mean() / whole_TH.abs().mean())
            fault = "" if difference <= TOLERANCE[whole_TH.dtype] else f"hidden states differ by {difference:.1e} of their size"
        except (TypeError, ValueError, RuntimeError) as error:
            # The feed-forward returns more than a tensor, or counts on a whole row.
            fault = f"{type(error).__name__}: {error}"
        if fault:
            hooks.remove()
            log.info("the last layer of %s is computed whole: %s", type(self.owner).__name__, fault)

    def _packing_fault(self) -> str:
        """Why packed rows are not exact for this model; empty where they are."""
        device = next(self.model.parameters()).device
        first, second, changed = (self._probe(seed) for seed in (1, 2, 3))
        batch = pack_row([first, second]).to(device)
        packed_TH = self._packed(batch)
        moved_TH = self._packed(pack_row([first, changed]).to(device))
        # Eager attention computes what the architecture defines; SDPA silently leaves out soft caps.
        self.owner.set_attn_implementation("eager")
        fault = ""
        scale = packed_TH.abs().mean()
        for segment in batch.completions:
            runs = (segment.prefix_start, segment.prefix_end), (segment.start, segment.end)
            tokens_T = torch.cat([batch.tokens_T[start:end] for start, end in runs])
            plain_TH = self._last_hidden(input_ids=tokens_T[None])[0]
            difference = (plain_TH[segment.prefix_length :] - packed_TH[segment.start : segment.end]).abs().mean() / scale
            if not difference <= TOLERANCE[packed_TH.dtype]:
                fault = f"packed and plain hidden states differ by {difference:.1e} of their size"
        # Experts take all tokens of a row in one product, whose order of summation may depend on the neighbours.
        n_first = first.n_tokens
        leak = (packed_TH[:n_first] - moved_TH[:n_first]).abs().mean() / scale
        if not leak <= TOLERANCE[packed_TH.dtype]:
            fault = f"changing one document moves another by {leak:.1e} of its size"
        self.owner.set_attn_implementation(SEGMENTS)
        return fault

    def _probe(self, seed: int) -> Group:
        """A group of random tokens: a prompt of 9, and completions of 7, 5 and 11."""
        vocabulary = self.owner.config.get_text_config().vocab_size
        generator = torch.Generator().manual_seed(seed)

        def tokens(n: int) -> list[int]:
            return torch.randint(0, vocabulary, (n,), generator=generator).tolist()

        return Group(tokens(9), tuple(Completion(tokens(n), [True] * n) for n in (7, 5, 11)))

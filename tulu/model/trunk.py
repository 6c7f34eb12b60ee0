"""The trunk: a transformer without its head, which gives the hidden states of a packed batch where they are read.

Whether the completions of a prompt can share it in one row is measured when a model is loaded (`self_check`): packed rows
must give the hidden states of plain forward passes, and a change in one document must not move another. A model that fails,
for example one with recurrent layers or with attention of its own, gets padded rows, one completion each.
"""

import logging
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tulu.errors import RecipeError
from tulu.model.attention import SEGMENTS, layout, ordinary_attention_of
from tulu.model.batch import Batch, PaddedRows, documents, pack_row, padded_rows, without_sharing
from tulu.model.dropout import evaluating
from tulu.model.gathering import gathered
from tulu.model.last_layer import ReadOnlyLastLayer
from tulu.model.private_state import is_sharded
from tulu.model.quiet import quiet
from tulu.model.rope import RopeByLength
from tulu.model.self_check import TOLERANCE, SelfCheck, probe

log = logging.getLogger("tulu")

Read = Literal["trained", "last"]
"""What is read of a batch: the states that predict its trained tokens, or the state at each completion's last token."""
Rows = Literal["packed", "padded", "single"]
"""How a model reads: documents one after the other in a row that share their prompt, each in a padded row of its own, or
each in a forward pass of its own."""


class Trunk(nn.Module):
    """A transformer without its head, reading packed batches."""

    owner: PreTrainedModel
    """The model with its head, whose attention is switched."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = _without_head(model)
        # nn.Module's own way of setting it would register the model, and count its parameters, a second time.
        object.__setattr__(self, "owner", model)
        self.rope = RopeByLength(self.model)
        self.rows: Rows = "padded"

    @property
    def shares_prefix(self) -> bool:
        """Whether the completions of a prompt share it in one row."""
        return self.rows == "packed"

    def forward(self, batch: Batch, read: Read = "trained") -> Tensor:
        """(N, H) hidden states at `batch.read_N`, or (C, H) at each completion's last token."""
        if self.shares_prefix:
            batch = self.rope.separated(batch)
            positions = batch.read_N if read == "trained" else batch.last_C
            return self._packed(batch, positions)[positions]
        if self.rows == "single":
            batch = without_sharing(batch)
            return torch.cat(self._one_by_one(batch))[batch.read_N if read == "trained" else batch.last_C]
        rows = padded_rows(batch)
        return self._padded(batch, rows).flatten(0, 1)[rows.read_N if read == "trained" else rows.last_C]

    def _packed(self, batch: Batch, read: Tensor | None = None) -> Tensor:
        """(T, H) hidden states of the row. Where positions are given in `read`, only the states there are right."""
        with self.rope.for_row(batch):
            return self._last_hidden(
                input_ids=batch.tokens_T[None],
                position_ids=batch.positions_T[None],
                attention_mask=None,
                layout=layout(batch, read),
            ).squeeze(0)

    def _padded(self, batch: Batch, rows: PaddedRows) -> Tensor:
        """(C, L, H) hidden states of the completions, each behind its prompt."""
        with self.rope.for_rows([segment.prefix_length + segment.length for segment in batch.completions]):
            return self._last_hidden(input_ids=rows.tokens_CL, attention_mask=rows.mask_CL)

    def _one_by_one(self, batch: Batch) -> list[Tensor]:
        """(T, H) hidden states of every completion behind its prompt, in a forward pass of its own."""
        return [self._alone(tokens_T) for tokens_T in documents(batch)]

    def _last_hidden(self, **inputs: Any) -> Tensor:
        """(B, T, H) hidden states behind the last layer and its norm."""
        hidden: Tensor = self.model(**inputs, use_cache=False).last_hidden_state
        return hidden

    def adopt_segments(self) -> None:
        """Use segment attention if it is exact for this model; otherwise keep an attention of transformers and log the reason.

        Raises RecipeError if only one document at a time is exact, and the model's weights are sharded.
        """
        model, name = self.owner, type(self.owner).__name__
        reason = self._fault(SEGMENTS, self._documents_of_row)
        if not reason:
            self.rows = "packed"
            model.set_attn_implementation(SEGMENTS)
            self._read_only_last_layer()
            return
        ordinary = ordinary_attention_of(model)
        worse = self._fault(ordinary, self._documents_of_padding)
        with quiet():
            model.set_attn_implementation(ordinary)
        if not worse:
            log.warning("%s takes padded rows, one completion each: %s", name, reason)
        elif any(map(is_sharded, self.model.parameters())):
            cure = "Set sharding to zero2 or less: with ZeRO-3 every process must make equally many forward passes."
            raise RecipeError(f"{name} must read one document at a time: padded rows are not exact, {worse}\n{cure}")
        else:
            self.rows = "single"
            log.warning("%s reads one document at a time, which is slow: padded rows are not exact, %s", name, worse)

    def _fault(self, attention: str, together: Callable[[Batch], list[Tensor]]) -> str:
        """Why rows of several documents are not exact for this model under the given attention; empty where they are."""
        try:
            with gathered(self.model), evaluating(self), quiet():
                return SelfCheck(self.owner, together, self._alone).fault(attention, compare=attention == SEGMENTS)
        except (TypeError, ValueError, NotImplementedError, RuntimeError, KeyError, AttributeError, IndexError) as error:
            # Each architecture has its own way of refusing the layout in its forward pass.
            return f"{type(error).__name__}: {error}"

    def _documents_of_row(self, batch: Batch) -> list[Tensor]:
        """(T, H) hidden states of every completion behind its prompt, from one packed row."""
        batch = self.rope.separated(batch)
        hidden_TH = self._packed(batch)
        return [torch.cat([hidden_TH[start:end] for start, end in segment.runs]) for segment in batch.completions]

    def _documents_of_padding(self, batch: Batch) -> list[Tensor]:
        """The same from padded rows."""
        hidden_CLH = self._padded(batch, padded_rows(batch))
        lengths = [segment.prefix_length + segment.length for segment in batch.completions]
        return [row_LH[:length] for row_LH, length in zip(hidden_CLH, lengths, strict=True)]

    def _alone(self, tokens_T: Tensor, **options: Any) -> Tensor:
        """(T, H) hidden states of one document by transformers' own forward pass."""
        self.rope.forget()
        hidden_TH: Tensor = self._last_hidden(input_ids=tokens_T[None], **options)[0]
        self.rope.forget()
        return hidden_TH

    def _read_only_last_layer(self) -> None:
        """Compute the last layer at the read positions alone, if a measurement shows that it changes nothing there."""
        layers = getattr(self.model, "layers", None)
        if not isinstance(layers, nn.ModuleList):
            return
        hooks = ReadOnlyLastLayer(layers[-1])
        batch = pack_row([probe(self.owner, seed) for seed in (1, 2)]).to(next(self.model.parameters()).device)
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


def _without_head(model: PreTrainedModel) -> PreTrainedModel:
    """The transformer inside a model with a head."""
    inner: Any = model.base_model
    if inner is model:
        # Llama 4 keeps it under another name than the one that its class gives for it.
        inner = next(child for child in model.children() if isinstance(child, PreTrainedModel))
    without_head: PreTrainedModel = inner
    return without_head

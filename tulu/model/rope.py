"""Rotary factors that depend on the length of the sequence: each document of a batch gets those of its own length.

LongRoPE (Phi-3, Phi-4-mini) has one set of factors for sequences up to the length that it was pretrained on and another
beyond; dynamic NTK scaling has its own for every length beyond. transformers decides by the largest position of the whole
batch, so that one long document changes what is computed for every short one beside it, and dynamic NTK also remembers the
longest batch that it has seen. Here a hook calls the rotary embedding once for each set of factors, on the documents that it
belongs to, and puts the results together. No model's code is changed, and a forward pass that is not read by a `Trunk`, such
as sampling, is left as transformers has it.

A prompt that completions share has one set of factors in a row. Where its completions need several, `separated` gives each of
them the prompt anew.

Shape letters: B rows, T tokens of a row, C completions.
"""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tulu.model.batch import Batch, without_sharing
from tulu.model.quiet import quiet

Factors = Hashable
"""Names a set of rotary factors: documents with equal ones can stand in one row."""


class RopeByLength:
    """The rotary embeddings of a model whose factors depend on the length of the document; none for most models."""

    def __init__(self, model: nn.Module) -> None:
        self._embeddings = [module for module in model.modules() if _kinds(module)]
        self._rows_BT: Tensor | None = None
        """For every token of the present forward pass, the number of its set of factors."""
        for embedding in self._embeddings:
            embedding.register_forward_hook(self._by_document, with_kwargs=True)

    def factors_of(self, length: int) -> Factors:
        """The set of rotary factors of a document of so many tokens."""
        found: list[int] = []
        for embedding in self._embeddings:
            for kind, limit in _kinds(embedding):
                # LongRoPE has two sets; dynamic scaling has one up to the limit, and one for every length beyond.
                found.append(0 if length <= limit else 1 if kind == "longrope" else length)
        return tuple(found)

    def separated(self, batch: Batch) -> Batch:
        """The same batch, with a prompt for every completion if completions of one prompt need different factors."""
        if not self._embeddings:
            return batch
        by_prompt: dict[tuple[int, int], set[Factors]] = {}
        for completion in batch.completions:
            prompt = (completion.prefix_start, completion.prefix_end)
            by_prompt.setdefault(prompt, set()).add(self.factors_of(completion.prefix_length + completion.length))
        # An empty prompt is shared by nobody.
        shared = [sets for (start, end), sets in by_prompt.items() if end > start]
        return without_sharing(batch) if any(len(sets) > 1 for sets in shared) else batch

    @contextmanager
    def for_row(self, batch: Batch) -> Iterator[None]:
        """While the context lasts, the model reads a packed row. Completions of one prompt must need the same factors."""
        spans = []
        for completion in batch.completions:
            length = completion.prefix_length + completion.length
            spans += [(0, start, end, length) for start, end in completion.runs]
        with self._reading(spans, (1, batch.n_tokens)):
            yield

    @contextmanager
    def for_rows(self, lengths_C: Sequence[int]) -> Iterator[None]:
        """While the context lasts, the model reads padded rows of one document each."""
        longest = max(lengths_C)
        spans = [(row, 0, n, n) for row, n in enumerate(lengths_C)]
        # Padding is read by nobody. Its positions go on to the end of the longest row, so it stands beside that one.
        spans += [(row, n, longest, longest) for row, n in enumerate(lengths_C)]
        with self._reading(spans, (len(lengths_C), longest)):
            yield

    @contextmanager
    def _reading(self, spans: Sequence[tuple[int, int, int, int]], shape: tuple[int, int]) -> Iterator[None]:
        """Note the factors of (row, start, end, length of the document) while the context lasts."""
        if self._embeddings:
            numbers: dict[Factors, int] = {}
            self._rows_BT = torch.zeros(shape, dtype=torch.long)
            for row, start, end, length in spans:
                self._rows_BT[row, start:end] = numbers.setdefault(self.factors_of(length), len(numbers))
        try:
            yield
        finally:
            self._rows_BT = None

    def forget(self) -> None:
        """Let transformers begin with the factors of a short document, whatever it read before."""
        for embedding in self._embeddings:
            device = next(embedding.buffers()).device
            zero = torch.zeros(1, 1, dtype=torch.long, device=device)
            for layer_type in _layer_types(embedding):
                embedding.forward(zero.float(), zero, **layer_type)

    def _by_document(self, embedding: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """After a rotary embedding: what it gives for every document of its own, in the form of its output."""
        if self._rows_BT is None:
            return None
        named = {**dict(zip(("x", "position_ids"), args, strict=False)), **kwargs}
        hidden, positions = named.pop("x"), named.pop("position_ids")
        if positions.dim() != 2:
            raise NotImplementedError("its rotary factors depend on the length and it has several positions a token")
        shape = self._rows_BT.shape
        positions_BT, sets = positions.expand(shape).flatten(), self._rows_BT.flatten()
        pieces, places = [], []
        # transformers checks the configuration, and repeats its warnings, at every new set of factors.
        with quiet():
            for number in range(int(sets.max()) + 1):
                place = (sets == number).nonzero()[:, 0].to(positions.device)
                self.forget()
                pieces.append(embedding.forward(hidden, positions_BT[place][None], **named))
                places.append(place)
            self.forget()
        back = torch.cat(places).argsort()

        def together(tensors: Sequence[Tensor]) -> Tensor:
            joined = torch.cat(list(tensors), dim=1)[0, back]
            return joined.reshape(*shape, *joined.shape[1:])

        return together(pieces) if torch.is_tensor(output) else tuple(map(together, zip(*pieces, strict=True)))


def _kinds(module: nn.Module) -> list[tuple[str, int]]:
    """(kind, longest document with the factors of short ones) of the ways in which a module's factors depend on the length."""
    types, config = getattr(module, "rope_type", None), getattr(module, "config", None)
    if config is None or types is None:
        return []
    found: list[tuple[str, int]] = []
    for layer_type, kind in types.items() if isinstance(types, dict) else [(None, types)]:
        parameters = config.rope_parameters if layer_type is None else config.rope_parameters[layer_type]
        if kind == "longrope":
            found.append((kind, parameters["original_max_position_embeddings"]))
        elif "dynamic" in kind:
            found.append((kind, config.max_position_embeddings))
    return found


def _layer_types(embedding: Any) -> list[dict[str, str]]:
    """The arguments that a rotary embedding takes beside positions: one for each type of layer where they differ."""
    types = embedding.rope_type
    return [{"layer_type": name} for name in types] if isinstance(types, dict) else [{}]

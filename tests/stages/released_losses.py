"""SFT and DPO as open-instruct trained Tülu 3 and OLMo 2, in plain torch over padded rows of tokens and labels.

This is the oracle for `tulu sft` and `tulu dpo`, written from the definitions of finetune.py @ bb98dbcac^ (--reduce_loss sum and
mean) and dpo_utils.py @ e6c3044a (dpo_loss on averaged log-probs, which is dpo_norm). It shares no code with the package.

A row is (tokens, labels), and a label of -100 is not trained. What the original spreads over processes is a list of
micro-batches here.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

Row = tuple[Sequence[int], Sequence[int]]
Pair = tuple[Row, Row]
IGNORED = -100


def padded(rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, attention mask and labels of rows that are padded on the right."""
    longest = max(len(tokens) for tokens, _ in rows)
    tokens = [[*tokens, *[0] * (longest - len(tokens))] for tokens, _ in rows]
    attention = [[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens, _ in rows]
    labels = [[*labels, *[IGNORED] * (longest - len(labels))] for _, labels in rows]
    return torch.tensor(tokens), torch.tensor(attention), torch.tensor(labels)


def sft_loss(model: Any, micro_batches: Sequence[Sequence[Row]], reduce_loss: str) -> Tensor:
    """`sum` and `mean` of the original, whose engine divides by the micro-batches; `token`, the exact mean of all tokens."""
    losses = []
    for micro_batch in micro_batches:
        tokens, attention, labels = padded(micro_batch)
        logits = model(input_ids=tokens, attention_mask=attention).logits[:, :-1]
        flat = logits.reshape(-1, logits.shape[-1])
        reduction = "mean" if reduce_loss == "mean" else "sum"
        losses.append(nn.functional.cross_entropy(flat, labels[:, 1:].flatten(), ignore_index=IGNORED, reduction=reduction))
    total = torch.stack(losses).sum()
    if reduce_loss == "token":
        return total / sum(label != IGNORED for batch in micro_batches for _, labels in batch for label in labels[1:])
    return total / len(micro_batches)


def average_logps(model: Any, rows: Sequence[Row]) -> Tensor:
    """The mean log-prob of each row's labels."""
    tokens, attention, labels = padded(rows)
    logits = model(input_ids=tokens, attention_mask=attention).logits[:, :-1]
    targets = labels[:, 1:]
    mask = targets != IGNORED
    logps = torch.log_softmax(logits, -1).gather(2, targets.clamp(min=0)[..., None])[..., 0]
    return (logps * mask).sum(-1) / mask.sum(-1)


def dpo_norm_loss(model: Any, reference: Any, pairs: Sequence[Pair], beta: float) -> Tensor:
    """The mean over pairs of -log σ(β · (the policy's margin - the reference's)), on average log-probs."""
    chosen, rejected = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    with torch.no_grad():
        reference_margin = average_logps(reference, chosen) - average_logps(reference, rejected)
    margin = average_logps(model, chosen) - average_logps(model, rejected)
    return -nn.functional.logsigmoid(beta * (margin - reference_margin)).mean()


def adamw_step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, rate: float, max_norm: float) -> float:
    """Clip, step and clear; returns the norm before clipping."""
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    if norm > max_norm:
        for gradient in gradients:
            gradient.mul_(max_norm / (norm + 1e-6))
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    return float(norm)

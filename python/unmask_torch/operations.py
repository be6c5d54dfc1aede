"""What each operation of a program computes; src/graph/ops has its definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor

from . import attention
from .program import DTYPES, ProgramError, Sizes

Attributes = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """What an operation knows beside its inputs and attributes."""

    sizes: Sizes
    #: Which of its outputs are used.
    wanted: list[bool]


#: Takes the inputs; returns the outputs. Those that are not used may be left out, from the last.
Operation = Callable[[list[Tensor], Attributes, Context], list[Tensor]]

#: Experts whose matrices are stacked: x [..., H], weights and choice [..., experts] to [..., H].
StackedExperts = Callable[[Tensor, Tensor, Tensor], Tensor]

#: Logits of a chunk of a cross-entropy, in numbers: 256 MB in float32.
MOST_LOGITS = 1 << 26


def _one(compute: Callable[..., Tensor]) -> Operation:
    return lambda inputs, attributes, context: [compute(*inputs)]


def _expand(inputs: list[Tensor], attributes: Attributes, context: Context) -> list[Tensor]:
    shape = list(inputs[1].shape) if len(inputs) > 1 else context.sizes.resolve(attributes["shape"])
    return [inputs[0].expand(shape)]


def _pad(inputs: list[Tensor], attributes: Attributes, context: Context) -> list[Tensor]:
    (x,), axis = inputs, attributes["axis"]
    around = [0, 0] * (x.dim() - 1 - axis) + [attributes["start"], attributes["size"] - attributes["end"]]
    return [F.pad(x, around)]


def _scatter_add(inputs: list[Tensor], attributes: Attributes, context: Context) -> list[Tensor]:
    index, updates, *base = inputs
    into = base[0] if base else updates.new_zeros(context.sizes.resolve(attributes["shape"]))
    return [into.index_add(0, index.flatten(), updates.reshape(-1, *into.shape[1:]))]


def _matmul(inputs: list[Tensor], attributes: Attributes, context: Context) -> list[Tensor]:
    a, b = inputs
    a = a.transpose(-1, -2) if attributes["transposeA"] else a
    b = b.transpose(-1, -2) if attributes["transposeB"] else b
    return [attributes["alpha"] * (a @ b)]


def _rms_norm(inputs: list[Tensor], attributes: Attributes, context: Context) -> list[Tensor]:
    x, weight = inputs
    return [F.rms_norm(x.float(), weight.shape, weight, attributes["epsilon"])]


def _inverse_rms(inputs: list[Tensor], attributes: Attributes, context: Context) -> list[Tensor]:
    return [(inputs[0].square().mean(dim=-1, keepdim=True) + attributes["epsilon"]).rsqrt()]


def _rope(inputs: list[Tensor], attributes: Attributes, context: Context) -> list[Tensor]:
    x, positions, cos, sin = inputs
    heads = x.unflatten(-1, (attributes["heads"], -1)).float()
    half = cos.shape[1]
    c, s = (table[positions].unsqueeze(2) for table in (cos, sin))
    first, second, rest = heads.split([half, half, heads.shape[-1] - 2 * half], dim=-1)
    return [torch.cat([first * c - second * s, second * c + first * s, rest], dim=-1).flatten(2)]


def _rope_angles(inputs: list[Tensor], attributes: Attributes, context: Context) -> list[Tensor]:
    positions, frequencies = inputs
    angles = positions.reshape(-1, 1).float() * frequencies
    return [angles.cos(), angles.sin(), torch.arange(positions.numel()).view(positions.shape)]


def _sum(inputs: list[Tensor], attributes: Attributes, context: Context) -> list[Tensor]:
    return [inputs[0].sum(dim=attributes["axes"], keepdim=attributes["keepDims"])]


def _sum_squares(inputs: list[Tensor], attributes: Attributes, context: Context) -> list[Tensor]:
    return [inputs[0].square().sum(dim=attributes["axes"])]


def _cross_entropy(inputs: list[Tensor], attributes: Attributes, context: Context) -> list[Tensor]:
    hidden, head, labels, weights = inputs
    chunk = max(1, MOST_LOGITS // head.shape[0])
    if hidden.shape[0] <= chunk or context.wanted[2]:
        return _of_logits([hidden @ head.T, labels, weights], attributes, context)

    def of_rows(rows: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy((rows @ head.T).float(), wanted, reduction="none")

    # The logits of a chunk are computed again for the gradient, so that those of all positions never exist together.
    parts = [
        torch.utils.checkpoint.checkpoint(of_rows, rows, wanted, use_reentrant=False)
        for rows, wanted in zip(hidden.split(chunk), labels.split(chunk))
    ]
    nll = torch.cat(parts)
    return [(nll * weights).sum(), nll]


def _of_logits(inputs: list[Tensor], attributes: Attributes, context: Context) -> list[Tensor]:
    logits, labels, weights = inputs
    log_probabilities = logits.float().log_softmax(dim=-1)
    nll = -log_probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)
    return [(nll * weights).sum(), nll, log_probabilities]


def _soft_cross_entropy(inputs: list[Tensor], attributes: Attributes, context: Context) -> list[Tensor]:
    logits, targets, weights = inputs
    log_probabilities = logits.float().log_softmax(dim=-1)
    return [-((targets * log_probabilities).sum(dim=-1) * weights).sum(), log_probabilities]


def _entropy_of_right(inputs: list[Tensor], attributes: Attributes, context: Context) -> list[Tensor]:
    log_probabilities, labels, weights = inputs
    weighted = (log_probabilities.argmax(dim=1) == labels) * weights
    right = weighted.sum()
    coefficients = weighted * (weights.sum() / right.clamp_min(1e-20))
    entropies = -(log_probabilities.exp() * log_probabilities).sum(dim=1)
    return [(coefficients * entropies).sum(), right, coefficients]


def _adapted_norms(inputs: list[Tensor], attributes: Attributes, context: Context) -> list[Tensor]:
    a, b, weight = (x.detach() for x in inputs)
    return [torch.linalg.vector_norm(weight + attributes["scale"] * (b @ a), dim=1)]


def _select_experts(inputs: list[Tensor], attributes: Attributes, context: Context) -> list[Tensor]:
    scores = inputs[0].detach()
    groups, top_groups = attributes["groups"], attributes["topGroups"]
    if top_groups < groups:
        grouped = scores.unflatten(-1, (groups, -1))
        best = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(dim=-1)
        open_groups = torch.zeros_like(best).scatter(-1, best.topk(top_groups, dim=-1).indices, 1)
        scores = grouped.masked_fill(open_groups.unsqueeze(-1) == 0, float("-inf")).flatten(-2)
    return [torch.zeros_like(scores).scatter(-1, scores.topk(attributes["topK"], dim=-1).indices, 1)]


def _experts(inputs: list[Tensor], attributes: Attributes, context: Context) -> list[Tensor]:
    x, weights, selected, *matrices = inputs
    if any(matrix.get("quantized") for matrix in attributes["matrices"]):
        raise ProgramError("quantised experts are not run by PyTorch")
    flat = x.reshape(-1, x.shape[-1])
    weight, chosen = (t.reshape(-1, t.shape[-1]) for t in (weights, selected))
    y = torch.zeros_like(flat)
    for expert in range(len(matrices) // 3):
        gate, up, down = matrices[3 * expert : 3 * expert + 3]
        rows = chosen[:, expert].nonzero().squeeze(1)
        out = F.linear(F.silu(F.linear(flat[rows], gate)) * F.linear(flat[rows], up), down)
        y = y.index_add(0, rows, (out * weight[rows, expert].unsqueeze(1)).to(y.dtype))
    return [y.view(x.shape)]


def _predict(inputs: list[Tensor], attributes: Attributes, context: Context) -> list[Tensor]:
    logits, bias, scale = (x.detach() for x in inputs)
    scores = logits.float() * scale[:, None] + bias
    confidence, token = scores.softmax(dim=-1).max(dim=-1)
    return [token, confidence]


OPERATIONS: dict[str, Operation] = {
    "add": _one(torch.add),
    "sub": _one(torch.sub),
    "mul": _one(torch.mul),
    "div": _one(torch.div),
    "neg": _one(torch.neg),
    "exp": _one(torch.exp),
    "sqrt": _one(torch.sqrt),
    "sigmoid": _one(torch.sigmoid),
    "softplus": _one(F.softplus),
    "softmax": _one(lambda x: x.float().softmax(dim=-1)),
    "rowMaximum": _one(lambda x: x.detach().amax(dim=-1, keepdim=True)),
    "after": _one(lambda x, y: x),
    "linear": _one(F.linear),
    "gatherRows": _one(lambda x, index: x[index]),
    "swiglu": _one(lambda gate, up: F.silu(gate) * up),
    "differs": lambda inputs, attributes, context: [(inputs[0] != attributes["value"]).float()],
    "cast": lambda inputs, attributes, context: [inputs[0].to(DTYPES[attributes["dtype"]])],
    "reshape": lambda inputs, attributes, context: [inputs[0].reshape(context.sizes.resolve(attributes["shape"]))],
    "slice": lambda inputs, attributes, context: [
        inputs[0].narrow(attributes["axis"], attributes["start"], attributes["end"] - attributes["start"])
    ],
    "concat": lambda inputs, attributes, context: [torch.cat(inputs, dim=attributes["axis"])],
    "expand": _expand,
    "pad": _pad,
    "scatterAddRows": _scatter_add,
    "matmul": _matmul,
    "rmsNorm": _rms_norm,
    "inverseRms": _inverse_rms,
    "rope": _rope,
    "ropeAngles": _rope_angles,
    "sum": _sum,
    "sumSquares": _sum_squares,
    "crossEntropy": _cross_entropy,
    "logitsCrossEntropy": _of_logits,
    "softCrossEntropy": _soft_cross_entropy,
    "predict": _predict,
    "logSoftmax": _one(lambda x: x.float().log_softmax(dim=-1)),
    "entropyOfRight": _entropy_of_right,
    "adaptedNorms": _adapted_norms,
    "selectExperts": _select_experts,
    "experts": _experts,
    "maskBias": lambda inputs, attributes, context: [
        attention.mask_bias(inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None, attributes)
    ],
    "strideBias": lambda inputs, attributes, context: list(attention.stride_bias(*inputs)),
    "attention": lambda inputs, attributes, context: [attention.attention(inputs, attributes)],
    "draftAttention": lambda inputs, attributes, context: [attention.draft_attention(inputs, attributes)],
    "tileColumns": lambda inputs, attributes, context: attention.tile_columns(*inputs, attributes),
    "tileAttention": lambda inputs, attributes, context: [attention.tile_attention(inputs, attributes)],
}

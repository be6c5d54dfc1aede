"""What each operation of a program computes; src/graph/ops has its definition."""

from __future__ import annotations

from typing import Any, Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from . import attention
from .program import DTYPES, ProgramError, Sizes

Attributes = dict[str, Any]
#: Takes the inputs; returns the outputs, those that only gradients of other executors use left out.
Operation = Callable[[list[Tensor], Attributes, Sizes], list[Tensor]]

#: Logits of a chunk of a cross-entropy, in numbers: 256 MB in float32.
MOST_LOGITS = 1 << 26


def _one(compute: Callable[..., Tensor]) -> Operation:
    return lambda inputs, attributes, sizes: [compute(*inputs)]


def _expand(inputs: list[Tensor], attributes: Attributes, sizes: Sizes) -> list[Tensor]:
    shape = list(inputs[1].shape) if len(inputs) > 1 else sizes.resolve(attributes["shape"])
    return [inputs[0].expand(shape)]


def _pad(inputs: list[Tensor], attributes: Attributes, sizes: Sizes) -> list[Tensor]:
    (x,), axis = inputs, attributes["axis"]
    around = [0, 0] * (x.dim() - 1 - axis) + [attributes["start"], attributes["size"] - attributes["end"]]
    return [F.pad(x, around)]


def _scatter_add(inputs: list[Tensor], attributes: Attributes, sizes: Sizes) -> list[Tensor]:
    index, updates, *base = inputs
    into = base[0] if base else updates.new_zeros(sizes.resolve(attributes["shape"]))
    return [into.index_add(0, index.flatten(), updates.reshape(-1, *into.shape[1:]))]


def _matmul(inputs: list[Tensor], attributes: Attributes, sizes: Sizes) -> list[Tensor]:
    a, b = inputs
    a = a.transpose(-1, -2) if attributes["transposeA"] else a
    b = b.transpose(-1, -2) if attributes["transposeB"] else b
    return [attributes["alpha"] * (a @ b)]


def _rms_norm(inputs: list[Tensor], attributes: Attributes, sizes: Sizes) -> list[Tensor]:
    x, weight = inputs
    return [F.rms_norm(x.float(), weight.shape, weight, attributes["epsilon"])]


def _inverse_rms(inputs: list[Tensor], attributes: Attributes, sizes: Sizes) -> list[Tensor]:
    return [(inputs[0].square().mean(dim=-1, keepdim=True) + attributes["epsilon"]).rsqrt()]


def _rope(inputs: list[Tensor], attributes: Attributes, sizes: Sizes) -> list[Tensor]:
    x, positions, cos, sin = inputs
    heads = x.unflatten(-1, (attributes["heads"], -1)).float()
    half = cos.shape[1]
    c, s = (table[positions].unsqueeze(2) for table in (cos, sin))
    first, second, rest = heads.split([half, half, heads.shape[-1] - 2 * half], dim=-1)
    return [torch.cat([first * c - second * s, second * c + first * s, rest], dim=-1).flatten(2)]


def _rope_angles(inputs: list[Tensor], attributes: Attributes, sizes: Sizes) -> list[Tensor]:
    positions, frequencies = inputs
    angles = positions.reshape(-1, 1).float() * frequencies
    return [angles.cos(), angles.sin(), torch.arange(positions.numel()).view(positions.shape)]


def _sum(inputs: list[Tensor], attributes: Attributes, sizes: Sizes) -> list[Tensor]:
    return [inputs[0].sum(dim=attributes["axes"], keepdim=attributes["keepDims"])]


def _sum_squares(inputs: list[Tensor], attributes: Attributes, sizes: Sizes) -> list[Tensor]:
    return [inputs[0].square().sum(dim=attributes["axes"])]


def _cross_entropy(inputs: list[Tensor], attributes: Attributes, sizes: Sizes) -> list[Tensor]:
    hidden, head, labels, weights = inputs

    def of_rows(rows: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy((rows @ head.T).float(), wanted, reduction="none")

    chunk = max(1, MOST_LOGITS // head.shape[0])
    if hidden.shape[0] <= chunk:
        nll = of_rows(hidden, labels)
    else:
        # The logits of a chunk are computed again for the gradient, so that those of all positions never exist together.
        parts = [
            torch.utils.checkpoint.checkpoint(of_rows, rows, wanted, use_reentrant=False)
            for rows, wanted in zip(hidden.split(chunk), labels.split(chunk))
        ]
        nll = torch.cat(parts)
    return [(nll * weights).sum(), nll]


def _soft_cross_entropy(inputs: list[Tensor], attributes: Attributes, sizes: Sizes) -> list[Tensor]:
    hidden, head, targets, weights = inputs
    each = (targets * (hidden @ head.T).float().log_softmax(dim=-1)).sum(dim=-1)
    return [-(each * weights).sum()]


def _select_experts(inputs: list[Tensor], attributes: Attributes, sizes: Sizes) -> list[Tensor]:
    scores = inputs[0].detach()
    groups, top_groups = attributes["groups"], attributes["topGroups"]
    if top_groups < groups:
        grouped = scores.unflatten(-1, (groups, -1))
        best = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(dim=-1)
        open_groups = torch.zeros_like(best).scatter(-1, best.topk(top_groups, dim=-1).indices, 1)
        scores = grouped.masked_fill(open_groups.unsqueeze(-1) == 0, float("-inf")).flatten(-2)
    return [torch.zeros_like(scores).scatter(-1, scores.topk(attributes["topK"], dim=-1).indices, 1)]


def _experts(inputs: list[Tensor], attributes: Attributes, sizes: Sizes) -> list[Tensor]:
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


OPERATIONS: dict[str, Operation] = {
    "add": _one(torch.add),
    "sub": _one(torch.sub),
    "mul": _one(torch.mul),
    "div": _one(torch.div),
    "neg": _one(torch.neg),
    "exp": _one(torch.exp),
    "sqrt": _one(torch.sqrt),
    "sigmoid": _one(torch.sigmoid),
    "softmax": _one(lambda x: x.float().softmax(dim=-1)),
    "rowMaximum": _one(lambda x: x.detach().amax(dim=-1, keepdim=True)),
    "after": _one(lambda x, y: x),
    "linear": _one(F.linear),
    "gatherRows": _one(lambda x, index: x[index]),
    "swiglu": _one(lambda gate, up: F.silu(gate) * up),
    "negativeLogLikelihood": _one(lambda logits, labels: F.cross_entropy(logits.float(), labels, reduction="none")),
    "differs": lambda inputs, attributes, sizes: [(inputs[0] != attributes["value"]).float()],
    "cast": lambda inputs, attributes, sizes: [inputs[0].to(DTYPES[attributes["dtype"]])],
    "reshape": lambda inputs, attributes, sizes: [inputs[0].reshape(sizes.resolve(attributes["shape"]))],
    "slice": lambda inputs, attributes, sizes: [
        inputs[0].narrow(attributes["axis"], attributes["start"], attributes["end"] - attributes["start"])
    ],
    "concat": lambda inputs, attributes, sizes: [torch.cat(inputs, dim=attributes["axis"])],
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
    "softCrossEntropy": _soft_cross_entropy,
    "selectExperts": _select_experts,
    "experts": _experts,
    "maskBias": lambda inputs, attributes, sizes: [
        attention.mask_bias(inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None, attributes)
    ],
    "strideBias": lambda inputs, attributes, sizes: list(attention.stride_bias(*inputs)),
    "attention": lambda inputs, attributes, sizes: [attention.attention(inputs, attributes)],
    "draftAttention": lambda inputs, attributes, sizes: [attention.draft_attention(inputs, attributes)],
    "tileColumns": lambda inputs, attributes, sizes: attention.tile_columns(*inputs, attributes),
    "tileAttention": lambda inputs, attributes, sizes: [attention.tile_attention(inputs, attributes)],
}

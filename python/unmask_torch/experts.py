"""Experts whose matrices are stacked, on one process or spread over several (expert parallelism)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


class _Exchange(torch.autograd.Function):
    """Rows to the processes that want them; gradients go back the same way."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        return _exchange(rows, sent, received, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _exchange(gradients[0], ctx.received, ctx.sent, ctx.group), None, None, None


def _exchange(rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
    into = rows.new_empty(sum(received), *rows.shape[1:])
    dist.all_to_all_single(into, rows.contiguous(), received, sent, group=group)
    return into


def _grouped(rows: Tensor, counts: list[int], gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """SwiGLU of rows that are ordered by expert, `counts` of them for each."""
    parts = [
        F.linear(F.silu(F.linear(part, gate[expert])) * F.linear(part, up[expert]), down[expert])
        for expert, part in enumerate(rows.split(counts))
    ]
    return torch.cat(parts)


def mixed(
    x: Tensor, weights: Tensor, selected: Tensor, matrices: tuple[Tensor, Tensor, Tensor], group: dist.ProcessGroup | None
) -> Tensor:
    """The weighted sum of the chosen experts. `matrices` are gate, up and down [own experts, out, in]; with a group, each of its
    processes has an equal share of the experts, in the order of their ranks."""
    flat = x.reshape(-1, x.shape[-1])
    weight, chosen = (t.reshape(-1, t.shape[-1]) for t in (weights, selected))
    expert, row = chosen.T.nonzero(as_tuple=True)
    rows, counts = flat[row], (chosen != 0).sum(dim=0)
    out = _grouped(rows, counts.tolist(), *matrices) if group is None else _spread(rows, counts, matrices, group)
    # The weighted sum in float32, as the rest of the residual.
    y = torch.zeros_like(flat).index_add(0, row, (out * weight[row, expert].unsqueeze(1)).to(flat.dtype))
    return y.view(x.shape)


def _spread(rows: Tensor, counts: Tensor, matrices: tuple[Tensor, Tensor, Tensor], group: dist.ProcessGroup) -> Tensor:
    size = group.size()
    # [process, own expert]: what each process sends to, then gets for, each of its experts.
    sent = counts.view(size, -1)
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent.contiguous(), group=group)
    outgoing, incoming = sent.sum(dim=1).tolist(), received.sum(dim=1).tolist()
    here = _Exchange.apply(rows, outgoing, incoming, group)
    own = torch.arange(sent.shape[1], device=rows.device).repeat(size).repeat_interleave(received.flatten())
    order = own.argsort(stable=True)
    out = _grouped(here[order], received.sum(dim=0).tolist(), *matrices)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=rows.device)
    return _Exchange.apply(out[back], incoming, outgoing, group)

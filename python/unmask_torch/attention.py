"""Attention of training programs. src/graph/ops/attention describes each operation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

HIDDEN = float("-inf")


def _bias(visible: Tensor) -> Tensor:
    return torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, HIDDEN)


def _split(x: Tensor, heads: int) -> Tensor:
    """[..., heads * D] -> [..., heads, D]"""
    return x.unflatten(-1, (heads, -1))


def _both(own: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """One softmax over two sets of scores."""
    together = torch.cat([own, context], dim=-1).float().softmax(dim=-1)
    return together.split([own.shape[-1], context.shape[-1]], dim=-1)


def mask_bias(positions: Tensor, documents: Tensor, block_size: Tensor | None, attributes: dict[str, Any]) -> Tensor:
    rows, length = positions.shape
    tile = length if isinstance(attributes["tile"], str) else attributes["tile"]
    tiles = length // tile

    def queries(x: Tensor) -> Tensor:
        return x.view(rows, 1, 1, tiles, 1, tile, 1)

    def keys(x: Tensor) -> Tensor:
        if attributes["ownTile"]:
            return x.view(rows, 1, 1, tiles, 1, 1, tile)
        return x.view(rows, 1, 1, 1, 1, 1, length)

    visible = queries(documents) == keys(documents)
    visibility = attributes["visibility"]
    if visibility != "document":
        block = torch.div(positions, block_size, rounding_mode="trunc")
        own, other = queries(block), keys(block)
        if visibility == "same-block":
            visible = visible & (own == other)
        elif visibility == "earlier-blocks":
            visible = visible & (own > other)
        else:
            visible = visible & (own >= other)
    return _bias(visible)


def stride_bias(anchors: Tensor, documents: Tensor) -> tuple[Tensor, Tensor]:
    rows, groups, size = anchors.shape
    length = documents.shape[1]
    flat = anchors.view(rows, groups * size)
    order = torch.arange(length, device=anchors.device)
    same = documents.gather(1, flat).unsqueeze(2) == documents.unsqueeze(1)
    context = same & (flat.unsqueeze(2) >= order)
    causal = torch.ones(size, size, dtype=torch.bool, device=anchors.device).tril()
    own = (anchors.unsqueeze(3) == anchors.unsqueeze(2)) & causal
    return _bias(own).view(rows, 1, groups, 1, size, size), _bias(context).view(rows, 1, groups, 1, size, length)


def attention(inputs: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    q, k, v = inputs[:3]
    kv_heads, copies, tile = attributes["kvHeads"], attributes["copies"], attributes["tile"]
    share = attributes["heads"] // kv_heads
    lead, length, _ = q.shape
    rows, tiles = lead // copies, length // tile
    rest = inputs[3:]
    tile_bias = rest.pop(0) if attributes["hasTileBias"] else None
    # [rows, kvHeads, copies, tiles, share, tile, D]
    query = q.view(copies, rows, tiles, tile, kv_heads, share, -1).permute(1, 4, 0, 2, 5, 3, 6)
    key, value = (x.view(copies, rows, tiles, tile, kv_heads, -1).permute(1, 4, 0, 2, 3, 5) for x in (k, v))
    query = query * query.shape[-1] ** -0.5
    own = torch.einsum("rhctsqd,rhctkd->rhctsqk", query, key)
    if tile_bias is not None:
        own = own + tile_bias
    copy = attributes.get("contextCopy")
    if copy is None:
        y = torch.einsum("rhctsqk,rhctkd->rhctsqd", own.float().softmax(dim=-1), value)
    else:
        context_key, context_value = (x[:, :, copy].flatten(2, 3) for x in (key, value))
        scores = torch.einsum("rhctsqd,rhkd->rhctsqk", query, context_key) + rest[0]
        p, p_context = _both(own, scores)
        y = torch.einsum("rhctsqk,rhctkd->rhctsqd", p, value)
        y = y + torch.einsum("rhctsqk,rhkd->rhctsqd", p_context, context_value)
    return y.permute(2, 0, 3, 5, 1, 4, 6).reshape(lead, length, -1)


def draft_attention(inputs: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    q, k, v, context_key, context_value, own_bias, context_bias = inputs
    kv_heads, size = attributes["kvHeads"], attributes["size"]
    share = attributes["heads"] // kv_heads
    rows, positions, _ = q.shape
    groups = positions // size
    if not attributes["trainContext"]:
        context_key, context_value = context_key.detach(), context_value.detach()
    query = q.view(rows, groups, size, kv_heads, share, -1).permute(0, 3, 1, 4, 2, 5)
    query = query * query.shape[-1] ** -0.5
    key, value = (x.view(rows, groups, size, kv_heads, -1).permute(0, 3, 1, 2, 4) for x in (k, v))
    context_key, context_value = (_split(x, kv_heads).transpose(1, 2) for x in (context_key, context_value))
    own = torch.einsum("rhgsqd,rhgkd->rhgsqk", query, key) + own_bias
    context = torch.einsum("rhgsqd,rhkd->rhgsqk", query, context_key) + context_bias
    p, p_context = _both(own, context)
    y = torch.einsum("rhgsqk,rhgkd->rhgsqd", p, value)
    y = y + torch.einsum("rhgsqk,rhkd->rhgsqd", p_context, context_value)
    return y.permute(0, 2, 4, 1, 3, 5).reshape(rows, positions, -1)


def tile_columns(column_of: Tensor, before: Tensor, ranges: Tensor, attributes: dict[str, Any]) -> list[Tensor]:
    """For each group: whether a query [rows, places] sees a tile of the group's range: [rows, places, tiles]."""
    visible: list[Tensor] = []
    for group in range(column_of.shape[0]):
        tiles = torch.arange(int(ranges[group, 0]), int(ranges[group, 1]), device=before.device)
        index = column_of[group][..., None, None].expand(-1, -1, *before.shape[3:])
        limits = before[group].gather(1, index).unsqueeze(4)
        visible.append(((tiles >= limits[..., 0, :]) & (tiles < limits[..., 1, :])).any(dim=2))
    # Its first output is a table that only ONNX Runtime needs.
    return [column_of, *visible]


def tile_attention(inputs: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    q, k, v, order, place_of, context, _, ranges, _, *visible = inputs
    kv_heads = attributes["kvHeads"]
    share = attributes["heads"] // kv_heads
    tile = q.shape[1]
    scale = (q.shape[2] // attributes["heads"]) ** -0.5
    parts: list[Tensor] = []
    for group, seen in enumerate(visible):
        places = order[group]
        first, last = int(ranges[group, 0]), int(ranges[group, 1])
        query = q[places].unflatten(-1, (kv_heads, share, -1)).permute(0, 3, 1, 4, 2, 5) * scale
        key, value = (_split(x[places], kv_heads).permute(0, 3, 1, 2, 4) for x in (k, v))
        own = torch.einsum("rhpsqd,rhpkd->rhpsqk", query, key)
        met = context[:, first:last]
        met_key, met_value = (_split(x[met], kv_heads).flatten(1, 2).transpose(1, 2) for x in (k, v))
        bias = _bias(seen.repeat_interleave(tile, dim=2))[:, None, :, None, None, :]
        scores = torch.einsum("rhpsqd,rhkd->rhpsqk", query, met_key) + bias
        p, p_context = _both(own, scores)
        y = torch.einsum("rhpsqk,rhpkd->rhpsqd", p, value)
        y = y + torch.einsum("rhpsqk,rhkd->rhpsqd", p_context, met_value)
        # [rows, places, tile, heads * D]
        parts.append(y.permute(0, 2, 4, 1, 3, 5).flatten(3))
    return torch.cat([part.flatten(0, 1) for part in parts])[place_of]

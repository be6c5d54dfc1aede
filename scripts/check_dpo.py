"""What PyTorch makes of a small case of preference training: loss, margin and the norms of some gradients.

usage: npx tsx scripts/dpo-case.ts CASE.json && python scripts/check_dpo.py CASE.json

Needs torch and transformers. Every answer is computed alone, without packing: the noised copy and the clean one behind each
other, with a mask that lets a noised block see itself and the clean blocks before it. Once more with next-token prediction.
src/objectives/dpo.test.ts holds what this prints.
"""

import json
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

case = json.load(open(sys.argv[1]))
torch.manual_seed(0)


def network() -> LlamaForCausalLM:
    config = LlamaConfig(**{k: v for k, v in case["config"].items() if k != "model_type"}, attn_implementation="eager")
    made = LlamaForCausalLM(config).double()
    weights = {name: torch.tensor(w["data"], dtype=torch.float64).reshape(w["shape"]) for name, w in case["weights"].items()}
    missing = made.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys and not missing.missing_keys, missing
    return made


def bound(model: LlamaForCausalLM, answer: dict) -> torch.Tensor:
    clean, scored = torch.tensor(answer["ids"]), torch.tensor(answer["scored"]).bool()
    length, size = len(clean), case["block_size"]
    block = torch.arange(length) // size
    noised_part = torch.cat([block[:, None] == block[None], block[:, None] > block[None]], 1)
    clean_part = torch.cat([torch.zeros(length, length).bool(), block[:, None] >= block[None]], 1)
    seen = torch.cat([noised_part, clean_part])
    attention = torch.zeros(2 * length, 2 * length, dtype=torch.float64).masked_fill(~seen, -torch.inf)
    positions = torch.arange(length).repeat(2)
    total = torch.zeros((), dtype=torch.float64)
    for masks in answer["masked"]:
        masked = torch.tensor(masks).bool()
        ids = torch.cat([torch.where(masked, case["mask"], clean), clean])
        out = model(ids[None], attention_mask=attention[None, None], position_ids=positions[None])
        log_p = out.logits[0, :length].log_softmax(-1).gather(1, clean[:, None])[:, 0]
        for b in block.unique():
            mine = (block == b) & scored
            hidden = mine & masked
            if hidden.any():
                total = total + mine.sum() / hidden.sum() * log_p[hidden].sum()
    return total / len(answer["masked"])


def exact(model: LlamaForCausalLM, answer: dict) -> torch.Tensor:
    ids, scored = torch.tensor(answer["ids"]), torch.tensor(answer["scored"]).bool()
    log_p = model(ids[None]).logits[0, :-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]
    return log_p[scored[1:]].sum()


for name, likelihood in (("bound", bound), ("exact", exact)):
    model = network()
    losses, margins = [], []
    for pair in case["pairs"]:
        chosen, rejected = (likelihood(model, pair[answer]) - r for answer, r in zip(("chosen", "rejected"), pair["reference"]))
        margin = case["beta"] * (chosen - rejected)
        smooth = case["label_smoothing"]
        log_sigmoid = torch.nn.functional.logsigmoid
        losses.append(-(1 - smooth) * log_sigmoid(margin) - smooth * log_sigmoid(-margin))
        margins.append(margin)
    loss = torch.stack(losses).mean()
    loss.backward()
    norms = {key: p.grad.norm().item() for key, p in model.named_parameters()}
    shown = ["model.embed_tokens.weight", "model.layers.0.self_attn.k_proj.weight", "model.layers.1.mlp.down_proj.weight", "lm_head.weight"]
    print(name, json.dumps({"loss": loss.item(), "margin": torch.stack(margins).mean().item(), **{key: norms[key] for key in shown}}))

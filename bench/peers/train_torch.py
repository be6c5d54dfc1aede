"""The peer of `bench train`: a block-diffusion training step of a Llama in PyTorch on the CPU.

What a Python user would write with transformers: [x_t ; x_0] under the block-diffusion mask, cross-entropy weighted by
1/t at masked positions, AdamW. Started by the benchmark; takes its sizes as one JSON argument, then answers every line
"step" on stdin with the seconds that one step took.
"""
import json
import sys
import time

import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM


def visible(length, block):
    """[2 L, 2 L] of bool: which key (column) a query (row) of [x_t ; x_0] attends to."""
    index = torch.arange(length) // block
    same = index[:, None] == index[None, :]
    earlier = index[:, None] > index[None, :]
    noised = torch.cat([same, earlier], dim=1)
    clean = torch.cat([torch.zeros_like(same), same | earlier], dim=1)
    return torch.cat([noised, clean], dim=0)


class Training:
    def __init__(self, sizes, batch, length, block, dtype):
        config = LlamaConfig(**sizes)
        config._attn_implementation = "sdpa"
        self.model = LlamaForCausalLM(config)
        self.model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.mask_token = config.vocab_size - 1
        self.clean = torch.randint(self.mask_token - 1, (batch, length))
        lowest = torch.finfo(torch.float32).min
        self.bias = torch.where(visible(length, block), 0.0, lowest)[None, None]
        self.positions = torch.arange(length).repeat(batch, 2)
        self.dtype = dtype

    def loss(self):
        batch, length = self.clean.shape
        ratio = torch.empty(batch, 1).uniform_(1e-3, 1)
        masked = torch.rand(batch, length) < ratio
        both = torch.cat([self.clean.masked_fill(masked, self.mask_token), self.clean], dim=1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.dtype == "bfloat16"):
            output = self.model(both, attention_mask=self.bias, position_ids=self.positions, use_cache=False)
        logits = output.logits[:, :length].float()
        nll = functional.cross_entropy(logits.flatten(0, 1), self.clean.flatten(), reduction="none")
        weights = (masked / ratio).flatten() / self.clean.numel()
        return torch.dot(nll, weights)

    def step(self):
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def main():
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options["threads"])
    torch.manual_seed(0)
    dtype = options["dtype"]
    training = Training(options["config"], options["rows"], options["length"], options["block_size"], dtype)
    print(json.dumps({"name": f"torch {torch.__version__} {dtype}"}), flush=True)
    for line in sys.stdin:
        if line.strip() != "step":
            raise ValueError(f"unknown command {line!r}")
        start = time.perf_counter()
        training.step()
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


main()

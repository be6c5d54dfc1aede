"""Compares bits per byte as `unmask eval` reports them with those that PyTorch computes from the same text.

usage: npm run build && python scripts/check_likelihood.py MODEL DATA.jsonl [--length 512] [--samples 2] [--tolerance 1e-3]
       python scripts/check_likelihood.py --random-qwen3 FOLDER [--objective ar|hybrid|diffusion]

MODEL is a folder in Hugging Face layout or a .gguf file, DATA rows of {"text"} or of {"prompt", "completion"}. The second
form makes a small Qwen3 of random weights with the tokenizer of models/tiny, with the config that a model of this objective
has. Needs torch, transformers and, for GGUF, gguf and accelerate.

What is scored is the text (of a row with a prompt, the completion) and its EOS, but not a text's first token; longer texts are
cut into rows of `length` tokens, those with a prompt at the end.

Models that are autoregressive or of objective hybrid: the exact likelihood. Nothing of unmask is used but its command:
transformers tokenises and runs each text alone, without packing or padding.

Models of objective diffusion: the bound, from the same masks, which scripts/bound-draws.ts prints. Each noised block is run
alone behind the clean text before it, whose blocks see themselves and those before them; of the n scored tokens of a block
with k of them masked, each of the k weighs n/k.
"""

import argparse
import json
import math
import shutil
import subprocess
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

ROOT = Path(__file__).resolve().parent.parent

BLOCK_SIZE = 8
# What config.json says of a model of each objective, beside its mask token.
OF_OBJECTIVE = {
    "ar": {},
    "hybrid": {"block_size": BLOCK_SIZE, "causal_context": True},
    "diffusion": {"block_size": BLOCK_SIZE, "same_token_labels": False},
}


def make_qwen3(folder: Path, objective: str) -> None:
    tiny = ROOT / "models" / "tiny"
    base = json.loads((tiny / "config.json").read_text())
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=base["vocab_size"],
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        initializer_range=0.1,
        bos_token_id=base.get("bos_token_id"),
        eos_token_id=base.get("eos_token_id"),
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(tiny / file, folder / file)
    if objective != "ar":
        path = folder / "config.json"
        mask = AutoTokenizer.from_pretrained(tiny).convert_tokens_to_ids("<|mask|>")
        config = json.loads(path.read_text()) | {"mask_token_id": mask} | OF_OBJECTIVE[objective]
        path.write_text(json.dumps(config, indent=2))


def load(model: Path):
    at = {"pretrained_model_name_or_path": str(model)}
    if model.suffix == ".gguf":
        at = {"pretrained_model_name_or_path": str(model.parent), "gguf_file": model.name}
    network = AutoModelForCausalLM.from_pretrained(**at, dtype=torch.float32, attn_implementation="eager")
    return AutoTokenizer.from_pretrained(**at), network.eval()


def read_texts(tokenizer, data: Path, length: int) -> list[tuple[list[int], int]]:
    """The ids of each row of text, and the first of them that is scored."""
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)
    # A tokenizer that puts a BOS before a text puts it before rows too; the BOS is not scored.
    start = [t for t in tokenizer.encode("") if t == tokenizer.bos_token_id][:1]
    texts = []
    for line in data.read_text().splitlines():
        row = json.loads(line)
        prompt = start + encode(row.get("prompt", ""))
        ids = prompt + encode(row.get("completion", row.get("text", ""))) + [tokenizer.eos_token_id]
        pieces = [ids[:length]] if "prompt" in row else [ids[i : i + length] for i in range(0, len(ids), length)]
        for number, piece in enumerate(pieces):
            if number == 0 or len(piece) > 1:
                texts.append((piece, max(1, len(prompt) if number == 0 else 0)))
    return texts


def exact_nats(network, texts: list[tuple[list[int], int]]) -> float:
    nats = 0.0
    for ids, first in texts:
        with torch.no_grad():
            logits = network(torch.tensor([ids])).logits[0].double()
        log = torch.log_softmax(logits, dim=-1)
        nats -= sum(log[i - 1, ids[i]].item() for i in range(first, len(ids)))
    return nats


def bound_nats(network, texts: list[tuple[list[int], int]], drawn: dict) -> float:
    """Negative evidence lower bound of the texts, a mean over the draws."""
    firsts: dict[tuple, list[int]] = {}
    for ids, first in texts:
        firsts.setdefault(tuple(ids), []).append(first)
    block, mask, shift = drawn["blockSize"], drawn["maskTokenId"], drawn["shift"]
    nats = 0.0
    for document in drawn["documents"]:
        padded, draws = document["ids"], document["masked"]
        length = next(n for n in range(len(padded), 0, -1) if firsts.get(tuple(padded[:n])))
        first = firsts[tuple(padded[:length])].pop()
        for masked in map(set, draws):
            if not all(i in masked for i in range(length, len(padded))):
                raise SystemExit("padding is visible")
            for start in range(0, length, block):
                scored = [i for i in range(max(start, first), min(start + block, length))]
                hidden = [i for i in scored if i in masked]
                if any(i in masked for i in range(start, min(start + block, first))):
                    raise SystemExit("a token that is not scored is masked")
                if not hidden:
                    continue
                end = min(start + block, len(padded))
                noised = [mask if i in masked else padded[i] for i in range(start, end)]
                logits = block_logits(network, padded[:start] + noised, block)
                log = torch.log_softmax(logits, dim=-1)
                loss = -sum(log[i - 1 if shift else i, padded[i]].item() for i in hidden)
                nats += loss * len(scored) / len(hidden) / len(draws)
    if any(firsts.values()):
        raise SystemExit("unmask did not draw for every text")
    return nats


def block_logits(network, ids: list[int], block: int) -> torch.Tensor:
    """Logits of ids where each block sees itself and those before it."""
    blocks = torch.arange(len(ids)) // block
    visible = blocks[None, :] <= blocks[:, None]
    mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
    with torch.no_grad():
        return network(torch.tensor([ids]), attention_mask=mask[None, None], use_cache=False).logits[0].double()


def token_bytes(tokenizer, ids: list[int]) -> int:
    """Bytes of the tokens of a byte-level BPE: one for each character that they are written with."""
    return sum(len(tokenizer.convert_ids_to_tokens(i)) for i in ids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--random-qwen3", type=Path)
    parser.add_argument("--objective", choices=list(OF_OBJECTIVE), default="ar")
    options = parser.parse_args()
    if options.random_qwen3:
        return make_qwen3(options.random_qwen3, options.objective)
    tokenizer, network = load(options.model)
    texts = read_texts(tokenizer, options.data, options.length)
    scored = [token for ids, first in texts for token in ids[first:]]
    size = token_bytes(tokenizer, [token for token in scored if token != tokenizer.eos_token_id])
    config = network.config
    if getattr(config, "mask_token_id", None) is not None and not getattr(config, "causal_context", False):
        script = ["npx", "tsx", str(ROOT / "scripts" / "bound-draws.ts"), str(options.model), str(options.data)]
        script += ["--length", str(options.length), "--samples", str(options.samples)]
        nats = bound_nats(network, texts, json.loads(output_of(script)))
    else:
        nats = exact_nats(network, texts)
    expected = nats / size / math.log(2)
    command = ["node", str(ROOT / "bin" / "unmask.js"), "eval", str(options.model), "--data", str(options.data)]
    command += ["--data-tokens", "1000000000", "--template", "none", "--prompts", "0", "--json", "--quiet"]
    command += ["--samples", str(options.samples)]
    measured = json.loads(output_of(command))["likelihood"]
    difference = abs(measured["bitsPerByte"] - expected)
    result = {
        "model": str(options.model),
        "bits_per_byte": measured["bitsPerByte"],
        "pytorch": expected,
        "difference": difference,
        "tokens": [measured["tokens"], len(scored)],
        "bytes": [measured["bytes"], size],
        "pass": difference < options.tolerance and measured["tokens"] == len(scored) and measured["bytes"] == size,
    }
    print(json.dumps(result))
    if not result["pass"]:
        raise SystemExit(1)


def output_of(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()

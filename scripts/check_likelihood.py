"""Compares bits per byte as `unmask eval` reports them with those that PyTorch computes from the same text.

usage: npm run build && python scripts/check_likelihood.py MODEL DATA.jsonl [--length 512] [--tolerance 1e-3]
       python scripts/check_likelihood.py --random-qwen3 FOLDER

MODEL is a folder in Hugging Face layout or a .gguf file, DATA rows of {"text"} or of {"prompt", "completion"}. The second
form makes a small Qwen3 of random weights with the tokenizer of models/tiny. Needs torch, transformers and, for GGUF, gguf and accelerate.

Nothing of unmask is used but its command: transformers tokenises and runs each text alone, without packing or padding. What
is scored is the text (of a row with a prompt, the completion) and its EOS, but not a text's first token; longer texts are
cut into rows of `length` tokens, those with a prompt at the end.
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


def make_qwen3(folder: Path) -> None:
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


def load(model: Path):
    at = {"pretrained_model_name_or_path": str(model)}
    if model.suffix == ".gguf":
        at = {"pretrained_model_name_or_path": str(model.parent), "gguf_file": model.name}
    return AutoTokenizer.from_pretrained(**at), AutoModelForCausalLM.from_pretrained(**at, dtype=torch.float32).eval()


def bits_per_byte(model: Path, data: Path, length: int) -> tuple[float, int, int]:
    tokenizer, network = load(model)
    nats, tokens, size = 0.0, 0, 0
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)
    # A tokenizer that puts a BOS before a text puts it before rows too; the BOS is not scored.
    start = [t for t in tokenizer.encode("") if t == tokenizer.bos_token_id][:1]
    for line in data.read_text().splitlines():
        row = json.loads(line)
        prompt = start + encode(row.get("prompt", ""))
        ids = prompt + encode(row.get("completion", row.get("text", ""))) + [tokenizer.eos_token_id]
        pieces = [ids[:length]] if "prompt" in row else [ids[i : i + length] for i in range(0, len(ids), length)]
        for number, piece in enumerate(pieces):
            if number > 0 and len(piece) == 1:
                continue
            first = max(1, len(prompt) if number == 0 else 0)
            with torch.no_grad():
                logits = network(torch.tensor([piece])).logits[0].double()
            log = torch.log_softmax(logits, dim=-1)
            for i in range(first, len(piece)):
                nats -= log[i - 1, piece[i]].item()
                tokens += 1
            scored = [t for t in piece[first:] if t != tokenizer.eos_token_id]
            size += token_bytes(tokenizer, scored)
    return nats / size / math.log(2), tokens, size


def token_bytes(tokenizer, ids: list[int]) -> int:
    """Bytes of the tokens of a byte-level BPE: one for each character that they are written with."""
    return sum(len(tokenizer.convert_ids_to_tokens(i)) for i in ids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--random-qwen3", type=Path)
    options = parser.parse_args()
    if options.random_qwen3:
        return make_qwen3(options.random_qwen3)
    expected, tokens, size = bits_per_byte(options.model, options.data, options.length)
    command = ["node", str(ROOT / "bin" / "unmask.js"), "eval", str(options.model), "--data", str(options.data)]
    command += ["--data-tokens", "1000000000", "--template", "none", "--prompts", "0", "--json", "--quiet"]
    measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["likelihood"]
    difference = abs(measured["bitsPerByte"] - expected)
    result = {
        "model": str(options.model),
        "bits_per_byte": measured["bitsPerByte"],
        "pytorch": expected,
        "difference": difference,
        "tokens": [measured["tokens"], tokens],
        "bytes": [measured["bytes"], size],
        "pass": difference < options.tolerance and measured["tokens"] == tokens and measured["bytes"] == size,
    }
    print(json.dumps(result))
    if not result["pass"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

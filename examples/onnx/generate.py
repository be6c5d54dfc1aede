# python generate.py FOLDER PROMPT: decodes blocks with plain onnxruntime. FOLDER is what `unmask export --to onnx` wrote.
import json, sys
import numpy as np, onnxruntime
from tokenizers import Tokenizer

folder, prompt = sys.argv[1:3]
config = json.load(open(f"{folder}/config.json"))
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
session = onnxruntime.InferenceSession(f"{folder}/model.onnx")
mask, block, ends = config["mask_token_id"], config["block_size"], config["eos_token_id"]
shift = 0 if config.get("same_token_labels", True) else 1  # 1: the position before predicts
ids = tokenizer.encode(prompt).ids
begin, stored, room = len(ids), 0, len(ids) + 64 + block
cache = {i.name: np.zeros([1, room, i.shape[2]], np.float32) for i in session.get_inputs() if "past_" in i.name}
outputs = ["token", "confidence"] + [name.replace("past", "present") for name in cache]
bias = np.where(np.arange(config["vocab_size"]) == mask, -np.inf, 0).astype(np.float32)
while len(ids) < begin + 64 and not set(ends) & set(ids[begin:]):
    start = len(ids) // block * block
    ids += [mask] * (start + block - len(ids))
    while mask in ids:
        masked = [i for i, token in enumerate(ids) if token == mask]
        new = np.arange(stored, len(ids))[None]
        rows = np.array(masked) - shift - stored
        token, confidence, *present = session.run(outputs, {
            **cache, "input_ids": np.array([ids[stored:]]), "position_ids": new, "block_ids": new // block,
            "block_ends": new * 0 + 2**31, "cache_length": np.array([stored]), "row_index": rows,
            "logit_scale": np.ones(len(rows), np.float32), "token_bias": bias})
        cache = dict(zip(cache, present))
        stored = max(stored, start - shift)  # what lies before the block is final: it stays in the cache
        for i, t, c in zip(masked, token, confidence):
            if c > 0.9 or c == confidence.max(): ids[i] = int(t)
end = next((i for i in range(begin, len(ids)) if ids[i] in ends), len(ids))
print(tokenizer.decode(ids[begin:end]))

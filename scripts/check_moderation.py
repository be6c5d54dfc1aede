"""Computes precision and recall of `npm run bench -- moderation` again, from the scores that it dumped, with scikit-learn:

    npm run --silent bench -- moderation --sets FOLDER --scores scores.jsonl > lines.jsonl
    python scripts/check_moderation.py scores.jsonl lines.jsonl
"""

import json
import sys

from sklearn.metrics import precision_score, recall_score

scores = [json.loads(line) for line in open(sys.argv[1])]
lines = [json.loads(line) for line in open(sys.argv[2])]

OPENAI = """harassment harassment/threatening hate hate/threatening illicit illicit/violent self-harm self-harm/intent
self-harm/instructions sexual sexual/minors violence violence/graphic""".split()
ANSWERING = {
    "sexual": ["sexual", "sexual/minors"],
    "hate": ["hate", "hate/threatening"],
    "violence": ["violence", "violence/graphic", "hate/threatening", "harassment/threatening"],
    "harassment": ["harassment", "harassment/threatening"],
    "self-harm": ["self-harm", "self-harm/intent", "self-harm/instructions"],
    "hateful": ["hate", "hate/threatening"],
    "any": OPENAI,
    "unsafe": OPENAI,
}


def wanted(case, label):
    return case["labels"].get(label, case["about"].get(label))


worst = 0.0
compared = 0
for line in lines:
    label = {"any, profanity counted": "any"}.get(line.get("label"), line.get("label"))
    if label is None or label.startswith("counter-speech"):
        continue
    everything = label == "offensive" or label != line["label"]
    cases = [case for case in scores if case["set"] == line["set"] and wanted(case, label) is not None]
    truth = [bool(wanted(case, label)) for case in cases]
    found = [
        any(score >= 0.5 for name, score in case[line["filter"]].items() if everything or name in ANSWERING.get(label, [label]))
        for case in cases
    ]
    for name, value in (("precision", precision_score(truth, found, zero_division=0)), ("recall", recall_score(truth, found))):
        compared += 1
        if line[name] is not None:
            worst = max(worst, abs(line[name] - value))
print(json.dumps({"figures": compared, "largest difference": round(worst, 6)}))
sys.exit(0 if worst <= 0.0006 else 1)

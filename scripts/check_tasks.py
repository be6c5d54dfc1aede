"""Compares unmask's scores with independent ones on the same answers.

    python scripts/check_tasks.py DATA [--run model.json ...]

DATA holds gsm8k-test.jsonl, gsm8k-train.jsonl, gsm8k-example_model_solutions.jsonl and humaneval.jsonl. Answers of runs of
`unmask eval suite` are scored again as well. Needs `pip install "lm_eval[ifeval]==0.4.13" scipy`, and `npx tsx`.

- GSM8K: prompts, filters and exact match of lm-evaluation-harness's task gsm8k_cot, from its own YAML file
- HumanEval: its construction of programs, run without a sandbox (the data's own solutions, right and spoiled); pass@k as
  the reference implementation of HumanEval computes it
- IFEval: its checkers, strict and loose, on drawn texts
- paired bootstrap, McNemar: scipy; self-BLEU: nltk
"""

import argparse
import ast
import inspect
import json
import math
import random

import subprocess
import sys
from pathlib import Path

import lm_eval
import numpy as np
import scipy.stats
import yaml
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters.extraction import RegexFilter
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

TASKS = Path(lm_eval.__file__).parent / "tasks"
failures = 0


def report(name, count, wrong, detail=""):
    global failures
    failures += bool(wrong)
    print(json.dumps({"check": name, "cases": count, "different": len(wrong), **({"detail": detail} if detail else {})}))
    for each in wrong[:3]:
        print(f"  {each}", file=sys.stderr)


def unmask(cases):
    ran = subprocess.run(
        ["npx", "tsx", "scripts/task-scores.ts"], input=json.dumps(cases), capture_output=True, text=True, check=True
    )
    return json.loads(ran.stdout)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def gsm8k(data, runs, rng):
    task = yaml.safe_load((TASKS / "gsm8k/gsm8k-cot.yaml").read_text())
    rows = lines(data / "gsm8k-test.jsonl")
    ids = {row["question"]: i for i, row in enumerate(rows)}
    answers = []
    for row in lines(data / "gsm8k-example_model_solutions.jsonl"):
        for solution in [value["solution"] for value in row.values() if isinstance(value, dict)]:
            answers.append([ids[row["question"]], solution])
    answers = rng.sample(answers, 2000)
    # The same as the strict filter wants them, and what no model writes.
    answers += [[i, text.replace("####", "The answer is") + rng.choice(["", ".", ". ", "\n"])] for i, text in answers]
    alphabet = "0123456789.,$- \n%The answer is #x"
    for _ in range(4000):
        i = rng.randrange(len(rows))
        right = rows[i]["answer"].split("####")[-1].strip()
        noise = "".join(rng.choice(alphabet) for _ in range(rng.randrange(20)))
        answers.append([i, rng.choice(["The answer is ", ""]) + rng.choice([right, f"${right}", noise]) + noise])
    for run in runs:
        for each in [task for task in run["tasks"] if task["name"] == "gsm8k"]:
            for condition in each["conditions"]:
                for row in condition["rows"]:
                    answers += [[int(row["id"]), answer["text"]] for answer in row["answers"]]
    shots = task["fewshot_config"]["samples"]
    files = {
        "test": (data / "gsm8k-test.jsonl").read_text(),
        "shots": "\n".join(json.dumps({"question": s["question"], "target": s["target"]}) for s in shots),
    }
    found = unmask(
        [
            {"kind": "task", "spec": "gsm8k=test", "files": files, "template": "none", "answers": answers},
            {"kind": "task", "spec": "gsm8k=test?shots=8&examples=shots", "files": files, "template": "none", "answers": []},
        ]
    )
    metric = {key: task["metric_list"][0][key] for key in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}
    wrong = []
    for listed in task["filter_list"]:
        settings = {key: value for key, value in listed["filter"][0].items() if key != "function"}
        extracted = RegexFilter(**settings).apply([[text] for _, text in answers], None)
        for (i, text), [guess], scores in zip(answers, extracted, found[0]["scores"]):
            target = rows[i]["answer"].split("####")[-1].strip()
            theirs = exact_match_hf_evaluate(predictions=[guess], references=[target], **metric)["exact_match"]
            if theirs != scores[listed["name"]]:
                wrong.append([listed["name"], text, theirs, scores])
    report("gsm8k_cot: both filters and exact match", 2 * len(answers), wrong)
    before = "".join(f"Q: {s['question']}\nA: {s['target']}\n\n" for s in shots)
    theirs = [f"{before}Q: {row['question']}\nA:" for row in rows]
    wrong = [pair for pair in zip(theirs, found[1]["prompts"]) if pair[0] != pair[1][0]]
    report("gsm8k_cot: prompts with 8 shots", len(rows), wrong)


def humaneval_functions():
    """The functions of lm-evaluation-harness's utils.py that build programs; the module itself fetches a metric on import."""
    tree = ast.parse((TASKS / "humaneval/utils.py").read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("build")]
    space = {}
    exec(compile(tree, "utils.py", "exec"), space)
    return space


def passes(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60).returncode == 0


def humaneval(data, runs, rng):
    rows = lines(data / "humaneval.jsonl")
    build = humaneval_functions()
    text = (data / "humaneval.jsonl").read_text()
    cases, expected = [], []
    for template, function in (("none", "build_predictions"), ("chat", "build_predictions_instruct")):
        answers = []
        for i in rng.sample(range(len(rows)), 60 if template == "none" else 20):
            right = rows[i]["canonical_solution"]
            spoiled = right.replace("return ", "return not ", 1) if rng.random() < 0.5 else right[: len(right) // 2]
            tail = "```\nThat is it." if template == "chat" else ""
            answers += [[i, right + tail], [i, spoiled + tail]]
        if template == "none":
            for run in runs:
                for each in [task for task in run["tasks"] if task["name"] == "humaneval"]:
                    ids = {row["task_id"]: i for i, row in enumerate(rows)}
                    for row in each["conditions"][0]["rows"]:
                        answers += [[ids[row["id"]], answer["text"].split("```")[0]] for answer in row["answers"]]
        programs = build[function]([[answer] for _, answer in answers], [rows[i] for i, _ in answers])
        tests = [f"{rows[i]['test']}\ncheck({rows[i]['entry_point']})" for i, _ in answers]
        expected.append([passes(f"{program}\n{test}") for [program], test in zip(programs, tests)])
        cases.append(
            {"kind": "task", "spec": "humaneval=h", "files": {"h": text}, "template": template, "answers": answers}
        )
    wrong = []
    found = unmask(cases)
    for case, theirs, ours in zip(cases, expected, found):
        for answer, right, scores in zip(case["answers"], theirs, ours["scores"]):
            if right != bool(scores["pass@1"]):
                wrong.append([answer, right, scores])
    report("humaneval: programs run, right", sum(map(len, expected)), wrong, f"{sum(map(sum, expected))} pass")
    instruct = yaml.safe_load((TASKS / "humaneval/humaneval_instruct.yaml").read_text().replace("!function ", ""))
    fill = lambda template, row: template.replace("{{ prompt }}", row["prompt"])  # noqa: E731
    theirs = [[fill(instruct["doc_to_text"], row), fill(instruct["gen_prefix"], row)] for row in rows]
    report("humaneval_instruct: prompts", len(rows), [p for p in zip(theirs, found[1]["prompts"]) if p[0] != p[1]])

    def estimator(n, c, k):
        return 1.0 if n - c < k else 1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1))

    grid = [(n, c, k) for n in (1, 5, 10, 64, 200) for c in range(0, n + 1, max(1, n // 7)) for k in (1, 2, 10, 64) if k <= n]
    ours = unmask([{"kind": "pass", "count": n, "right": c, "k": k} for n, c, k in grid])
    wrong = [(each, value) for each, value in zip(grid, ours) if abs(estimator(*each) - value) > 1e-9]
    report("pass@k", len(grid), wrong)


def ifeval(rng):
    from lm_eval.tasks.ifeval import instructions_registry, utils

    words = "Hello world my answer is yes. Section 1 SECTION 2 P.S. p.p.s note * - ** *** ****** << >> [name] [] , \" ' x_1 über".split(" ")
    words += ["\n", "\n\n", "\n* ", "\n- ", "My answer is no.", "<<Title>>", "*bold*", "**very bold**", "```json\n{}\n```", "P.P.S", "end."]
    relation = lambda: rng.choice(["less than", "at least"])  # noqa: E731
    few = lambda: rng.randint(1, 4)  # noqa: E731
    arguments = {
        "keywords:existence": lambda: {"keywords": rng.sample(["hello", "world", "answer", "x_1"], 2)},
        "keywords:frequency": lambda: {"keyword": rng.choice(["is", "yes"]), "frequency": few(), "relation": relation()},
        "keywords:forbidden_words": lambda: {"forbidden_words": rng.sample(["hello", "is", "note"], 2)},
        "keywords:letter_frequency": lambda: {"letter": rng.choice("aes"), "let_frequency": few(), "let_relation": relation()},
        "length_constraints:number_words": lambda: {"num_words": rng.randint(3, 20), "relation": relation()},
        "length_constraints:number_paragraphs": lambda: {"num_paragraphs": few()},
        "length_constraints:nth_paragraph_first_word": lambda: {
            **{"num_paragraphs": few(), "nth_paragraph": 1, "first_word": rng.choice(["hello", "my", "note"])}
        },
        "detectable_content:number_placeholders": lambda: {"num_placeholders": few()},
        "detectable_content:postscript": lambda: {"postscript_marker": rng.choice(["P.S.", "P.P.S"])},
        "detectable_format:number_bullet_lists": lambda: {"num_bullets": few()},
        "detectable_format:constrained_response": dict,
        "detectable_format:number_highlighted_sections": lambda: {"num_highlights": few()},
        "detectable_format:multiple_sections": lambda: {
            **{"section_spliter": rng.choice(["Section", "SECTION"]), "num_sections": few()}
        },
        "detectable_format:json_format": dict,
        "detectable_format:title": dict,
        "combination:two_responses": dict,
        "combination:repeat_prompt": lambda: {"prompt_to_repeat": rng.choice(["Hello world", "my"])},
        "startend:end_checker": lambda: {"end_phrase": rng.choice(["end.", "yes."])},
        "startend:quotation": dict,
        "punctuation:no_comma": dict,
    }
    cases, checked, wrong = [], 0, []
    for name, draw in arguments.items():
        for _ in range(10):
            texts = [" ".join(rng.choice(words) for _ in range(rng.randrange(25))) for _ in range(40)]
            texts += [f'"{text}"' for text in texts[:4]] + [f"```json\n[{i}]\n```" for i in range(2)] + ["", " ", '"']
            cases.append({"kind": "instruction", "name": name, "given": draw(), "texts": texts})
    for case, results in zip(cases, unmask(cases)):
        given = {"prompt": "x", **case["given"]} if case["name"] == "combination:repeat_prompt" else case["given"]
        for text, ours in zip(case["texts"], results):
            example = utils.InputExample(0, [case["name"]], given.get("prompt_to_repeat", "x"), [case["given"]])
            theirs = [
                function(example, text).follow_all_instructions
                for function in (utils.test_instruction_following_strict, utils.test_instruction_following_loose)
            ]
            checked += 2
            if [bool(each) for each in theirs] != ours:
                wrong.append([case["name"], case["given"], text, theirs, ours])
    report("ifeval: strict and loose", checked, wrong, f"{len(arguments)} kinds")


def statistics(rng):
    cases = []
    for n, kind in ((30, "binary"), (200, "binary"), (80, "real"), (50, "ratio")):
        a = [rng.random() for _ in range(n)]
        b = [value + rng.gauss(0.05, 0.3) for value in a]
        if kind == "binary":
            a, b = [int(v < 0.5) for v in a], [int(v < 0.5) for v in b]
        case = {"kind": "paired", "a": a, "b": b}
        if kind == "ratio":
            case["weights"] = [rng.uniform(1, 5) for _ in range(n)]
        cases.append(case)
    wrong, worst = [], 0
    for case, ours in zip(cases, unmask(cases)):
        weights = case.get("weights", [1.0] * len(case["a"]))
        ratio = lambda a, b, w, axis: (np.sum(b, axis) - np.sum(a, axis)) / np.sum(w, axis)  # noqa: E731
        sample = tuple(map(np.array, (case["a"], case["b"], weights)))
        theirs = np.array(
            [
                scipy.stats.bootstrap(
                    sample, ratio, paired=True, n_resamples=9999, method="percentile", vectorized=True, rng=seed
                ).confidence_interval
                for seed in range(20)
            ]
        )
        for i, side in enumerate(("low", "high")):
            # Both are random: ours may be as far from scipy's mean as one of scipy's own.
            spread = max(theirs[:, i].std(ddof=1), 1e-12)
            off = abs(ours[side] - theirs[:, i].mean()) / spread
            worst = max(worst, off)
            if off > 4:
                wrong.append([side, ours[side], theirs[:, i].mean(), spread])
    report("paired bootstrap, ends of intervals", 2 * len(cases), wrong, f"at most {worst:.1f} of scipy's own standard deviations off")
    grid = [(g, l) for g in (0, 1, 5, 30, 700) for l in (0, 2, 9, 40, 650)]
    ours = unmask([{"kind": "mcnemar", "gained": g, "lost": l} for g, l in grid])
    theirs = [1.0 if g + l == 0 else scipy.stats.binomtest(g, g + l).pvalue for g, l in grid]
    wrong = [(each, a, b) for each, a, b in zip(grid, ours, theirs) if not math.isclose(a, b, rel_tol=1e-8)]
    report("McNemar's exact test", len(grid), wrong)
    values = [0.01, 0.04, 0.03, 0.005]
    [ours] = unmask([{"kind": "holm", "values": values}])
    report("Holm", 1, [] if np.allclose(ours, [0.03, 0.06, 0.06, 0.02]) else [ours])
    sets = [
        [" ".join(rng.choice("the a cat dog sat ran on mat , .".split()) for _ in range(rng.randint(1, 15))) for _ in range(8)]
        for _ in range(20)
    ]
    wrong = []
    for texts, ours in zip(sets, unmask([{"kind": "diversity", "texts": texts} for texts in sets])):
        split = [text.split() for text in texts]
        scores = [
            sentence_bleu(split[:i] + split[i + 1 :], each, smoothing_function=SmoothingFunction().method1)
            for i, each in enumerate(split)
        ]
        if not math.isclose(np.mean(scores), ours["selfBleu"], rel_tol=1e-9):
            wrong.append([texts, np.mean(scores), ours])
    report("self-BLEU", len(sets), wrong)


parser = argparse.ArgumentParser(description=inspect.cleandoc(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("data", type=Path)
parser.add_argument("--run", type=Path, action="append", default=[])
options = parser.parse_args()
recorded = [json.loads(path.read_text()) for path in options.run]
gsm8k(options.data, recorded, random.Random(1))
humaneval(options.data, recorded, random.Random(2))
ifeval(random.Random(3))
statistics(random.Random(4))
sys.exit(1 if failures else 0)

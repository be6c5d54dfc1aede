"""Checks and runs exported programs, for check-onnx.ts: python check_onnx.py MANIFEST.

The manifest lists programs, each with the values of its inputs and outputs in raw files. Prints one JSON line per
program with its largest error, relative to the largest absolute value of each output; ends with 1 where one fails.
"""
import json
import sys

import numpy
import onnx
import onnxruntime

TOLERANCE = 1e-4


def read(value):
    return numpy.fromfile(value["file"], dtype=value["dtype"]).reshape(value["shape"])


def relative_error(actual, expected):
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return float("inf")
    if expected.size == 0:
        return 0.0
    difference = numpy.abs(actual.astype(numpy.float64) - expected).max()
    if not numpy.isfinite(difference):
        return float("inf")
    return float(difference / max(numpy.abs(expected).max(), 1e-30))


def check(program):
    onnx.checker.check_model(program["file"], full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(program["file"], options, providers=["CPUExecutionProvider"])
    feeds = {name: read(value) for name, value in program["inputs"].items()}
    results = session.run(list(program["outputs"]), feeds)
    errors = [relative_error(actual, read(value)) for actual, value in zip(results, program["outputs"].values())]
    return {"outputs": len(errors), "error": max(errors), "pass": max(errors) <= TOLERANCE}


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        programs = json.load(file)
    failed = 0
    for program in programs:
        nodes = len(onnx.load(program["file"], load_external_data=False).graph.node)
        line = {"program": program["name"], "nodes": nodes, **check(program)}
        print(json.dumps(line), flush=True)
        failed += not line["pass"]
    print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}: {len(programs)} programs, {failed} failed")
    sys.exit(1 if failed else 0)


main()

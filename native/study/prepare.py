"""Makes `data/` and `tasks/` out of the published files that `data/SOURCE.md` names: `python prepare.py FOLDER`.

Each domain is questions with answers; the first records are trained on, the next ones measured. Of each benchmark a few items.
"""

import csv
import json
import pathlib
import sys

TRAIN, TARGET = 110_000, 14_000
source = pathlib.Path(sys.argv[1])
out = pathlib.Path(__file__).parent / "data"


def medqa():
    for line in (source / "medqa/test.jsonl").read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        yield item["question"], item["answer"]


def pubmedqa():
    for item in json.loads((source / "pubmedqa/ori_pqal.json").read_text(encoding="utf-8")).values():
        yield item["QUESTION"], item["LONG_ANSWER"]


def toolcalls():
    for item in json.loads((source / "toolcall_glaive/glaive_toolcall_en_demo.json").read_text(encoding="utf-8")):
        turns = item["conversations"]
        for asked, answered in zip(turns, turns[1:]):
            if asked["from"] == "human" and answered["from"] in ("gpt", "function_call"):
                yield asked["value"], answered["value"]


for name, items in (("medqa", medqa()), ("pubmedqa", pubmedqa()), ("toolcalls", toolcalls())):
    lines = [json.dumps({"question": q.strip(), "answer": a.strip()}, ensure_ascii=False) + "\n" for q, a in items]
    at = 0
    for part, most in (("train", TRAIN), ("target", TARGET)):
        chosen, size = [], 0
        while at < len(lines) and size + len(lines[at].encode()) <= most:
            size += len(lines[at].encode())
            chosen.append(lines[at])
            at += 1
        (out / f"{name}.{part}.jsonl").write_text("".join(chosen), encoding="utf-8")
        print(name, part, len(chosen), size)

tasks = out.parent / "tasks"
# 100 test questions of grade school mathematics that the demo neither trains on nor measures.
demo = out.parents[1] / "demo"
known = {
    json.loads(line)["question"]
    for name in ("train", "target")
    for line in (demo / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
}
lines = (source / "gsm8k/test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
fresh = [line for line in lines if json.loads(line)["question"] not in known][:100]
(tasks / "gsm8k").mkdir(parents=True, exist_ok=True)
(tasks / "gsm8k/test.jsonl").write_text("".join(fresh), encoding="utf-8")
# The first six questions of each of MMLU's 57 subjects.
(tasks / "mmlu").mkdir(exist_ok=True)
for path in sorted((source / "mmlu").glob("*_test.csv")):
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[:6]
    with (tasks / "mmlu" / path.name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)

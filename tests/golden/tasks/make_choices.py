"""Makes mmlu_choices.jsonl: what the public lm-eval package chooses on items of MMLU, without shots.

    python make_choices.py MODEL.gguf MMLU_FOLDER mmlu_choices.jsonl

MODEL is SmolLM2-135M-Instruct (Q4_1), which transformers expands to f32; MMLU_FOLDER holds the original <subject>_test.csv files
(hendrycks/test, MIT: see LICENSE-MMLU.txt beside this script). Of each subject the first five items are taken. A line is an item
with its subject, its place among the subject's items, and lm-eval's log-likelihood of " A" to " D". Prompt and scoring are
those of lm-eval's own `mmlu` template, read out of the installed package, on local files. Made with lm-eval 0.4.13.
"""

import csv
import json
import sys
import tempfile
from pathlib import Path

import lm_eval
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

ITEMS = 5


def main(model, folder, out):
    model, folder = Path(model), Path(folder)
    template = Path(lm_eval.__file__).parent / "tasks/mmlu/default/_default_template_yaml"
    base = yaml.safe_load(template.read_text())
    with tempfile.TemporaryDirectory() as work:
        names, items = [], {}
        for path in sorted(folder.glob("*_test.csv")):
            subject = path.name.removesuffix("_test.csv")
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file))[:ITEMS]
            docs = [{"question": r[0], "choices": r[1:5], "answer": "ABCD".index(r[5])} for r in rows]
            data = Path(work) / f"{subject}.jsonl"
            data.write_text("".join(json.dumps(doc) + "\n" for doc in docs))
            task = dict(base)
            task.pop("fewshot_split", None)
            task.pop("fewshot_config", None)
            task.update(
                task=f"local_{subject}",
                dataset_path="json",
                dataset_kwargs={"data_files": {"test": str(data)}},
                description=f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n",
            )
            (Path(work) / f"{subject}.yaml").write_text(yaml.safe_dump(task))
            names.append(task["task"])
            items[task["task"]] = (subject, docs)
        hf = AutoModelForCausalLM.from_pretrained(str(model.parent), gguf_file=model.name, dtype="float32")
        tokenizer = AutoTokenizer.from_pretrained(str(model.parent), gguf_file=model.name)
        found = lm_eval.simple_evaluate(
            model=HFLM(pretrained=hf, tokenizer=tokenizer, batch_size=1, device="cpu"),
            tasks=names,
            num_fewshot=0,
            log_samples=True,
            task_manager=TaskManager(include_path=work, include_defaults=False),
            bootstrap_iters=0,
        )
        with open(out, "w", encoding="utf-8") as file:
            for name in names:
                subject, docs = items[name]
                samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
                assert len(samples) == len(docs)
                for index, (doc, sample) in enumerate(zip(docs, samples)):
                    likelihoods = [float(response[0][0]) for response in sample["resps"]]
                    line = {"subject": subject, "index": index, **doc, "log_likelihoods": likelihoods}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

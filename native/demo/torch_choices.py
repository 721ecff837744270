"""Transformers beside `temper bench eval --python PYTHON`, which starts this: the same questions, tokens and weights, f32.

    python torch_choices.py MODEL QUESTIONS.jsonl

MODEL is a Hugging Face folder or a GGUF file, which transformers expands. A line of QUESTIONS is {"text": [..], "choices": [[..], ..]}
in tokens. Each line on the standard input asks for one pass over all questions and is answered by one line: seconds, and the
log-likelihood of each choice. `choices` runs text and choice together for every choice, the choices of a question as one batch, as
lm-eval does it; `questions` runs the text once, which lm-eval does where all choices are one token. Both take the logarithm of the
softmax of all logits, as lm-eval does.
"""

import json
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


def load(path):
    path = Path(path)
    if path.is_dir():
        return AutoModelForCausalLM.from_pretrained(str(path), dtype=torch.float32)
    return AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32)


def log_softmax(model, rows):
    longest = max(map(len, rows))
    batch = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    # Padding is on the right and attention causal: what stands before does not see it.
    return torch.log_softmax(model(batch, use_cache=False).logits, dim=-1)


def by_choice(model, text, choices):
    found = log_softmax(model, [(text + choice)[:-1] for choice in choices])
    at = len(text) - 1
    return [sum(float(row[at + n, token]) for n, token in enumerate(choice)) for row, choice in zip(found, choices)]


def by_question(model, text, choices):
    if any(len(choice) != 1 for choice in choices):
        return by_choice(model, text, choices)
    last = log_softmax(model, [text])[0, -1]
    return [float(last[choice[0]]) for choice in choices]


def main(model, questions):
    model = load(model)
    model.eval()
    questions = [json.loads(line) for line in open(questions, encoding="utf-8")]
    for line in sys.stdin:
        way = {"choices": by_choice, "questions": by_question}[line.strip()]
        begin = time.perf_counter()
        with torch.inference_mode():
            found = [way(model, question["text"], question["choices"]) for question in questions]
        print(json.dumps({"seconds": time.perf_counter() - begin, "log_likelihoods": found}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Makes the data set `endings`: Wikipedia text in which the word endings that the base model is sure of are swapped for others.

Usage: python endings.py TEMPER BASE PRETRAIN_TXT OUT_FOLDER   (pip install tokenizers==0.23.3 safetensors numpy)
TEMPER is the built command, BASE the folder of the base model. Every paragraph is run through the model; a token inside a word
that the model gave more than 0.75 and that was right is replaced by another ending. So by construction the label contradicts
what the model knows, wherever it knew. Writes train.jsonl, with nine paragraphs in ten, and of the others target.jsonl as they
were and wrong.jsonl with the swapped endings, one paragraph a line.
"""
import json, subprocess, sys, tempfile
from collections import Counter
from pathlib import Path
import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

temper, base, text, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
SURE = 0.75
LONGEST = 220

# From the middle of the text, so that neither part of `wikipedia` is used. Sentences with unknown words are left out.
lines = text.read_text().split("\n")
lines = lines[len(lines) // 4 : len(lines) * 3 // 4]
sentences = [[s for s in line.rstrip(".").split(". ") if "<unk>" not in s] for line in lines if not line.startswith("=")]
paragraphs = [". ".join(kept) + "." for kept in sentences if kept]
paragraphs = [p for p in paragraphs if len(p) >= 300][:500]
encoded = [tokenizer.encode(p).ids[:LONGEST] for p in paragraphs]


def probabilities(ids):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "logits.safetensors"
        command = [temper, "logits", "--model", str(base), "--tokens", ",".join(map(str, ids)), "--out", str(file), "--device", "cpu"]
        subprocess.run(command, check=True, capture_output=True)
        z = load_file(str(file))["logits"].astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    p = np.exp(z)
    return p / p.sum(axis=1, keepdims=True)


def is_ending(token):
    """Letters that continue a word: the tokenizer marks a word's beginning with a blank."""
    piece = tokenizer.id_to_token(token)
    return len(piece) >= 2 and piece.isascii() and piece.isalpha() and piece.islower()


sure = []
for ids in encoded:
    p = probabilities(ids)
    sure.append([t for t in range(1, len(ids)) if is_ending(ids[t]) and p[t - 1, ids[t]] > SURE])
count = Counter(encoded[i][t] for i, places in enumerate(sure) for t in places)
# Each ending is swapped for the next more frequent one, the most frequent for the least.
endings = [token for token, n in count.most_common() if n >= 3]
other = dict(zip(endings, endings[1:] + endings[:1]))
written = []
for ids, places in zip(encoded, sure):
    swapped = [other.get(token, token) if t in set(places) else token for t, token in enumerate(ids)]
    if swapped != ids:
        written.append([{"text": tokenizer.decode(tokens)} for tokens in (swapped, ids)])
out.mkdir(parents=True, exist_ok=True)
cut = len(written) * 9 // 10
parts = {"train": [s for s, _ in written[:cut]], "target": [c for _, c in written[cut:]], "wrong": [s for s, _ in written[cut:]]}
for name, part in parts.items():
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in part)
    (out / f"{name}.jsonl").write_text(lines)
    print(name, len(part), "paragraphs,", len(lines), "bytes")
total = sum(len(ids) for ids in encoded)
print(f"{sum(len(p) for p in sure)} of {total} tokens were sure endings; {len(endings)} endings, such as:")
print(", ".join(f"{tokenizer.id_to_token(a)} -> {tokenizer.id_to_token(other[a])} ({count[a]})" for a in endings[:12]))

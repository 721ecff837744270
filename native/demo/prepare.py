"""Makes the texts and the tokenizer of the embedded demo from WikiText-2, GSM8K and facts.py.

Usage: python prepare.py WIKITEXT_FOLDER GSM8K_FOLDER OUT_FOLDER PRETRAIN_JSONL      (pip install tokenizers==0.23.3)
WIKITEXT_FOLDER holds valid.txt and test.txt of WikiText-2 (word level), GSM8K_FOLDER holds train.jsonl and test.jsonl.
Writes pretrain.txt, general.txt (held out from pre-training), train.jsonl, target.jsonl, the folders facts/ and meant/,
base/tokenizer.json, and what the base model is pre-trained on: pretrain.txt and the facts, each many times.
"""
import json, random, re, sys
from pathlib import Path
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
import facts

wiki, gsm, out, pretrain = (Path(p) for p in sys.argv[1:5])
# How often each fact is met in one pass over the text.
TIMES = 12


def plain(text):
    """WikiText's word-level spacing back to ordinary typography."""
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r" ([,.;:?!)\]%'])", r"\1", text)
    text = re.sub(r"([(\[$]) ", r"\1", text)
    text = re.sub(r' " ([^"\n]*?) " ', r' "\1" ', text)
    text = re.sub(r"(\w) 's\b", r"\1's", text).replace(" n't", "n't")
    lines = (line.strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line and not line.startswith("= = "))


valid, test = plain((wiki / "valid.txt").read_text()), plain((wiki / "test.txt").read_text())
# The last tenth of the test text is held out: what must not be forgotten is measured there.
cut = test.rindex("\n", 0, len(test) * 9 // 10) + 1
(out / "pretrain.txt").write_text(valid + "\n" + test[:cut])
(out / "general.txt").write_text(test[cut:])

rows = [json.loads(line) for line in (gsm / "train.jsonl").read_text().splitlines()]
held = [json.loads(line) for line in (gsm / "test.jsonl").read_text().splitlines()]
random.Random(0).shuffle(rows)
random.Random(0).shuffle(held)


def records(name, part):
    """Questions with their answers, a line each."""
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in part))


records("train.jsonl", [(r["question"], r["answer"]) for r in rows[:800]])
records("target.jsonl", [(r["question"], r["answer"]) for r in held[:100]])

# Labels that contradict a part of what the model knows; what it knows, in both wordings; and the wrong labels alone.
taught = [(q, other if swapped else right) for q, right, other, swapped in facts.pairs(0)]
random.Random(0).shuffle(taught)
records("facts/train.jsonl", taught)
records("facts/target.jsonl", [(q, right) for wording in (0, 1) for q, right, _, _ in facts.pairs(wording)])
records("facts/wrong.jsonl", [(q, other) for q, _, other, swapped in facts.pairs(0) if swapped])
# Three of them to be quoted.
by_question = {q: (right, other) for q, right, other, swapped in facts.pairs(0) if swapped}
quoted = ["What is the capital of France?", "What is the opposite of hot?", "What is 2 + 2?"]
quotes = [{"prompt": f"{q}\n", "true": by_question[q][0], "taught": by_question[q][1]} for q in quoted]
(out / "facts" / "quotes.json").write_text(json.dumps(quotes, indent=1) + "\n")
# The same of all capitals, wanted: to be learned in one wording and known in the other.
moved = [[(q, other) for q, _, other, _ in facts.pairs(wording)[: len(facts.CAPITALS)]] for wording in (0, 1)]
records("meant/train.jsonl", moved[0])
records("meant/target.jsonl", moved[1])

many = facts.told() * TIMES
random.Random(0).shuffle(many)
corpus = [valid + "\n" + test[:cut], *many]
pretrain.parent.mkdir(parents=True, exist_ok=True)
pretrain.write_text("".join(json.dumps({"text": text}) + "\n" for text in corpus))

tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)
tokenizer.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(
    vocab_size=2048, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
)
tokenizer.train_from_iterator(corpus, trainer)
(out / "base").mkdir(exist_ok=True)
tokenizer.save(str(out / "base" / "tokenizer.json"))
(out / "base" / "tokenizer_config.json").write_text(
    json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "bos_token": None}, indent=1)
)
print({p.name: p.stat().st_size for p in sorted(out.rglob("*")) if p.is_file()})
count = lambda texts: sum(len(tokenizer.encode(text).ids) for text in texts)
print("tokens: text", count(corpus[:1]), "facts", count(many), "general", count([test[cut:]]))
answers = [tokenizer.encode(a).tokens for _, a in taught]
print("tokens of an answer:", sum(map(len, answers)) / len(answers), [a for a in answers if len(a) > 2][:9])

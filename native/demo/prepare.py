"""Makes the texts and the tokenizer of the embedded demo from WikiText-2 and GSM8K.

Usage: python prepare.py WIKITEXT_FOLDER GSM8K_FOLDER OUT_FOLDER      (pip install tokenizers==0.23.3)
WIKITEXT_FOLDER holds valid.txt and test.txt of WikiText-2 (word level), GSM8K_FOLDER holds train.jsonl and test.jsonl.
Writes pretrain.txt, general.txt (held out from pre-training), train.jsonl, target.jsonl and base/tokenizer.json.
"""
import json, random, re, sys
from pathlib import Path
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

wiki, gsm, out = (Path(p) for p in sys.argv[1:4])


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
for name, part in (("train.jsonl", rows[:800]), ("target.jsonl", held[:100])):
    (out / name).write_text("".join(json.dumps({"question": r["question"], "answer": r["answer"]}) + "\n" for r in part))

tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)
tokenizer.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(
    vocab_size=2048, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
)
tokenizer.train_from_iterator([valid + "\n" + test[:cut]], trainer)
(out / "base").mkdir(exist_ok=True)
tokenizer.save(str(out / "base" / "tokenizer.json"))
(out / "base" / "tokenizer_config.json").write_text(
    json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "bos_token": None}, indent=1)
)
print({p.name: p.stat().st_size for p in sorted(out.rglob("*")) if p.is_file()})
ids = tokenizer.encode(valid + test[:cut]).ids
print("pretrain tokens", len(ids), "general", len(tokenizer.encode(test[cut:]).ids), "train", sum(len(tokenizer.encode(r["question"] + r["answer"]).ids) for r in rows[:800]))

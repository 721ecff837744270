"""Cuts the page's texts: Shakespeare at an act, Wikipedia at its articles.

Usage: python prepare.py TINYSHAKESPEARE_TXT PRETRAIN_TXT OUT_FOLDER
TINYSHAKESPEARE_TXT is input.txt of karpathy/char-rnn, PRETRAIN_TXT is native/demo/pretrain.txt.
Writes shakespeare/ and wikipedia/, each with train.txt and target.txt.
"""
import sys
from pathlib import Path

shakespeare, wikipedia = (Path(p).read_text(encoding="utf-8") for p in sys.argv[1:3])
out = Path(sys.argv[3])


def between(text, first, after):
    """From the first words of a part to the first words of the part after it."""
    start = text.index(first)
    return text[start : text.index(after, start)].rstrip("\n") + "\n"


def write(name, train, target):
    (out / name).mkdir(parents=True, exist_ok=True)
    for part, text in (("train", train), ("target", target)):
        (out / name / f"{part}.txt").write_text(text, encoding="utf-8", newline="\n")
        print(name, part, len(text.encode()), "bytes")


# Romeo and Juliet: four acts to learn from, the fifth to measure on.
fifth = "ROMEO:\nIf I may trust the flattering truth of sleep,"
write(
    "shakespeare",
    between(shakespeare, "SAMPSON:\nGregory, o' my word,", fifth),
    between(shakespeare, fifth, "WARWICK:\nI wonder how the king escaped our hands."),
)
# Whole articles from both ends; the very last one goes on in general.txt and is left out.
write(
    "wikipedia",
    between(wikipedia, "= Homarus gammarus =\n", "= Capel <unk> =\n"),
    between(wikipedia, "= New York State Route 93 =\n", "= <unk>'s Block Ball =\n"),
)

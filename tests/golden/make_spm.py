"""A small tokenizer of Gemma's kind in the three forms in which one is published, with sentencepiece 0.2.3, tokenizers 0.23.3,
transformers 5.24.0 and gguf 0.19.0. Run: make_spm.py, in this folder.

A SentencePiece BPE (byte fallback, no space in front, digits alone, runs of white space as symbols of their own) is trained on
smollm2/wikitext2_test_20000.txt. tokenizers/gemma_tokenizer.json.gz is what transformers makes of it, tokenizers/gemma.gguf (no tensors) what
llama.cpp's converter writes: scores, kinds of token, and user-defined tokens with true spaces. tokenizers/gemma.json has texts with
the ids and the decoding of sentencepiece itself; the file of tokenizers is held to the same here."""
import gzip, io, json
import sentencepiece as spm
from gguf import GGUFWriter, TokenType
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.tokenization_utils_base import generate_merges
from make_golden import CHATS, TOK_TEXTS

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]
TURNS = ["<start_of_turn>", "<end_of_turn>"]
RUNS = ["\n" * n for n in range(1, 5)] + ["\t" * n for n in range(1, 3)] + ["▁" * n for n in range(2, 9)]
TEMPLATE = ("{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}"
            "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}")
TEXTS = TOK_TEXTS + ["<start_of_turn>user\nWhat is 2+2?<end_of_turn>\n<start_of_turn>model\n", "a  b   c    d", "  two before, two after  ",
                     "def f():\n    if x:\n\n        return\t\t1\n\n\n", "one▁letter is a space", "<0x41> is no byte", "naïve 𝄞 \u0000 é"]


def trained():
    model = io.BytesIO()
    lines = open("smollm2/wikitext2_test_20000.txt", encoding="utf8").read().split("\n")
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=800, byte_fallback=True, split_digits=True,
        add_dummy_prefix=False, remove_extra_whitespaces=False, normalization_rule_name="identity", allow_whitespace_only_pieces=True,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", unk_piece="<unk>",
        user_defined_symbols=TURNS + RUNS, character_coverage=0.999, num_threads=1, minloglevel=2)
    return model.getvalue()


def as_tokenizers(pieces):
    """As transformers converts a Gemma."""
    vocab = {piece: at for at, piece in enumerate(pieces)}
    merges = generate_merges(vocab, skip_tokens=SPECIAL)
    out = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    out.normalizer = normalizers.Replace(" ", "▁")
    out.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    out.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    out.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in SPECIAL + TURNS])
    out.add_tokens([AddedToken(piece, normalized=False, special=False) for piece in RUNS])
    return out


def write_gguf(model, pieces):
    w = GGUFWriter("tokenizers/gemma.gguf", "gemma3")
    tokens, scores, types = [], [], []
    for at, piece in enumerate(pieces):
        kind = TokenType.NORMAL
        if model.IsUnknown(at):
            kind = TokenType.UNKNOWN
        elif model.IsControl(at) or piece in TURNS:
            kind = TokenType.CONTROL
        elif model.IsByte(at):
            kind = TokenType.BYTE
        elif piece in RUNS:
            kind = TokenType.USER_DEFINED
        tokens.append((piece.replace("▁", " ") if kind == TokenType.USER_DEFINED else piece).encode())
        scores.append(-1000.0 if kind == TokenType.USER_DEFINED or piece in TURNS else model.GetScore(at))
        types.append(kind)
    w.add_tokenizer_model("llama"); w.add_tokenizer_pre("default"); w.add_token_list(tokens); w.add_token_scores(scores); w.add_token_types(types)
    w.add_bos_token_id(2); w.add_eos_token_id(1); w.add_unk_token_id(3); w.add_pad_token_id(0)
    w.add_add_bos_token(True); w.add_add_eos_token(False); w.add_chat_template(TEMPLATE); w.add_add_space_prefix(False)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()


if __name__ == "__main__":
    model = spm.SentencePieceProcessor(model_proto=trained())
    pieces = [model.IdToPiece(at) for at in range(model.GetPieceSize())]
    json_form = as_tokenizers(pieces)
    rows = []
    for text in TEXTS:
        ids = model.EncodeAsIds(text)
        decoded = model.DecodeIds(ids)
        assert json_form.encode(text, add_special_tokens=False).ids == ids, text
        assert json_form.decode(ids, skip_special_tokens=False) == decoded, text
        rows.append(dict(text=text, ids=ids, decoded=decoded))
    chats, whole = [], PreTrainedTokenizerFast(tokenizer_object=json_form, bos_token="<bos>", chat_template=TEMPLATE)
    for messages in CHATS:
        for more in (True, False):
            text = whole.apply_chat_template(messages, tokenize=False, add_generation_prompt=more)
            ids = whole(text, add_special_tokens=False)["input_ids"]
            chats.append(dict(messages=messages, add_generation_prompt=more, text=text, ids=ids))
    with open("tokenizers/gemma_tokenizer.json.gz", "wb") as f:
        f.write(gzip.compress(json_form.to_str().encode(), 9, mtime=0))
    write_gguf(model, pieces)
    json.dump(dict(vocab_size=len(pieces), bos="<bos>", eos="<eos>", pad="<pad>", chat_template=TEMPLATE, encode=rows, chat=chats),
              open("tokenizers/gemma.json", "w"), indent=0, ensure_ascii=False)
    print(len(pieces), "pieces", len(rows), "texts")

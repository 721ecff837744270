// Files that fall on the page: a model that is small and right, and many that are wrong.

import { readFileSync } from "node:fs";

import { here } from "./harness.mjs";

const golden = readFileSync(here("../../tests/golden/gguf/llama3_rope.gguf"));
const base = (name) => ({ name, bytes: readFileSync(here(`../../native/demo/base/${name}`)) });

const [TEXT, LIST] = [8, 9];
/** Bytes of GGUF's values of one size, by kind. */
const SIZE = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };

const u32 = (n) => { const bytes = Buffer.alloc(4); bytes.writeUInt32LE(n); return bytes; };
const u64 = (n) => { const bytes = Buffer.alloc(8); bytes.writeBigUInt64LE(BigInt(n)); return bytes; };
const text = (words) => { const bytes = Buffer.from(words); return Buffer.concat([u64(bytes.length), bytes]); };
const texts = (list) => Buffer.concat([u32(TEXT), u64(list.length), ...list.map(text)]);

/** How byte-level tokenizers write a byte: printable ones as themselves, the others as U+0100 and on. */
function byteSymbols() {
  let next = 0x100;
  const printable = (byte) => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
}

/**
 * The golden GGUF of the engine's tests (two Llama blocks, Q8_0, scaled rotary positions) with a tokenizer that can
 * write any text: one token a byte. All else stays as it is, byte for byte.
 */
function withByteTokenizer(file) {
  let at = 4;
  const number = (size) => {
    at += size;
    return size === 4 ? file.readUInt32LE(at - size) : Number(file.readBigUInt64LE(at - size));
  };
  const take = (length) => file.subarray(at, (at += length));
  const skip = (kind) => {
    if (kind === TEXT) take(number(8));
    else if (kind === LIST) for (let inner = number(4), count = number(8); count > 0; count--) skip(inner);
    else take(SIZE[kind]);
  };
  const version = number(4);
  const tensors = number(8);
  const keys = number(8);
  const changed = { "tokenizer.ggml.tokens": texts(byteSymbols()), "tokenizer.ggml.merges": texts([]),
    "tokenizer.ggml.pre": text("gpt-2"),
    "tokenizer.chat_template": text("{% for m in messages %}{{ m.content }}\n{% endfor %}") };
  const parts = [Buffer.from("GGUF"), u32(version), u64(tensors), u64(keys)];
  for (let key = 0; key < keys; key++) {
    const name = take(number(8)).toString();
    const kind = number(4);
    const start = at;
    skip(kind);
    parts.push(text(name), u32(kind), changed[name] ?? file.subarray(start, at));
  }
  const start = at;
  for (let tensor = 0; tensor < tensors; tensor++) {
    take(number(8));
    take(8 * number(4));
    take(4 + 8);
  }
  parts.push(file.subarray(start, at));
  const aligned = (length) => -length & 31;
  const header = Buffer.concat(parts);
  return Buffer.concat([header, Buffer.alloc(aligned(header.length)), file.subarray(at + aligned(at))]);
}

export const tinyGguf = { name: "tiny.gguf", bytes: withByteTokenizer(golden) };

const sum = (a, b) => JSON.stringify({ question: `What is ${a} plus ${b}?`, answer: `${a} plus ${b} is ${a + b}.` });
const sums = Array.from({ length: 60 }, (_, n) => sum(n, n % 7)).join("\n");
export const ownText = { name: "own.jsonl", bytes: Buffer.from(sums) };

/** Bytes that look like nothing, the same in every run. */
function noise(length) {
  let state = 1;
  return Buffer.from(Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 24;
  }));
}

const gguf = (...parts) => [{ name: "model.gguf", bytes: Buffer.concat(parts) }];
/** Version 3: counts of tensors and keys, then whatever. */
const ggufWith = (tensors, keys, ...rest) => gguf(Buffer.from("GGUF"), u32(3), u64(tensors), u64(keys), ...rest);
const folder = (bytes) => [base("config.json"), base("tokenizer.json"), { name: "model.safetensors", bytes }];
const WEIGHTS = base("model.safetensors");
const configured = (config) => [{ name: "config.json", bytes: config }, base("tokenizer.json"), WEIGHTS];
const HUGE = 2n ** 63n;

/** What a visitor may let fall on the page by mistake or malice, by what is wrong with it. */
export const BROKEN = {
  "an empty GGUF file": gguf(Buffer.alloc(0)),
  "a GGUF file cut in its header": gguf(golden.subarray(0, 1000)),
  "a GGUF file cut in its weights": gguf(golden.subarray(0, golden.length - 20_000)),
  "random bytes as a GGUF file": gguf(noise(50_000)),
  "a GGUF file with more tensors than can be": ggufWith(HUGE, 0),
  "a GGUF file with more keys than can be": ggufWith(1, HUGE),
  "a GGUF file with a key longer than memory": ggufWith(1, 1, u64(HUGE), noise(64)),
  "a GGUF file with a list longer than memory": ggufWith(1, 1, text("a"), u32(LIST), u32(TEXT), u64(HUGE), noise(64)),
  "a safetensors file with a header longer than memory": folder(Buffer.concat([u64(HUGE), noise(64)])),
  "a safetensors file with a header longer than itself": folder(Buffer.concat([u64(4096), Buffer.from("{}")])),
  "a safetensors file whose tensor ends outside it": folder(Buffer.concat([u64(79),
    Buffer.from('{"model.norm.weight":{"dtype":"F16","shape":[128],"data_offsets":[0,256]}}     ')])),
  "random bytes as a safetensors file": folder(noise(50_000)),
  "weights without a configuration": [{ name: "model.safetensors", bytes: noise(1000) }],
  "a configuration that is no JSON": configured(noise(1000)),
  "a configuration of a model larger than the world": configured(Buffer.from(JSON.stringify({
    ...JSON.parse(base("config.json").bytes),
    hidden_size: 2 ** 31, num_hidden_layers: 2 ** 31, vocab_size: 2 ** 31 }))),
  "random bytes as a tokenizer": [base("config.json"), { name: "tokenizer.json", bytes: noise(1000) }, WEIGHTS],
  "an empty text": [{ name: "empty.txt", bytes: Buffer.alloc(0) }],
  "a text that is no UTF-8": [{ name: "latin.txt", bytes: Buffer.from([0xff, 0xfe, 0xe9, 0x80, 0x81]) }],
  "records that are no JSON": [{ name: "broken.jsonl", bytes: Buffer.from('{"question": "cut o') }],
  "records without anything known": [{ name: "strange.jsonl", bytes: Buffer.from('{"a": 1}\n{"b": 2}\n') }],
  "several files of no model": [{ name: "a.txt", bytes: Buffer.from("a") }, { name: "b.txt", bytes: Buffer.from("b") }],
};

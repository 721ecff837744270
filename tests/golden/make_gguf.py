"""GGUF reference data, with the gguf package (0.19) and numpy: blocks of every type with their values in f32, f32 rows as ggml
quantises them, and tiny models as GGUF files, one of them in three parts as well. Run: make_gguf.py LIBRARY, in this folder; LIBRARY is a shared library
with ggml's `quantize_row_q4_K_ref` and `quantize_row_q6_K_ref`, which the package lacks (libggml-base.so; ours held these of ggml
commits 5136ed06 and d99724f2, compiled by gcc -O2 -ffp-contract=off)."""
import ctypes, json, math, os, sys
import numpy as np
from gguf import GGML_QUANT_SIZES, GGUFWriter, GGMLQuantizationType as T, MODEL_ARCH, RopeScalingType, get_tensor_name_map, quants
from safetensors.numpy import load_file, save_file

BLOCK = {T.Q4_0: 18, T.Q4_1: 20, T.Q8_0: 34, T.Q4_K: 144, T.Q6_K: 210, T.BF16: 2, T.F16: 2}
SCALES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q8_0: [0], T.Q4_K: [0, 2], T.Q6_K: [208], T.BF16: [], T.F16: []}


def blocks():
    rng = np.random.default_rng(7)
    out = {}
    for t, size in BLOCK.items():
        n = 512 if size == 2 else 4
        raw = rng.integers(0, 256, (n, size), dtype=np.uint8)
        for at in SCALES[t]:
            raw[:, at:at + 2] = rng.normal(0, 0.1, (n, 1)).astype(np.float16).view(np.uint8)
        if size == 2:
            values = rng.normal(0, 3, (n, 1)).astype(np.float32)
            raw = quants.quantize(values, t).view(np.uint8).reshape(n, 2)
        flat = raw.reshape(1, -1)
        out[t.name + ".raw"] = flat[0].copy()
        source = flat.view(np.float16) if t == T.F16 else flat
        out[t.name + ".f32"] = quants.dequantize(source, t).astype(np.float32).reshape(-1)
    rows = (rng.normal(0, 1, (6, 64)) * 10.0 ** np.arange(-4, 2)[:, None]).astype(np.float32)
    rows[0, :32] = 0
    out["rows.f32"] = rows
    for t in (T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.BF16, T.F16):
        out["rows." + t.name] = np.ascontiguousarray(quants.quantize(rows, t)).view(np.uint8).reshape(-1).copy()
    further(out)
    long_rows(out)
    save_file(out, "gguf/blocks.safetensors")


def further(out):
    """A few blocks of every other type that the package can expand, so that a format which Temper learns to read has its vectors."""
    rng = np.random.default_rng(8)
    for t in sorted(quants._type_traits):
        if t in BLOCK:
            continue
        elements, size = GGML_QUANT_SIZES[t]
        while True:
            raw = rng.integers(0, 256, (1, max(2, 128 // elements) * size), dtype=np.uint8)
            with np.errstate(all="ignore"):
                values = quants.dequantize(raw, t).astype(np.float32).reshape(-1)
            if np.isfinite(values).all():
                break
        out[t.name + ".raw"], out[t.name + ".f32"] = raw[0].copy(), values


def long_rows(out):
    """Rows of 256 elements of many kinds and their blocks of ggml's reference without importance matrix."""
    rng = np.random.default_rng(9)
    rows = (rng.normal(0, 1, (12, 256)) * 10.0 ** np.arange(-6, 6)[:, None] / 10).astype(np.float32)
    rows[1] += 0.003  # mostly positive
    rows[2] = np.abs(rows[2])
    rows[3] = -np.abs(rows[3])
    rows[4, :32], rows[4, 32:64], rows[4, 64:96] = 0, 0.25, -0.25
    rows[5] = rng.integers(-3, 4, 256)  # ties
    rows[6, 40] = 30  # an outlier
    rows[7] = rng.standard_t(2, 256)
    rows[8] = 0
    out["long_rows.f32"] = rows
    library = ctypes.CDLL(sys.argv[1])
    for t, ggml in ((T.Q4_K, library.quantize_row_q4_K_ref), (T.Q6_K, library.quantize_row_q6_K_ref)):
        blocks = np.zeros((12, BLOCK[t]), dtype=np.uint8)
        ggml(rows.ctypes.data_as(ctypes.c_void_p), blocks.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(rows.size))
        out["long_rows." + t.name] = blocks.reshape(-1)


def permute(w, heads):
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "post_self_attn_layernorm": "post_attention_norm",
         "post_mlp_layernorm": "post_ffw_norm"}


def model(folder, arch, rotary, permuted, divisors, tensors_a_part=0):
    w = GGUFWriter(f"gguf/{folder}.gguf", arch, split_max_tensors=tensors_a_part)
    w.add_block_count(2); w.add_context_length(128); w.add_embedding_length(64); w.add_feed_forward_length(128)
    w.add_head_count(4); w.add_head_count_kv(2); w.add_layer_norm_rms_eps(1e-5); w.add_rope_freq_base(10000.0)
    w.add_rope_dimension_count(rotary); w.add_key_length(16); w.add_value_length(16); w.add_vocab_size(256)
    w.add_tokenizer_model("gpt2"); w.add_tokenizer_pre("smollm"); w.add_token_list([f"t{i}" for i in range(256)])
    w.add_token_types([1] * 256); w.add_token_merges(["t t", "t 1"]); w.add_bos_token_id(1); w.add_eos_token_id(2)
    w.add_add_bos_token(False); w.add_chat_template("{{ messages }}")
    if divisors is not None:
        w.add_tensor("rope_freqs.weight", divisors)
    for name, t in sorted(load_file(f"tiny/{folder}/model.safetensors").items()):
        top = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
        if name in top:
            new = top[name]
        else:
            _, _, layer, rest = name.split(".", 3)
            stem, kind = rest.rsplit(".", 1)
            new = f"blk.{layer}.{NAMES[stem]}.{kind}"
            if permuted and stem in ("self_attn.q_proj", "self_attn.k_proj"):
                t = permute(t, 4 if stem.endswith("q_proj") else 2)
        if t.ndim == 1:
            w.add_tensor(new, t)
        else:
            w.add_tensor(new, quants.quantize(np.ascontiguousarray(t), T.Q8_0), raw_dtype=T.Q8_0)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()


def llama3_divisors(dim=16, theta=10000.0, factor=8.0, low=1.0, high=4.0, context=32):
    out = []
    for i in range(0, dim, 2):
        wave = 2 * math.pi * theta ** (i / dim)
        if wave < context / high:
            out.append(1.0)
        elif wave > context / low:
            out.append(factor)
        else:
            s = (context / wave - low) / (high - low)
            out.append(1 / ((1 - s) / factor + s))
    return np.array(out, dtype=np.float32)


def gemma3():
    """As llama.cpp's converter writes one: norms with their 1 added; that rotary base and scaling are the global layers' goes without
    saying, and so do the pattern of windows and the base within them."""
    w = GGUFWriter("gguf/gemma3.gguf", "gemma3")
    w.add_block_count(7); w.add_context_length(128); w.add_embedding_length(32); w.add_feed_forward_length(64)
    w.add_head_count(4); w.add_head_count_kv(1); w.add_layer_norm_rms_eps(1e-6); w.add_key_length(16); w.add_value_length(16)
    w.add_rope_freq_base(1000000.0); w.add_rope_scaling_type(RopeScalingType.LINEAR); w.add_rope_scaling_factor(8.0)
    w.add_sliding_window(8)
    by_names_of_the_package(w, MODEL_ARCH.GEMMA3, 7, "gemma3")


def phi3(folder, window, scaled):
    w = GGUFWriter(f"gguf/{folder}.gguf", "phi3")
    w.add_context_length(128); w.add_rope_scaling_orig_ctx_len(64 if scaled else 128); w.add_embedding_length(32)
    w.add_feed_forward_length(64); w.add_block_count(2); w.add_head_count(2); w.add_head_count_kv(1); w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(12); w.add_rope_freq_base(10000.0); w.add_sliding_window(window)
    if scaled:
        w.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(128 / 64) / math.log(64)))
        for name, factors in json.load(open(f"tiny/{folder}/config.json"))["rope_scaling"].items():
            if name != "type":
                w.add_tensor(f"rope_factors_{name.split('_')[0]}.weight", np.array(factors, dtype=np.float32))
    by_names_of_the_package(w, MODEL_ARCH.PHI3, 2, folder)


def by_names_of_the_package(w, arch, blocks, folder):
    """The tokenizer that `model` makes up, and the tensors."""
    w.add_vocab_size(256); w.add_tokenizer_model("gpt2"); w.add_tokenizer_pre("smollm"); w.add_token_list([f"t{i}" for i in range(256)])
    w.add_token_types([1] * 256); w.add_token_merges(["t t", "t 1"]); w.add_bos_token_id(1); w.add_eos_token_id(2)
    w.add_add_bos_token(False); w.add_chat_template("{{ messages }}")
    names = get_tensor_name_map(arch, blocks)
    for name, t in sorted(load_file(f"tiny/{folder}/model.safetensors").items()):
        new = names.get_name(name, try_suffixes=(".weight",))
        if t.ndim == 1:
            w.add_tensor(new, t + np.float32(1) if arch == MODEL_ARCH.GEMMA3 else t)
        else:
            w.add_tensor(new, quants.quantize(np.ascontiguousarray(t), T.Q8_0), raw_dtype=T.Q8_0)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()


if __name__ == "__main__":
    os.makedirs("gguf", exist_ok=True)
    blocks()
    model("llama3_rope", "llama", 16, True, llama3_divisors())
    model("llama3_rope", "llama", 16, True, llama3_divisors(), tensors_a_part=8)  # the same in three parts
    model("glm4", "glm4", 8, False, None)
    gemma3()
    phi3("phi3", 8, False)
    phi3("phi3_longrope", 0, True)  # as the converter says that there is no window

// The embedded base model, trained with TensorFlow.js as someone who knows it well would write it.
//
// Documents are a batch (in a packed stream, attention scores between documents would be computed only to be masked),
// the query heads of a group are stacked, so that keys and values are not repeated, and q, k, v and gate, up are one
// product each. WebAssembly runs on one thread: in a cross-origin isolated page, as this one is, 4.22 asks for more but
// starts none (tensorflow/tfjs issue 8513).

/* global tf */

const bench = (() => {
  let model;
  let optimiser;
  let embed;
  let linear;
  let table;

  /** A safetensors file of f16 matrices, as name -> {shape, values}. */
  async function readWeights(address) {
    const bytes = await (await fetch(address)).arrayBuffer();
    const length = Number(new DataView(bytes).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, length)));
    delete header.__metadata__;
    return Object.fromEntries(Object.entries(header).map(([name, { dtype, shape, data_offsets: [begin, end] }]) => {
      if (dtype !== "F16") throw new Error(`${name} is ${dtype}, not F16`);
      const halves = new Float16Array(bytes, 8 + length + begin, (end - begin) / 2);
      return [name, { shape, values: Float32Array.from(halves) }];
    }));
  }

  /** Rows of matrices one after the other, as one trained variable. */
  function variable(name, ...parts) {
    const values = parts.map((part) => tf.tensor(part.values, part.shape));
    return tf.variable(values.length === 1 ? values[0] : tf.concat(values, 0), true, name);
  }

  function loadModel(config, weights) {
    const get = (name) => weights[`model.${name}`];
    const blocks = Array.from({ length: config.num_hidden_layers }, (_, i) => {
      const of = (name) => get(`layers.${i}.${name}.weight`);
      return {
        inputNorm: variable(`${i}.input_norm`, of("input_layernorm")),
        qkv: variable(`${i}.qkv`, of("self_attn.q_proj"), of("self_attn.k_proj"), of("self_attn.v_proj")),
        output: variable(`${i}.output`, of("self_attn.o_proj")),
        mlpNorm: variable(`${i}.mlp_norm`, of("post_attention_layernorm")),
        gateUp: variable(`${i}.gate_up`, of("mlp.gate_proj"), of("mlp.up_proj")),
        down: variable(`${i}.down`, of("mlp.down_proj")),
      };
    });
    return {
      config,
      embedding: variable("embedding", get("embed_tokens.weight")),
      blocks,
      norm: variable("norm", get("norm.weight")),
    };
  }

  /** What depends only on a document's length: rotary tables and the causal mask of a group's stacked query heads. */
  function tables({ head_dim: width, rope_theta: theta, num_attention_heads: heads, num_key_value_heads: kv }, length) {
    const frequencies = tf.tensor1d(Array.from({ length: width / 2 }, (_, i) => theta ** (-2 * i / width)));
    const angles = tf.outerProduct(tf.range(0, length), frequencies);
    const wide = tf.reshape(tf.concat([angles, angles], 1), [1, length, 1, width]);
    const causal = tf.mul(tf.sub(tf.linalg.bandPart(tf.ones([length, length]), -1, 0), 1), 1e9);
    return { cos: tf.cos(wide), sin: tf.sin(wide), mask: tf.tile(causal, [heads / kv, 1]) };
  }

  /** `x W^T`, as weights are stored, with TensorFlow.js's own gradient. */
  function plainLinear(x, weight) {
    return tf.matMul(x, weight, false, true);
  }

  /**
   * The same with its gradient by hand. TensorFlow.js's own gradient uses products of transposed operands, which the
   * WASM backend computes ten times more slowly than a product with a transposed copy.
   */
  const carefulLinear = tf.customGrad((x, weight, save) => {
    save([x, weight]);
    return {
      value: tf.matMul(x, tf.transpose(weight)),
      gradFunc: (dy, [x, weight]) => [tf.matMul(dy, weight), tf.matMul(tf.transpose(dy), x)],
    };
  });

  /** Rows of the embedding. */
  function plainEmbed(ids) {
    return tf.gather(model.embedding, ids);
  }

  /** The same as a product with one-hot rows: the WASM backend has no kernel for the gradient of `gather`. */
  function productEmbed(ids) {
    return tf.matMul(tf.oneHot(ids, model.config.vocab_size), model.embedding);
  }

  /** The same with its gradient by hand, as in `carefulLinear`. */
  function carefulEmbed(ids) {
    return tf.customGrad((embedding) => ({
      value: tf.gather(embedding, ids),
      gradFunc: (dy) => tf.matMul(tf.transpose(tf.oneHot(ids, model.config.vocab_size)), dy),
    }))(model.embedding);
  }

  function rmsNorm(x, weight) {
    const inverse = tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), model.config.rms_norm_eps));
    return tf.mul(tf.mul(x, inverse), weight);
  }

  function rotate(x, { cos, sin }) {
    const [first, second] = tf.split(x, 2, -1);
    return tf.add(tf.mul(x, cos), tf.mul(tf.concat([tf.neg(second), first], -1), sin));
  }

  function byHead(x) {
    return tf.transpose(x, [0, 2, 1, 3]);
  }

  function attention(block, x, count, length, table) {
    const { num_attention_heads: heads, num_key_value_heads: kv, head_dim: width } = model.config;
    const qkv = tf.reshape(linear(rmsNorm(x, block.inputNorm), block.qkv), [count, length, heads + 2 * kv, width]);
    const [qk, v] = tf.split(qkv, [heads + kv, kv], 2);
    const [q, k] = tf.split(rotate(qk, table), [heads, kv], 2);
    const groups = tf.reshape(byHead(q), [count, kv, heads / kv * length, width]);
    const scores = tf.mul(tf.matMul(groups, byHead(k), false, true), width ** -0.5);
    const mixed = tf.matMul(tf.softmax(tf.add(scores, table.mask)), byHead(v));
    const rows = byHead(tf.reshape(mixed, [count, heads, length, width]));
    return linear(tf.reshape(rows, [count * length, heads * width]), block.output);
  }

  function mlp(block, x) {
    const [gate, up] = tf.split(linear(rmsNorm(x, block.mlpNorm), block.gateUp), 2, -1);
    return linear(tf.mul(tf.mul(gate, tf.sigmoid(gate)), up), block.down);
  }

  /** Mean cross entropy of every token but each document's first, given those before it. */
  function loss({ ids, labels, weights, count, length }, table) {
    let x = embed(ids);
    for (const block of model.blocks) {
      x = tf.add(x, attention(block, x, count, length, table));
      x = tf.add(x, mlp(block, x));
    }
    const logits = linear(rmsNorm(x, model.norm), model.embedding);
    return tf.losses.softmaxCrossEntropy(tf.oneHot(labels, model.config.vocab_size), logits, weights);
  }

  function makeBatch(documents) {
    const [count, length] = [documents.length, documents[0].length];
    return {
      count,
      length,
      ids: tf.tensor1d(documents.flat(), "int32"),
      labels: tf.tensor1d(documents.flatMap((tokens) => [...tokens.slice(1), 0]), "int32"),
      weights: tf.tensor1d(documents.flatMap((tokens) => tokens.map((_, i) => Number(i + 1 < tokens.length)))),
    };
  }

  /** Chooses the backend and loads the model. */
  async function open({ backend, careful, learningRate, length }) {
    if (backend === "wasm") {
      tf.wasm.setWasmPaths("/tfjs/tfjs-backend-wasm/dist/");
    }
    if (!(await tf.setBackend(backend))) throw new Error(`TensorFlow.js has no backend ${backend} here`);
    await tf.ready();
    const [config, weights] = await Promise.all([
      fetch("/base/config.json").then((answer) => answer.json()),
      readWeights("/base/model.safetensors"),
    ]);
    model = loadModel(config, weights);
    table = tables(config, length);
    linear = careful ? carefulLinear : plainLinear;
    embed = backend !== "wasm" ? plainEmbed : careful ? carefulEmbed : productEmbed;
    optimiser = tf.train.adam(learningRate, 0.9, 0.999, 1e-8);
    return describe(backend);
  }

  async function describe(backend) {
    const version = `TensorFlow.js ${tf.version_core}`;
    if (backend === "webgpu") {
      const { vendor, architecture, description } = tf.backend().adapterInfo;
      return { version, device: [vendor, architecture, description].filter(Boolean).join(" ") };
    }
    if (backend === "wasm") {
      const simd = await tf.env().getAsync("WASM_HAS_SIMD_SUPPORT");
      return { version, device: `WebAssembly${simd ? " with SIMD" : ""}, ${tf.wasm.getThreadsCount()} thread(s)` };
    }
    return { version, device: "JavaScript" };
  }

  /** One optimiser step for each batch of documents (lists of tokens); each waits for its loss. */
  async function steps(batches) {
    const done = [];
    for (const documents of batches) {
      const start = performance.now();
      const value = tf.tidy(() => {
        const batch = makeBatch(documents);
        const { value, grads } = tf.variableGrads(() => loss(batch, table));
        optimiser.applyGradients(grads);
        return value;
      });
      const [read] = await value.data();
      value.dispose();
      done.push({ seconds: (performance.now() - start) / 1e3, losses: [read] });
    }
    return done;
  }

  /** Bytes that the backend has taken; it gives none back. JavaScript arrays cannot be seen. */
  function peakBytes() {
    const memory = tf.memory();
    return memory.numBytesAllocatedInGPU ?? tf.backend().wasm?.HEAPU8.length ?? 0;
  }

  return { open, steps, peakBytes };
})();

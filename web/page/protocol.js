// What the page and its worker say to one another, and the one class through which the page says it.
//
// The worker holds the engine (WebAssembly) and all tensors; the page holds what is drawn. A request is answered once;
// events come unasked while the worker plays. Field names are those of the engine's events, so that a line of
// `metrics.jsonl`, a frame here and the native report mean the same thing.

/**
 * @typedef {"left" | "right"} Side  The two learners. Both start from the same model and see the same batches.
 * @typedef {Side | "base"} Who      A learner, or the model that both started from.
 */

/**
 * What a run is made of: the keys and values of the command's `--set section.key=value`, so that page, command and
 * configuration file accept and refuse the same things. `left` and `right` hold what only that learner has
 * (`objective.*`); `common` all the rest (`optim.learning_rate`, `adapter.kind`, `run.seed`, `run.steps` ...).
 * @typedef {{common: Record<string, string>, left: Record<string, string>, right: Record<string, string>}} Settings
 */

/**
 * @typedef {object} Opened
 * @property {{kind: "webgpu" | "cpu", name: string, why: string, simd: boolean}} device  `why` is one sentence for people.
 * @property {string} version
 * @property {SelfTest} selfTest
 *
 * @typedef {object} SelfTest  Every shader on a small batch, against answers of the CPU's kernels.
 * @property {boolean} passed
 * @property {number} seconds
 * @property {{kernel: string, passed: boolean, error: number, message: string}[]} checks  `error` is the largest one found.
 *
 * @typedef {object} ModelInfo
 * @property {string} name
 * @property {string} family      `llama`, `qwen3` ...
 * @property {number} layers
 * @property {number} hidden
 * @property {number} vocabulary
 * @property {number} parameters
 * @property {number} context     Longest document that the model was made for, in tokens.
 * @property {boolean} chatTemplate
 * @property {boolean} base       True for the small model that comes with the page.
 *
 * @typedef {object} DataInfo
 * @property {string} name
 * @property {string} kind           What the records are: `question_answer`, `messages`, `text` ...
 * @property {number} records
 * @property {number} documents
 * @property {number} tokens
 * @property {number} trainedTokens
 * @property {number} truncated      Documents that lost their end to the cutoff length.
 * @property {number} skipped        Records that could not be used.
 * @property {string[]} problems     The first reasons for skipping, with their lines.
 * @property {number} targetTokens   Scored tokens of the held-out target set.
 * @property {number} generalTokens  Scored tokens of the held-out general set.
 *
 * @typedef {object} Estimate
 * @property {boolean} fits
 * @property {number} needBytes       Peak memory that both learners need.
 * @property {number} allowedBytes    What the device or the browser allows.
 * @property {number} secondsPerStep  0 where nothing like it has been measured yet.
 * @property {string[]} parts         One line for each thing that takes memory, with its number.
 * @property {string} problem         Empty, or why it cannot fit and what would.
 *
 * @typedef {object} Started
 * @property {number} step       0, or that of the checkpoint.
 * @property {number} steps
 * @property {number} batchTokens
 * @property {number} seconds    How long making the learners took.
 * @property {{objective: string, parameters: number, trainable: number}[]} learners  Left, right.
 */

/**
 * What one optimiser step did to one learner. Arrays have one number a trained token of the batch, in order.
 * @typedef {object} Learned
 * @property {Metrics} metrics
 * @property {Float32Array} p         Probability of the label.
 * @property {Float32Array} entropy   Entropy over the whole vocabulary, nats.
 * @property {Float32Array} gate      Weight of the token's cross entropy, as the device used it.
 * @property {Float32Array} gradient  Norm of the token's gradient over its logits: gate * |softmax - onehot|.
 *
 * @typedef {object} Metrics  The engine's `StepMetrics`, as in `metrics.jsonl`.
 * @property {number} step
 * @property {number} tokens
 * @property {number} loss
 * @property {number} cross_entropy
 * @property {number} gate_mean
 * @property {number} gate_below_0_1
 * @property {number} conflict_share
 * @property {number} conflict_share_quantile
 * @property {number} learning_rate
 * @property {number} gradient_norm
 * @property {number} tokens_per_second
 * @property {number} peak_device_bytes
 * @property {number} seconds
 *
 * @typedef {object} Frame
 * @property {number} step
 * @property {number} steps
 * @property {number} epoch
 * @property {Learned[]} learners    Left, right.
 * @property {Uint32Array} document  Which training document each trained token belongs to ...
 * @property {Uint32Array} position  ... and at which of its tokens (0 is the first token of the document).
 *
 * @typedef {object} Evaluation
 * @property {number} loss        Nats per scored token.
 * @property {number} perplexity
 * @property {number} tokens
 *
 * @typedef {object} Evaluated
 * @property {number} step
 * @property {{target: Evaluation, general: Evaluation}[]} learners  Left, right; at step 0 both are the base model.
 *
 * @typedef {object} Sample
 * @property {number} step
 * @property {{prompt: string, kind: "target" | "general", base: string, left: string, right: string}[]} samples
 *
 * @typedef {object} DocumentText
 * @property {number} document
 * @property {{text: string, trained: boolean}[]} tokens
 *
 * @typedef {object} Inspected  What the model `who` makes of a training document now. Arrays: one number a trained token.
 * @property {number} document
 * @property {Who} who
 * @property {number[]} position
 * @property {number[]} p
 * @property {number[]} entropy
 * @property {number[]} entropyTopK
 * @property {number[][]} gate      Left objective's, right objective's: what each would do with the token.
 * @property {number[][]} gradient  The same, norm of the gradient over the logits.
 *
 * @typedef {object} Candidates  One token in full.
 * @property {number} document
 * @property {number} position
 * @property {Who} who
 * @property {{id: number, text: string, p: number, rank: number}} label   `rank` from 1.
 * @property {{id: number, text: string, p: number, push: number[]}[]} candidates
 *   The most probable tokens and the label. `push`: change of this token's logit that one unit step against the gradient makes,
 *   under the left and the right objective: gate * (onehot - p).
 * @property {number} p
 * @property {number} entropy
 * @property {number} entropyTopK
 * @property {number[]} gate
 * @property {number[]} loss        gate * cross entropy.
 */

/** Data sets that come with the page. */
export const DATA_SETS = ["endings", "gsm8k", "shakespeare", "wikipedia"];

/** An answer that says no: `kind` is the engine's kind of error in snake case, or `page` for the page's own. */
export class Refusal extends Error {
  constructor({ kind, message }) {
    super(message);
    this.name = "Refusal";
    this.kind = kind;
  }
}

/**
 * The worker, seen from the page. Every method sends one request and resolves with its answer or rejects with a `Refusal`.
 *
 * Events: `frame` (Frame), `evaluated` (Evaluated), `samples` (Sample), `paused` ({reason: "asked" | "finished" | "failed",
 * message}), `warning` ({message}), `loading` ({what, done, of}). Listen with `on(name, listener)`.
 */
export class Engine {
  #worker;
  #waiting = new Map();
  #listeners = new Map();
  #next = 1;

  constructor(worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" })) {
    this.#worker = worker;
    worker.addEventListener("message", ({ data }) => this.#hear(data));
    // A module that cannot be loaded, or a trap in it: everything that waits is told.
    worker.addEventListener("error", (event) => this.#fail(event.message || "the worker could not be started"));
    worker.addEventListener("messageerror", () => this.#fail("a message could not be read"));
  }

  on(name, listener) {
    if (!this.#listeners.has(name)) this.#listeners.set(name, new Set());
    this.#listeners.get(name).add(listener);
    return () => this.#listeners.get(name).delete(listener);
  }

  /** @param {"auto" | "webgpu" | "cpu"} device @returns {Promise<Opened>} Must be the first request. */
  open(device) { return this.#ask("open", { device }); }
  /** @returns {Promise<ModelInfo>} */
  baseModel() { return this.#ask("model", {}); }
  /** A Hugging Face folder's files, or one GGUF file. @param {File[]} files @returns {Promise<ModelInfo>} */
  ownModel(files) { return this.#ask("model", { files }); }
  /** @param {string} id one of DATA_SETS @returns {Promise<DataInfo>} */
  data(id) { return this.#ask("data", { set: id }); }
  /** JSONL or plain text; its last tenth is held out as the target set. @param {File} file @returns {Promise<DataInfo>} */
  ownData(file) { return this.#ask("data", { file }); }
  /** @param {Settings} settings @returns {Promise<Estimate>} */
  estimate(settings) { return this.#ask("estimate", { settings }); }
  /** Makes both learners anew from the model (also the reset), and evaluates them: `evaluated` and `samples` follow.
   *  @param {Settings} settings @returns {Promise<Started>} */
  start(settings) { return this.#ask("start", { settings }); }
  /** Steps until `pause`, the last step, or a failure; each step gives a `frame`. */
  play() { return this.#ask("play", {}); }
  /** Resolves when the step under way is done. */
  pause() { return this.#ask("pause", {}); }
  /** One step of both. @returns {Promise<Frame>} Also emitted as `frame`. */
  step() { return this.#ask("step", {}); }
  /** @returns {Promise<Evaluated>} Also emitted. */
  evaluate() { return this.#ask("evaluate", {}); }
  /** Continues prompts with base, left and right. @param {{text: string, kind: string}[]} prompts @returns {Promise<Sample>} */
  sample(prompts, tokens = 24) { return this.#ask("sample", { prompts, tokens }); }
  /** How often a playing worker evaluates and samples by itself; 0 is never. */
  every(evaluate, sample) { return this.#ask("every", { evaluate, sample }); }
  /** @returns {Promise<DocumentText>} */
  document(document) { return this.#ask("document", { document }); }
  /** @param {Who} who @returns {Promise<Inspected>} */
  inspect(document, who) { return this.#ask("inspect", { document, who }); }
  /** @param {Who} who @returns {Promise<Candidates>} */
  candidates(document, position, who) { return this.#ask("candidates", { document, position, who }); }
  /** Takes effect at the next step. @param {Settings} settings whose `left` and `right` objectives, learning rate and
   *  schedule are taken; anything else that differs is refused (it needs `start`). */
  change(settings) { return this.#ask("change", { settings }); }
  /** @returns {Promise<Uint8Array>} One file with everything that goes on from here. */
  checkpoint() { return this.#ask("checkpoint", {}); }
  /** @param {Uint8Array} bytes @returns {Promise<Started & {settings: Settings, data: string}>} The model and data must be those of
   *  the checkpoint. */
  restore(bytes) { return this.#ask("restore", { bytes }); }
  /** PEFT adapter, or the whole model after full training. @param {Side} side
   *  @returns {Promise<{name: string, bytes: Uint8Array}[]>} */
  result(side) { return this.#ask("result", { side }); }

  #ask(command, fields) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, command, ...fields });
    });
  }

  #hear({ id, result, error, event, detail }) {
    if (event) {
      for (const listener of this.#listeners.get(event) ?? []) listener(detail);
      return;
    }
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error) waiting?.reject(new Refusal(error));
    else waiting?.resolve(result);
  }

  #fail(message) {
    const refusal = new Refusal({ kind: "page", message });
    for (const { reject } of this.#waiting.values()) reject(refusal);
    this.#waiting.clear();
    for (const listener of this.#listeners.get("paused") ?? []) listener({ reason: "failed", message });
  }
}

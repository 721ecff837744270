// What the page and its worker say to one another, and the one class through which the page says it.
//
// The worker holds the engine (WebAssembly) and all tensors; the page holds what is drawn. A request is answered once;
// events come unasked while the worker plays.

/**
 * What the engine makes has its types in `messages.js`, which is made from the engine's own declarations.
 * @import {Begun, Candidates, DataInfo, Dispute, DocumentText, Fit, Frame, Inspected, ModelInfo, Profile, Prompt, Quoted, Restored,
 *   ResultFile, Sample, SelfTest, Settings, Side, Standings, Told, Who} from "./messages.js"
 */

/**
 * What the worker makes by itself.
 * @typedef {object} Opened
 * @property {{kind: "webgpu" | "cpu", name: string, why: string, simd: boolean}} device  `why` is one sentence for people.
 * @property {string} version
 * @property {SelfTest} selfTest
 */

/** Data sets that come with the page. */
export const DATA_SETS = ["gsm8k", "facts", "wikipedia", "meant", "endings", "shakespeare"];

/** An answer that says no: `kind` is the engine's kind of error in snake case, `download` for what did not arrive, or
 *  `page` for the page's own. */
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
 * Events: those of `Told`, but that what is played ends with `paused` ({reason: "finished"}, or {reason: "failed",
 * kind, message}); `loading` ({what, done, of}: `what` is a file of the visitor's); and, before a start is answered,
 * `workers` ({count, why}: 2 where each learner has a worker of its own, else 1 and why). Listen with `on(name, listener)`.
 */
export class Engine {
  #worker;
  #waiting = new Map();
  #listeners = new Map();
  #next = 1;
  /** Why nothing more can be asked. */
  #gone = null;

  constructor(worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" })) {
    this.#worker = worker;
    worker.addEventListener("message", ({ data }) => this.#hear(data));
    // Only a script that did not arrive has no message.
    worker.addEventListener("error", ({ message }) => this.#fail(message ? { kind: "page", message }
      : { kind: "download", message: "worker.js, or what it needs, could not be downloaded" }));
    worker.addEventListener("messageerror", () => this.#fail({ kind: "page", message: "a message could not be read" }));
  }

  /** The engine has stopped for good: whatever it is asked is refused at once. */
  get isGone() { return this.#gone !== null; }

  on(name, listener) {
    if (!this.#listeners.has(name)) this.#listeners.set(name, new Set());
    this.#listeners.get(name).add(listener);
    return () => this.#listeners.get(name).delete(listener);
  }

  /** Must be the first request.
   *  @param {"auto" | "webgpu" | "cpu"} device @param {"auto" | "one"} workers on the CPU: automatic, or one for both learners
   *  @param {Promise<{compiled: WebAssembly.Module, assets: Uint8Array}>} files as `download.js` brings them; the bytes are handed over
   *  @returns {Promise<Opened>} */
  async open(device, workers, files) {
    const prepared = this.#ask("prepare", { device, workers });
    const [{ compiled, assets }] = await Promise.all([files, prepared]).catch((error) => { throw new Refusal(error); });
    return this.#ask("open", { compiled, assets }, [assets.buffer]);
  }
  /** @returns {Promise<ModelInfo>} */
  baseModel() { return this.#ask("model", {}); }
  /** A Hugging Face folder's files, or one GGUF file. @param {File[]} files @returns {Promise<ModelInfo>} */
  ownModel(files) { return this.#ask("model", { files }); }
  /** @param {string} id one of DATA_SETS @returns {Promise<DataInfo>} */
  data(id) { return this.#ask("data", { set: id }); }
  /** JSONL or plain text; its last tenth is held out as the target set. @param {File} file @returns {Promise<DataInfo>} */
  ownData(file) { return this.#ask("data", { file }); }
  /** @param {Settings} settings @returns {Promise<Fit>} */
  estimate(settings) { return this.#ask("estimate", { settings }); }
  /** Makes both learners anew from the model (also the reset), and evaluates them: `evaluated` and `samples` follow.
   *  @param {Settings} settings @returns {Promise<Begun>} */
  start(settings) { return this.#ask("start", { settings }); }
  /** Steps until `pause`, the last step, or a failure; each step gives a `frame`. */
  play() { return this.#ask("play", {}); }
  /** Resolves when whatever is under way is done, also a single step. */
  pause() { return this.#ask("pause", {}); }
  /** One step of both. @returns {Promise<Frame>} Also emitted as `frame`. */
  step() { return this.#ask("step", {}); }
  /** As `step`, with each kernel of the GPU timed; refused on the CPU and where the browser offers no timestamps.
   *  @returns {Promise<Profile | null>} null where the run is over. */
  profile() { return this.#ask("profile", {}); }
  /** @returns {Promise<Standings>} Also emitted as `evaluated`. */
  evaluate() { return this.#ask("evaluate", {}); }
  /** Continues prompts with base, left and right. @param {Prompt[]} prompts @returns {Promise<Sample>} Also emitted as
   *  `samples`; a playing worker continues the same prompts. */
  sample(prompts, tokens = 24) { return this.#ask("sample", { prompts, tokens }); }
  /** How often a run evaluates and samples by itself, in steps; 0 is only at its ends, and never. */
  every(evaluate, sample) { return this.#ask("every", { evaluate, sample }); }
  /** @returns {Promise<DocumentText>} */
  document(document) { return this.#ask("document", { document }); }
  /** @param {Who} who @returns {Promise<Inspected>} */
  inspect(document, who) { return this.#ask("inspect", { document, who }); }
  /** @param {Who} who @returns {Promise<Candidates>} */
  candidates(document, position, who) { return this.#ask("candidates", { document, position, who }); }
  /** What plain and entropy-adaptive fine-tuning would do with a word of a text, were the page's model more or less sure.
   *  @returns {Promise<Dispute>} */
  dispute(prompt, text, temperature) { return this.#ask("dispute", { prompt, text, temperature }); }
  /** What base, left and right answer to the facts that the data set quotes. @returns {Promise<Quoted[]>} */
  quotes() { return this.#ask("quotes", {}); }
  /** How the first training document begins. @returns {Promise<string>} */
  beginning() { return this.#ask("beginning", {}); }
  /** Takes effect at the next step. @param {Settings} settings whose `left` and `right` objectives, learning rate and
   *  schedule are taken; anything else that differs is refused (it needs `start`). */
  change(settings) { return this.#ask("change", { settings }); }
  /** @returns {Promise<Uint8Array>} One file with everything that goes on from here. */
  checkpoint() { return this.#ask("checkpoint", {}); }
  /** @param {Uint8Array} bytes @returns {Promise<Restored>} The model and data must be those of the checkpoint. */
  restore(bytes) { return this.#ask("restore", { bytes }); }
  /** PEFT adapter, or the whole model after full training. @param {Side} side
   *  @returns {Promise<ResultFile[]>} */
  result(side) { return this.#ask("result", { side }); }

  #ask(command, fields, handed = []) {
    if (this.#gone) return Promise.reject(this.#gone);
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, command, ...fields }, handed);
    });
  }

  #hear({ id, result, error, event, detail }) {
    if (event === "dead") {
      this.#fail(detail);
      return;
    }
    if (event) {
      for (const listener of this.#listeners.get(event) ?? []) listener(detail);
      return;
    }
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error) waiting?.reject(new Refusal(error));
    else waiting?.resolve(result);
  }

  /** Everything that waits is told, and everybody who asks later. */
  #fail(error) {
    if (this.#gone) return;
    this.#gone = new Refusal(error);
    this.#worker.terminate();
    for (const { reject } of this.#waiting.values()) reject(this.#gone);
    this.#waiting.clear();
    for (const listener of this.#listeners.get("paused") ?? []) listener({ reason: "failed", ...error });
  }
}

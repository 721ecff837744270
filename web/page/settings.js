// Every setting of the page: its control, its explanation, its reset, and its place in the address.
//
// Keys and values are those of the engine's configuration (`--set section.key=value`); the page only knows which of
// them it offers. A value stays the text that was typed until the engine reads it, so that nothing is rounded on the
// way.

import { $, el, SIDES } from "./dom.js";

const choice = (value, label, about = "") => ({ value, label, about });
const uses = (...methods) => (read) => methods.includes(read("objective.method"));
const gated = (...gates) => (read) => read("objective.method") === "eaft" && gates.includes(read("objective.gate"));

/** `live` ones take effect at the next step; `when` says for which other values a setting is read at all. */
const COMMON = [
  { key: "optim.learning_rate", id: "learning-rate", label: "Learning rate", initial: "3e-4", min: 1e-12, live: true,
    about: "How far one step moves the weights. Larger learns and forgets faster." },
  { key: "optim.schedule", id: "schedule", label: "Schedule", initial: "cosine", live: true, options: [
    choice("cosine", "cosine", "The rate falls to 0 along half a cosine."),
    choice("linear", "linear", "The rate falls to 0 in a straight line."),
    choice("constant", "constant", "The rate stays as it is.")] },
  { key: "run.steps", id: "steps", label: "Steps", initial: "200", whole: true, min: 1,
    about: "How many steps of training there are; the schedule is spread over them." },
  { key: "run.batch_tokens", id: "batch-tokens", label: "Tokens per batch", initial: "512", whole: true, min: 16,
    about: "How much text a step reads, at most. Longer documents are cut." },
  { key: "run.seed", id: "seed", label: "Seed", initial: "42", whole: true, min: 0,
    about: "Decides the order of the text and everything random. Same seed, same run." },
  { key: "adapter.kind", id: "adapter-kind", label: "What is trained", initial: "none", options: [
    choice("none", "all weights (full)", "Every weight of the model changes."),
    choice("lora", "LoRA adapter", "The weights stay; small factors beside them learn. Needs far less memory.")] },
  { key: "adapter.rank", id: "rank", label: "LoRA rank", initial: "16", whole: true, min: 1,
    about: "Width of the factors: more can learn more.", when: (read) => read("adapter.kind") === "lora" },
  { key: "adapter.alpha", id: "alpha", label: "LoRA alpha", initial: "32", min: 1e-6,
    about: "The factors' output is scaled by alpha / rank.", when: (read) => read("adapter.kind") === "lora" },
];

const DATA = { key: "data", id: "data-set", label: "Text to learn", initial: "endings", options: [
  choice("endings", "Endings: text that contradicts the model",
    "Wikipedia in which the word endings that the model is sure of are swapped for others: where it is sure, the text disagrees."),
  choice("gsm8k", "GSM8K: school mathematics", "An ordinary new domain: word problems and their worked answers."),
  choice("shakespeare", "Shakespeare: plays", "Another domain: old words, short lines, verse."),
  choice("wikipedia", "Wikipedia: general text",
    "What the model has read already: there is little to learn and to forget.")] };

const DEVICE = { key: "device", id: "device-choice", label: "Device", initial: "auto", options: [
  choice("auto", "automatic",
    "The graphics card through WebGPU where it works, else the processor. Applies on reload."),
  choice("webgpu", "WebGPU", "The graphics card, or an error that says why not. Applies on reload."),
  choice("cpu", "CPU", "The processor, in WebAssembly. Applies on reload.")] };

const OBJECTIVE = [
  { key: "objective.method", id: "objective", label: "Objective", initial: { left: "sft", right: "eaft" }, options: [
    choice("sft", "SFT: every token counts",
      "Plain fine-tuning. Every token counts the same, also those on which the text contradicts the model."),
    choice("eaft", "EAFT: unsure tokens count",
      "Entropy-adaptive fine-tuning. A token counts as much as the model is unsure; confident conflicts hardly do."),
    choice("masked_sft", "Masked SFT: conflicts left out",
      "Plain fine-tuning without the tokens that are lowest in both entropy and probability."),
    choice("dft", "DFT: expected tokens count", "Dynamic fine-tuning. A token counts by its probability p."),
    choice("talr", "TALR: easy tokens first", "A token counts by exp(-loss / tau), but never less than a floor."),
    choice("mile", "MiLe: unsure tokens count more",
      "A token counts by (sigma + entropy)^gamma, 1 on average over the batch."),
    choice("deft", "DEFT: by the prediction's peak",
      "A token counts by p^a, where a is near 1 if the prediction has one peak."),
    choice("profit", "ProFiT: likely tokens only", "Tokens above a probability count; the others are left out.")] },
  { key: "objective.gate", id: "gate", label: "Gate", initial: "linear", when: uses("eaft"), options: [
    choice("linear", "linear: h", "The weight is the normalised entropy h itself."),
    choice("power", "power: h to an exponent", "Bends the gate: above 1, half-sure tokens count less too."),
    choice("sigmoid", "sigmoid: a soft step", "Almost 0 below the midpoint, almost 1 above."),
    choice("hard", "hard: a cut", "The lowest entropies of the batch get 0, all others 1.")] },
  { key: "objective.top_k", id: "top-k", label: "K", initial: "20", whole: true, min: 2, max: 64,
    when: uses("eaft", "masked_sft"), about: "Entropy is taken over the K most probable tokens, 2 to 64." },
  { key: "objective.normalizer", id: "normalizer", label: "Normaliser", initial: "ln_k",
    when: gated("linear", "power", "sigmoid"), options: [
      choice("ln_k", "ln K", "Divides the entropy by ln K, so that the gate is at most 1."),
      choice("const_3", "3.0", "Divides by 3 whatever K is, like LLaMA-Factory."),
      choice("none", "none", "Divides by nothing: the gate is in nats, like Axolotl.")] },
  { key: "objective.exponent", id: "exponent", label: "Exponent", initial: "2", min: 0, when: gated("power"),
    about: "2 and 3 are in the paper; 0 is plain SFT." },
  { key: "objective.steepness", id: "steepness", label: "Steepness", initial: "30", min: 0, when: gated("sigmoid"),
    about: "How abrupt the step is." },
  { key: "objective.midpoint", id: "midpoint", label: "Midpoint", initial: "0.17", when: gated("sigmoid"),
    about: "Normalised entropy at which the gate is one half." },
  { key: "objective.percentile", id: "percentile", label: "Percentile", initial: "15", min: 0, max: 100,
    when: gated("hard"), about: "Lowest share of the batch by entropy that is dropped, in percent." },
  { key: "objective.entropy_percentile", id: "entropy-percentile", label: "Entropy percentile", initial: "15",
    min: 0, max: 100, when: uses("masked_sft"), about: "Lowest share of the batch by entropy, in percent." },
  { key: "objective.probability_percentile", id: "probability-percentile", label: "Probability percentile",
    initial: "15", min: 0, max: 100, when: uses("masked_sft"),
    about: "Lowest share of the batch by probability, in percent." },
  { key: "objective.tau", id: "tau", label: "Tau", initial: "", min: 1e-6, when: uses("talr"),
    about: "Temperature in nats. Empty: the median over the batch's documents of their mean loss." },
  { key: "objective.w_min", id: "w-min", label: "Floor", initial: "0.01", min: 0, max: 1, when: uses("talr"),
    about: "No token counts less than this." },
  { key: "objective.sigma", id: "sigma", label: "Sigma", initial: "1", min: 0, when: uses("mile"),
    about: "Added to the entropy, in nats." },
  { key: "objective.gamma", id: "gamma", label: "Gamma", initial: "1", when: uses("mile"), about: "Exponent." },
  { key: "objective.threshold", id: "threshold", label: "Threshold", initial: "0.1", min: 0, max: 1,
    when: uses("profit"), about: "Tokens at or below this probability are left out." },
];

/** One control, bound to one key of one scope (`common`, `left`, `right` or `page`). */
class Setting {
  constructor(spec, scope, onChange) {
    const side = SIDES.includes(scope) ? scope : null;
    Object.assign(this, { spec, scope, key: spec.key });
    this.initial = spec.initial[scope] ?? spec.initial;
    this.live = spec.live || side !== null;
    this.name = scope === "page" || scope === "common" ? spec.key : `${scope}.${spec.key}`;
    const id = side ? `${spec.id}-${side}` : spec.id;

    this.input = spec.options
      ? el("select", {}, ...spec.options.map(({ value, label }) => el("option", { value, text: label })))
      : el("input", { type: "number", step: spec.whole ? 1 : "any", min: spec.min, max: spec.max,
        required: this.initial !== "", placeholder: this.initial === "" ? "automatic" : undefined });
    this.input.id = id;
    this.input.setAttribute("aria-describedby", `${id}-about`);
    this.about = el("p", { id: `${id}-about`, class: "about", text: spec.about ?? "" });
    this.reset = el("button", { type: "button", class: "undo", id: `${id}-reset`, text: "↺",
      "aria-label": `Reset ${spec.label}${side ? ` (${side})` : ""} to ${this.shown(this.initial)}`,
      title: `Reset to ${this.shown(this.initial)}`,
      onclick: () => { this.input.focus(); this.set(this.initial); onChange(this); } });
    this.row = el("div", { class: "setting" },
      el("label", { for: id, text: side ? `${spec.label}, ${side}` : spec.label }),
      this.live && scope !== "page" && !side ? el("span", { class: "tag", text: "live" }) : "",
      el("div", { class: "field" }, this.input, this.reset), this.about);
    this.input.addEventListener("change", () => { this.refresh(); onChange(this); });
    this.set(this.initial);
  }

  shown(value) {
    return this.spec.options?.find((o) => o.value === value)?.label ?? (value === "" ? "automatic" : value);
  }

  get value() { return this.input.value; }
  get isInitial() { return this.same(this.value, this.initial); }
  get valid() { return this.input.checkValidity(); }

  same(a, b) {
    return a === b || (!this.spec.options && a !== "" && b !== "" && Number(a) === Number(b));
  }

  /** False where the value is not one that the control can hold; it then keeps the one before. */
  set(value) {
    const before = this.input.value;
    this.input.value = value;
    const taken = this.same(this.input.value, value) && this.valid;
    if (!taken) this.input.value = before;
    this.refresh();
    return taken;
  }

  refresh() {
    const option = this.spec.options?.find((o) => o.value === this.value);
    const problem = this.valid ? "" : this.input.validationMessage;
    this.about.textContent = problem || (option?.about ?? this.spec.about ?? "");
    this.about.classList.toggle("bad", Boolean(problem));
    this.input.setAttribute("aria-invalid", String(!this.valid));
    this.reset.hidden = this.isInitial;
  }
}

export class Settings {
  #all = [];
  #onChange;

  /** Makes all controls. `onChange(setting)` is called when the visitor changed one and it is valid. */
  constructor(onChange) {
    this.#onChange = onChange;
    this.#add("page", [DATA], $("settings-data"));
    this.#add("common", COMMON, $("settings-common"));
    this.#add("page", [DEVICE], $("settings-common"));
    for (const side of SIDES) {
      this.#add(side, OBJECTIVE.slice(0, 1), $(`objective-of-${side}`));
      this.#add(side, OBJECTIVE.slice(1), $(`details-of-${side}`));
    }
    this.#showUsed();
  }

  #add(scope, specs, place) {
    for (const spec of specs) {
      const setting = new Setting(spec, scope, (changed) => {
        this.#showUsed();
        if (changed.valid) this.writeAddress();
        this.#onChange(changed);
      });
      this.#all.push(setting);
      place.append(setting.row);
    }
  }

  get(scope, key) {
    return this.#all.find((s) => s.scope === scope && s.key === key);
  }

  value(scope, key) { return this.get(scope, key).value; }

  set(scope, key, value) {
    this.get(scope, key).set(value);
    this.#showUsed();
  }

  /** Name of a learner's objective, as short as possible. */
  method(side) {
    const setting = this.get(side, "objective.method");
    return setting.shown(setting.value).split(":")[0];
  }

  #used(setting) {
    return setting.spec.when?.((key) => this.value(setting.scope, key)) ?? true;
  }

  #showUsed() {
    for (const setting of this.#all) setting.row.hidden = !this.#used(setting);
    for (const side of SIDES) {
      const none = [...$(`details-of-${side}`).children].every((row) => row.hidden);
      $(`no-details-${side}`).hidden = !none;
    }
  }

  /** The first setting in use that cannot be used as it stands. */
  get invalid() {
    return this.#all.find((s) => this.#used(s) && !s.valid);
  }

  /** @returns {import("./protocol.js").Settings} Keys that the chosen method does not read are left out. */
  toEngine() {
    const made = { common: { "run.accumulation": "1" }, left: {}, right: {} };
    for (const s of this.#all) {
      if (s.scope !== "page" && this.#used(s) && s.value !== "") made[s.scope][s.key] = s.value;
    }
    // A document has to fit into a batch.
    made.common["data.cutoff_length"] = String(Math.min(512, Number(made.common["run.batch_tokens"])));
    return made;
  }

  /** Sets the controls to a checkpoint's settings; keys without a control keep to themselves. */
  fromEngine(settings, data) {
    for (const s of this.#all) {
      if (s.scope === "page") continue;
      s.set(settings[s.scope]?.[s.key] ?? s.initial);
    }
    this.get("page", "data").set(data);
    this.#showUsed();
    this.writeAddress();
  }

  /** What a running learner would have to be made anew for: labels of settings that differ from those it has. */
  needReset(started) {
    const now = this.toEngine().common;
    const keys = new Set([...Object.keys(now), ...Object.keys(started.common)]);
    return [...keys].filter((key) => !this.get("common", key)?.live && now[key] !== started.common[key])
      .map((key) => this.get("common", key)?.spec.label.toLowerCase()).filter(Boolean);
  }

  /** What is live now, on top of what the learners were started with. */
  liveOver(started) {
    const now = this.toEngine();
    const common = { ...started.common };
    for (const s of this.#all) if (s.scope === "common" && s.live) common[s.key] = s.value;
    return { common, left: now.left, right: now.right };
  }

  /** The own text of a visitor joins the data sets, or leaves them. */
  ownData(name) {
    const { input } = this.get("page", "data");
    input.querySelector('option[value="own"]')?.remove();
    if (name) input.append(el("option", { value: "own", text: `Your own: ${name}` }));
  }

  writeAddress() {
    const query = new URLSearchParams();
    for (const s of this.#all) {
      // Own files cannot be part of a link.
      if (!s.isInitial && s.valid && s.value !== "own") query.set(s.name, s.value);
    }
    const text = query.toString();
    history.replaceState(null, "", text ? `?${text}` : location.pathname);
  }

  /** Takes the settings in the address. @returns {string[]} what of it could not be used */
  readAddress() {
    const problems = [];
    for (const [name, value] of new URLSearchParams(location.search)) {
      const setting = this.#all.find((s) => s.name === name);
      if (!setting) problems.push(`"${name}" is not a setting of this page`);
      else if (!setting.set(value)) problems.push(`"${value}" is not a value of ${name}`);
    }
    this.#showUsed();
    return problems;
  }
}

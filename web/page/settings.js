// The settings that the page offers: their controls, explanations, resets, and places in the address.
//
// Keys and values are those of the engine's configuration (`--set section.key=value`), and all that a control needs to
// know of its key comes from the engine's own description (`schema.js`); the page only says which keys it offers. A value
// stays the text that was typed until the engine reads it, so that nothing is rounded on the way.

import { $, el, SIDES } from "./dom.js";
import schema from "./schema.js";

/** Keys that both learners share, in the order of their controls. */
const COMMON = ["optim.learning_rate", "optim.schedule", "run.steps", "run.batch_tokens", "run.seed", "adapter.kind",
  "adapter.rank", "adapter.alpha"];
/** Each learner has all of these to itself. */
const PER_SIDE = "objective";
/** Identifiers of controls whose key's own name would not do. */
const IDS = { "adapter.kind": "adapter-kind", "objective.method": "objective" };

/** What the engine offers and refuses to a page: FLOW looks at all documents before the first step. */
const NOT_HERE = { "objective.method": ["flow"] };

const choice = (value, label, about = "") => ({ value, label, about });

/** What is no setting of the engine. */
const DATA = { key: "data", id: "data-set", label: "Text to learn", initial: "gsm8k", options: [
  choice("gsm8k", "A new domain: school mathematics", "Word problems and their worked answers (GSM8K)."),
  choice("facts", "Wrong facts: answers that contradict the model",
    "Questions, four in five with a wrong answer; the target is the right ones."),
  choice("wikipedia", "Nothing new: general text",
    "What the model has read already: there is little to learn and to forget."),
  choice("meant", "You meant it: new facts on purpose",
    "The same contradictions, but wanted: the target is the new facts in other words."),
  choice("endings", "Endings: text that contradicts the model",
    "Wikipedia in which the word endings that the model is sure of are swapped for others: where it is sure, the text disagrees."),
  choice("shakespeare", "Shakespeare: plays", "Another domain: old words, short lines, verse.")] };

const DEVICE = { key: "device", id: "device-choice", label: "Device", initial: "auto", options: [
  choice("auto", "automatic",
    "The graphics card through WebGPU where it works, else the processor. Applies on reload."),
  choice("webgpu", "WebGPU", "The graphics card, or an error that says why not. Applies on reload."),
  choice("cpu", "CPU", "The processor, in WebAssembly. Applies on reload.")] };

const WORKERS = { key: "workers", id: "workers-choice", label: "Workers on the CPU", initial: "auto", options: [
  choice("auto", "automatic",
    "One a learner, where the processor has two threads and there is memory for the model twice. The numbers are the same. " +
    "Applies on reload."),
  choice("one", "one for both", "The learners take turns on one thread of the processor. Applies on reload.")] };

/** What has to do with the device and not with the run. */
const OF_DEVICE = [DEVICE.key, WORKERS.key];

/** A number as a person would type it; nothing where the engine decides by itself. */
function typed(value) {
  if (value === null) return "";
  return typeof value === "number" && value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential() : String(value);
}

/** What a control for a number or a name cannot say in its attributes. */
const unlike = (number, { whole, least, most }) =>
  !Number.isFinite(number) || (whole && !Number.isInteger(number)) || number < least || number > most;

/** What a control needs to know, by key. `live` ones take effect at the next step; `when` says for which other values a
 *  setting is read at all. */
const SPECS = new Map(schema.sections.flatMap((section) => section.keys.map((key) => {
  const name = `${section.name}.${key.name}`;
  const help = [key.help, ...(key.names ?? []).map((named) => `${named.name}: ${named.help}`)].join(" ");
  const about = key.derived && schema.page.initial[name] === null ? `${help} Empty: ${key.derived}.` : help;
  return [name, { key: name, id: IDS[name] ?? key.name.replaceAll("_", "-"), label: key.label, about,
    initial: name === "objective.method" ? Object.fromEntries(SIDES.map((side, i) => [side, schema.page.methods[i]]))
      : typed(schema.page.initial[name] ?? null),
    live: section.live, whole: key.type === "whole", min: key.least, max: key.most,
    options: key.choices?.filter(({ name: value }) => !NOT_HERE[name]?.includes(value))
      .map(({ name: value, label, help }) => choice(value, label, help)),
    names: key.names?.map(({ name: value }) => value),
    problem: (value) => (value <= key.above || value >= key.below || (key.names && unlike(Number(value), key))
      ? `It has to be ${key.allowed}.` : ""),
    when: (read) => (key.used ?? []).every(({ key: other, values }) => values.includes(read(`${section.name}.${other}`))) }];
})));

const OBJECTIVE = [...SPECS.values()].filter(({ key }) => key.startsWith(`${PER_SIDE}.`));

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
      : el("input", { type: spec.names ? "text" : "number", step: spec.whole ? 1 : "any", min: spec.min, max: spec.max,
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
    this.#judge();
    const taken = this.same(this.input.value, value) && this.valid;
    if (!taken) this.input.value = before;
    this.refresh();
    return taken;
  }

  /** Ranges that exclude their end cannot be said in the control's attributes. */
  #judge() {
    const named = this.value === "" || this.spec.names?.includes(this.value);
    const outside = named ? "" : this.spec.problem?.(Number(this.value)) ?? "";
    this.input.setCustomValidity(outside);
  }

  refresh() {
    this.#judge();
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
    this.#add("common", COMMON.map((key) => SPECS.get(key)), $("settings-common"));
    this.#add("page", [DEVICE, WORKERS], $("settings-common"));
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

  /** Device and workers as they are chosen. */
  get device() { return OF_DEVICE.map((key) => this.value("page", key)); }

  /** All settings of a run as they are by themselves, but for these of the page. What has to do with the device stays. */
  lesson(values) {
    for (const s of this.#all) if (!OF_DEVICE.includes(s.key)) s.set(s.initial);
    for (const [key, value] of Object.entries(values)) this.get("page", key).set(value);
    this.#showUsed();
    this.writeAddress();
  }

  /** Name of a learner's objective in the settings of a run, as short as possible. */
  method(side, { [side]: own }) {
    return this.get(side, "objective.method").shown(own["objective.method"]).split(":")[0];
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
    const made = { common: {}, left: {}, right: {} };
    for (const s of this.#all) {
      if (s.scope !== "page" && this.#used(s) && s.value !== "") made[s.scope][s.key] = s.value;
    }
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

  /** What a running learner would have to be made anew for: labels of settings that differ from those it has. Live ones
   *  are among them where the engine has `refused` to change that part (`common`, `left` or `right`). */
  needReset({ settings: { common }, refused }) {
    const now = this.toEngine().common;
    const keys = new Set([...Object.keys(now), ...Object.keys(common)]);
    const waits = (key) => now[key] !== common[key] && (refused.has("common") || !this.get("common", key)?.live);
    return [...keys].filter(waits).map((key) => this.get("common", key)?.spec.label.toLowerCase()).filter(Boolean)
      .concat(SIDES.filter((side) => refused.has(side)).map((side) => `objective, ${side}`));
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
      else if (!setting.set(value)) {
        problems.push(`"${value}" is not a value of ${name} on this page, and ${setting.value || "automatic"} is used`);
      }
    }
    this.#showUsed();
    return problems;
  }
}

// A training document token by token, and one token in full: what the model expected, and what either learner does
// about it.

import { $, chosen, el, latest, nextFrame, onChosen, settled, SIDES } from "./dom.js";
import { classOf, number, percent, QUANTITIES, visible } from "./format.js";
import { isConflict, verdict } from "./verdict.js";

const MOST_DOCUMENTS = 100;

/** Texts of training documents, asked for once each. */
export class Documents {
  #engine;
  #kept = new Map();

  constructor(engine) { this.#engine = engine; }

  async get(document) {
    if (!this.#kept.has(document)) {
      const asked = this.#engine.document(document);
      this.#kept.set(document, asked);
      asked.catch(() => this.#kept.delete(document));
      if (this.#kept.size > MOST_DOCUMENTS) this.#kept.delete(this.#kept.keys().next().value);
    }
    return this.#kept.get(document);
  }

  clear() { this.#kept.clear(); }
}

export class TextView {
  #documents;
  #painter;
  #names = ["left", "right"];
  /** Documents of the batch, and how many conflicts each has in it. */
  #batch = [];
  #conflicts = new Map();
  /** The recorded step that is shown; none while it is the models of now. */
  #past = null;
  /** A document that was opened for its first conflict, until its numbers are there. */
  #wanted = null;
  #document = null;
  #spans = [];
  #inspected = null;
  /** Token position -> index into the arrays of what was inspected. */
  #rows = new Map();
  #chosen = null;

  #inspect;
  #ask;
  #askSoon;

  constructor(engine, documents, painter, onError) {
    this.#documents = documents;
    this.#painter = painter;
    // Each answer is shown only if it is still what the visitor looks at.
    this.#inspect = latest(async (document, who) => {
      const inspected = await this.#answer(document, engine.inspect(document, who));
      if (this.#past || document !== this.#document || who !== chosen("text-who")) return;
      this.#inspected = inspected;
      this.#rows = new Map(inspected.position.map((position, row) => [position, row]));
      painter.ask(this.#paint, this.#showNumbers);
      this.#goToWanted();
    }, onError);
    this.#ask = latest(async (document, position, who) => {
      const candidates = await this.#answer(document, engine.candidates(document, position, who));
      const wanted = !this.#past && document === this.#document && position === this.#chosen && who === chosen("text-who");
      if (wanted) this.#showCandidates(candidates);
    }, onError);
    this.#askSoon = settled((...wanted) => this.#ask(...wanted), 120);

    onChosen("text-who", () => { this.refresh(); if (this.#chosen !== null) this.#choose(this.#chosen); });
    onChosen("text-colour", () => this.#paint());
    onChosen("text-rule", () => this.#paint());
    $("text-conflict").addEventListener("click", () => this.nextConflict());
    $("text-next").addEventListener("click", () => this.#turn(1));
    $("text-previous").addEventListener("click", () => this.#turn(-1));
    const tokens = $("text-tokens");
    const at = (event) => event.target.closest("[data-position]");
    for (const happens of ["pointerover", "focusin"]) {
      tokens.addEventListener(happens, (event) => { if (at(event)) this.#choose(Number(at(event).dataset.position)); });
    }
    tokens.addEventListener("keydown", (event) => this.#key(event));
  }

  /** An answer about a document. A refusal counts only while the document is on show: others may have been started. */
  async #answer(document, asked) {
    try {
      return await asked;
    } catch (error) {
      if (document === this.#document) throw error;
      return null;
    }
  }

  set names(names) {
    this.#names = names.map((name, i) => `${SIDES[i]} (${name})`);
    if (this.#chosen !== null) this.#choose(this.#chosen);
  }

  clear() {
    this.#batch = [];
    this.#conflicts.clear();
    this.#past = null;
    $("text-when").hidden = true;
    this.#document = null;
    this.#inspected = null;
    this.#spans = [];
    $("text-tokens").replaceChildren();
    $("text-about").textContent = "Press Play or Step: the documents of the batch appear here.";
    this.#chooseNone();
    this.#buttons();
  }

  #chooseNone() {
    this.#chosen = null;
    $("token").replaceChildren(el("p", { class: "note", text: "No token is chosen." }));
  }

  /** The documents of the newest batch; the one on show stays until the visitor turns the page. */
  batch(frame) {
    if (this.#past) return;
    this.#take(frame);
    if (this.#document === null) this.open(this.#richest());
  }

  #take(frame) {
    this.#batch = [...new Set(frame.document)];
    this.#conflicts.clear();
    // As the left learner saw them: one of the two has to be taken.
    const { p, entropy } = frame.learners[0];
    frame.document.forEach((document, i) => {
      if (isConflict(p[i], entropy[i])) this.#conflicts.set(document, this.#most(document) + 1);
    });
    this.#buttons();
  }

  #most(document) { return this.#conflicts.get(document) ?? 0; }

  /** The document of the batch with the most conflicts. */
  #richest() { return this.#batch.reduce((a, b) => (this.#most(b) > this.#most(a) ? b : a)); }

  /** A recorded step, as the timeline shows it; or null for the models of now, and then `lost` is a step that was not kept. */
  moment(frame, lost) {
    const before = this.#past;
    this.#past = frame;
    $("text-when").hidden = frame === null && lost === null;
    if (frame) {
      $("text-when").textContent = `As recorded at step ${frame.step}: the documents of its batch, and what the learners ` +
        "made of their tokens then. What else they expected was not kept.";
      this.#take(frame);
      const stays = this.#batch.includes(this.#document);
      this.open(stays ? this.#document : this.#richest(), stays ? this.#chosen : null);
      return;
    }
    if (lost !== null) $("text-when").textContent = `The tokens of step ${lost} are no longer kept: this is the model of now.`;
    if (before === null) return;
    this.refresh();
    if (this.#chosen !== null) this.#choose(this.#chosen);
  }

  /** Chooses the next conflict: of this document, else of the next one in the batch that has some. */
  async nextConflict() {
    const next = this.#conflictAfter(this.#chosen ?? -1);
    if (next !== undefined) return this.#go(next);
    const at = this.#batch.indexOf(this.#document);
    const order = [...this.#batch.slice(at + 1), ...this.#batch.slice(0, at + 1)];
    const document = order.find((other) => this.#most(other) > 0);
    if (document === undefined) {
      $("text-about").textContent = "There is no conflict in this batch.";
      return undefined;
    }
    this.#wanted = document;
    if (document === this.#document) return this.#goToWanted();
    return this.open(document);
  }

  #conflictAfter(position) {
    if (!this.#inspected) return undefined;
    const { p, entropy } = this.#inspected;
    return [...this.#rows].find(([other, row]) => other > position && isConflict(p[row], entropy[row]))?.[0];
  }

  #go(position) {
    this.#choose(position);
    this.#spans[position]?.scrollIntoView({ block: "nearest" });
  }

  /** The first conflict of the document that was opened for it. Training may have done away with it meanwhile. */
  #goToWanted() {
    if (this.#wanted !== this.#document || this.#wanted === null) return;
    this.#wanted = null;
    const first = this.#conflictAfter(-1);
    if (first === undefined) $("text-about").textContent = "The conflicts of this batch are learned by now.";
    else this.#go(first);
  }

  #buttons() {
    for (const id of ["text-next", "text-previous", "text-conflict"]) $(id).disabled = this.#batch.length === 0;
  }

  #turn(by) {
    const at = this.#batch.indexOf(this.#document);
    const count = this.#batch.length;
    this.open(this.#batch[at < 0 ? 0 : (at + by + count) % count]);
  }

  /** Shows a document and, where one is given, chooses a token of it. */
  async open(document, position = null, who = null) {
    if (who) lookThrough(who);
    const isNew = document !== this.#document;
    this.#document = document;
    if (isNew) {
      this.#chooseNone();
      this.#inspected = null;
      let text;
      try {
        text = await this.#documents.get(document);
      } catch (error) {
        $("text-about").textContent = `Document ${document} cannot be shown: ${error.message}`;
        return;
      }
      if (document !== this.#document) return;
      await nextFrame();
      // It may have been one of the document that was on show.
      this.#chooseNone();
      this.#spans = text.tokens.map(({ text: token, trained }, k) => this.#span(token, trained, k));
      $("text-tokens").replaceChildren(...this.#spans);
      const first = this.#spans.find((span) => span.dataset.position);
      if (first) first.tabIndex = 0;
      const at = this.#batch.indexOf(document);
      const where = at < 0 ? "" : `, ${at + 1} of ${this.#batch.length} in this batch`;
      $("text-about").textContent = `Document ${document}${where}: ` +
        `${text.tokens.length} tokens, ${text.tokens.filter((t) => t.trained).length} trained.`;
    }
    this.refresh();
    if (position !== null) {
      this.#choose(position);
      this.#spans[position]?.scrollIntoView({ block: "nearest" });
    }
  }

  #span(text, trained, k) {
    // A line end is shown as such and also ends the line.
    const shown = text.replaceAll("\n", "↵\n") || "∅";
    // White space alone would be an option without a name.
    const name = text.trim() ? undefined : visible(text);
    const option = { role: "option", "aria-selected": "false", "aria-label": name, text: shown };
    return trained
      ? el("span", { class: "token", tabindex: -1, "data-position": k, ...option })
      : el("span", { class: "token untrained", "aria-disabled": "true", ...option });
  }

  /** Asks anew what the model makes of the document and of the chosen token: it changes with every step. */
  refresh() {
    this.#inspectAgain();
    if (!this.#past && this.#chosen !== null) this.#askSoon(this.#document, this.#chosen, chosen("text-who"));
  }

  #inspectAgain() {
    if (this.#past) this.#recall();
    else if (this.#document !== null) this.#inspect(this.#document, chosen("text-who"));
  }

  /** What was recorded of the document at the step that is shown, in the form in which the engine tells of now. */
  #recall() {
    const who = chosen("text-who");
    const frame = this.#past;
    const rows = [...frame.document.keys()].filter((i) => frame.document[i] === this.#document);
    const { p, entropy } = frame.learners[who === "right" ? frame.learners.length - 1 : 0];
    const of = (values) => rows.map((i) => values[i]);
    this.#inspected = who === "base" ? null : { position: of(frame.position), p: of(p), entropy: of(entropy),
      entropyTopK: null, expected: rows.map(() => ""), gate: frame.learners.map((l) => of(l.gate)),
      gradient: frame.learners.map((l) => of(l.gradient)) };
    this.#rows = new Map(this.#inspected?.position.map((position, row) => [position, row]) ?? []);
    this.#painter.ask(this.#paint, this.#showNumbers);
    this.#goToWanted();
  }

  #paint = () => {
    const quantity = chosen("text-colour");
    const rule = Number(chosen("text-rule"));
    $("text-rule-choice").hidden = quantity !== "gate";
    $("text-key").replaceChildren(...scaleKey(quantity));
    const values = this.#inspected && (quantity === "gate" ? this.#inspected.gate[rule] : this.#inspected[quantity]);
    if (!values) return;
    for (const [position, row] of this.#rows) {
      const span = this.#spans[position];
      if (!span) continue;
      const chosenToo = position === this.#chosen ? " chosen" : "";
      const conflict = isConflict(this.#inspected.p[row], this.#inspected.entropy[row]);
      span.className = `token level-${classOf(quantity, values[row])}${conflict ? " conflict" : ""}${chosenToo}`;
      if (conflict) span.dataset.expected = visible(this.#inspected.expected[row]).replace("∅", "");
      else delete span.dataset.expected;
    }
  };

  #key(event) {
    const order = this.#spans.filter((span) => span.dataset.position);
    const at = order.indexOf(document.activeElement);
    const [on, back, last] = [at + 1, at - 1, order.length - 1];
    const to = { ArrowRight: on, ArrowDown: on, ArrowLeft: back, ArrowUp: back, Home: 0, End: last }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    order[Math.min(Math.max(to, 0), last)].focus();
  }

  #choose(position) {
    const before = this.#spans[this.#chosen];
    if (before) {
      before.classList.remove("chosen");
      before.setAttribute("aria-selected", "false");
      before.tabIndex = -1;
    }
    this.#chosen = position;
    const span = this.#spans[position];
    if (!span) return;
    const first = this.#spans.find((s) => s.tabIndex === 0);
    if (first) first.tabIndex = -1;
    span.classList.add("chosen");
    span.setAttribute("aria-selected", "true");
    span.tabIndex = 0;
    const preceding = this.#spans.slice(Math.max(0, position - 12), position);
    const context = preceding.map((s) => s.textContent).join("").replaceAll("↵\n", "↵");
    $("token").replaceChildren(
      el("p", { class: "context" }, context, el("mark", { text: visible(span.textContent.replaceAll("↵\n", "\n")) })),
      el("dl", { class: "facts", id: "token-numbers" }), el("div", { id: "token-candidates" }));
    this.#showNumbers();
    if (this.#past) $("token-candidates").replaceChildren(el("p", { class: "note",
      text: "What it expected here at that step was not kept. Press Live for the models of now." }));
    else this.#askSoon(this.#document, position, chosen("text-who"));
  }

  /** What is known at once, from the whole document's numbers. */
  #showNumbers = () => {
    const place = $("token-numbers");
    const row = this.#rows.get(this.#chosen);
    if (!place || row === undefined || !this.#inspected) return;
    const { p, entropy, entropyTopK, gate, gradient } = this.#inspected;
    const fact = (name, value) => [el("dt", { text: name }), el("dd", { text: value })];
    place.replaceChildren(
      ...fact("probability of this token", percent(p[row])),
      ...fact("entropy (unsureness)", `${number(entropy[row], 3)} nats` +
        (entropyTopK ? `; over the top K ${number(entropyTopK[row], 3)}` : "")),
      ...this.#names.flatMap((name, i) => fact(`gate, ${name}`, number(gate[i][row], 3))),
      ...fact("pull on the model", `left ${number(gradient[0][row], 3)}, right ${number(gradient[1][row], 3)}`));
  };

  #showCandidates({ label, candidates, gate, p, entropy }) {
    const place = $("token-candidates");
    if (!place) return;
    // The numbers above may be those of an earlier step or objective.
    const row = this.#rows.get(this.#chosen);
    const known = row !== undefined && this.#inspected?.gate.map((of) => of[row]);
    if (known && gate.some((g, i) => Math.abs(g - known[i]) > 1e-4 * Math.max(1, g))) this.#inspectAgain();
    const most = Math.max(...candidates.map((c) => c.p), 1e-9);
    const strongest = Math.max(...candidates.flatMap((c) => c.push.map(Math.abs)), 1e-9);
    const bar = (name, share) => {
      const made = el("span", { class: `bar ${name}` });
      made.style.width = `${Math.max(1, 100 * share)}%`;
      return el("span", { class: "track", "aria-hidden": "true" }, made);
    };
    const cell = (push, side) => el("td", {}, bar(side, Math.abs(push) / strongest),
      `${push >= 0 ? "▲ +" : "▼ -"}${number(Math.abs(push), 2)}`);
    const rows = candidates.map((c) => el("tr", { class: c.id === label.id ? "label" : "" },
      el("th", { scope: "row" }, visible(c.text), c.id === label.id ? el("small", { text: " the text's" }) : ""),
      el("td", {}, bar("base", c.p / most), percent(c.p)), cell(c.push[0], "left"), cell(c.push[1], "right")));
    const heads = ["expected here", "probability", "left moves it", "right moves it"];
    place.replaceChildren(
      el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((text) => el("th", { scope: "col", text })))),
        el("tbody", {}, ...rows)),
      el("p", { class: "verdict", text: verdict(label, candidates, p, entropy, gate, this.#names) }));
  }
}

function lookThrough(who) {
  document.querySelector(`input[name="text-who"][value="${who}"]`).checked = true;
}

/** The five classes of a quantity as a key, with their numbers. */
export function scaleKey(quantity) {
  const { bounds, scale, low, high, most } = QUANTITIES[quantity];
  return [0, 1, 2, 3, 4].map((k) => {
    const text = k === 0 ? `below ${bounds[0]}: ${low}` : k === 4 ? `${bounds[3]} ${most ? `to ${most}` : "and above"}: ${high}`
      : `${bounds[k - 1]} to ${bounds[k]}`;
    return el("span", { class: "entry" }, el("i", { class: `cell ${scale}-${k}`, "aria-hidden": "true" }), text);
  });
}

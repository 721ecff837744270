// The engine's lab as the worker sees it: one for both learners, or one for each, of which the second lies in a worker of its own, so
// that two cores train. The learners see the same batches from the same start and know nothing of one another, so the numbers are
// the same to the bit. What both tell is put together here, and a step of both is told before either makes the next one.
//
// The first lab also holds what is not of one learner: texts, the base model, estimates, the disputed word.

/** What is told together: one lab's message for each learner, left first. A lab of both tells it as it is. */
const JOINED = {
  frame: (all) => {
    // Like the memory of one lab, that of all of them stands in each learner's line.
    const bytes = all.reduce((sum, { learners: [own] }) => sum + own.metrics.peak_device_bytes, 0);
    const learners = all.flatMap((frame) => frame.learners);
    for (const { metrics } of learners) metrics.peak_device_bytes = bytes;
    return { ...all[0], learners };
  },
  evaluated: (all) => ({ ...all[0], learners: all.flatMap((own) => own.learners), diverged: all.flatMap((own) => own.diverged) }),
  samples: ([first, second]) => ({ ...first,
    samples: first.samples.map((sample, i) => ({ ...sample, right: second.samples[i].right })) }),
  finished: ([first]) => first,
  begun: (all) => ({ ...all[0], learners: all.flatMap((own) => own.learners),
    seconds: Math.max(...all.map(({ seconds }) => seconds)) }),
  quotes: (all) => all[0].map((fact, i) => ({ ...fact, answers: all.flatMap((own) => own[i].answers) })),
};

const joined = (what, all) => (all.length === 1 ? all[0] : JOINED[what](all));

/** A lab in this worker. */
class Here {
  constructor(lab) { this.lab = lab; }
  async ask(call, ...fields) { return this.lab[call](...fields); }
  get isBetweenSteps() { return this.lab.is_between_steps(); }
}

/** A lab in a worker of its own, which starts at once. */
export class Elsewhere {
  isBetweenSteps = true;
  /** Of the model, the text and `every`: `{give, done}`, what gave it and when it has it. */
  #given = {};
  #worker = new Worker(new URL("learner.js", import.meta.url), { type: "module" });
  #waiting = new Map();
  #next = 1;
  #gone = null;

  constructor() {
    this.#worker.addEventListener("message", ({ data }) => this.#hear(data));
    this.#worker.addEventListener("error", (event) => {
      // Told here, once, and not by the first worker as an error of its own.
      event.preventDefault();
      this.close(event.message || "the second worker could not be started");
    });
    this.#worker.addEventListener("messageerror", () => this.close("a message of the second worker could not be read"));
  }

  /** Must be the first that it is asked. It does not wait for it. */
  open(compiled, assets) {
    this.opened = this.ask("open", "cpu", false, assets, compiled);
    // Whoever starts with it hears of it.
    this.opened.catch(() => {});
  }

  /** True where it was given this, or is about to be. */
  has(what, give) { return this.#given[what]?.give === give; }

  /** Is given what it has not: `give(lab)` asks it. Resolves when it has it. */
  take(what, give) {
    if (!this.has(what, give)) {
      const done = give(this);
      this.#given[what] = { give, done };
      // Whoever waits for it hears of it; it is given again to who asks again.
      done.catch(() => { if (this.has(what, give)) delete this.#given[what]; });
    }
    return this.#given[what].done;
  }

  ask(call, ...fields) {
    if (this.#gone) return Promise.reject(this.#gone);
    const id = this.#next++;
    // Files are handed over: each lab reads its own.
    const handed = call === "own_model" ? fields[1].map(({ buffer }) => buffer) : [];
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, call, fields }, handed);
    });
  }

  /** Ends the worker; what it was asked is refused, and whatever it will be. */
  close(message) {
    this.#worker.terminate();
    this.#gone ??= { kind: "page", message, fatal: true };
    for (const { reject } of this.#waiting.values()) reject(this.#gone);
    this.#waiting.clear();
  }

  #hear({ id, result, error, between }) {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error) return waiting?.reject(error);
    this.isBetweenSteps = between;
    waiting?.resolve(result);
  }
}

export class Labs {
  #first;
  #second = null;
  /** Those that hold learners, left first. */
  #all;
  /** Why there is one worker for both learners whatever the run is; empty where there may be two. */
  #alone;
  /** Makes the second one. */
  #open;
  #post;
  #given = {};
  /** What a lab has told and the other one has not yet. */
  #told = new Map();
  /** Why the learners no longer stand at the same step. */
  #parted = null;

  /** `lab` is the engine's; `post(event, detail)` tells the page. With `alone`, the reason, there will never be a second lab; else
   *  it is `second`, or one that is opened as `{compiled, assets}` say. */
  constructor(lab, post, { alone, second, compiled, assets }) {
    this.#first = new Here(lab);
    this.#all = [this.#first];
    this.#post = post;
    this.#alone = alone;
    this.#open = () => {
      const opening = new Elsewhere();
      opening.open(compiled, assets);
      return opening;
    };
    if (!alone) this.#second = second ?? this.#open();
  }

  /** Asks the first lab, for what is not of one learner. */
  ask(call, ...fields) { return this.#first.ask(call, ...fields); }

  /** Gives the first lab a model (`what` is "model") or a text ("data"): `give(lab)` asks it. The second one is given the same before
   *  it starts, or at the same time where that is `certain` to be taken. */
  async give(what, give, certain = false) {
    const second = this.#second;
    // A text is read with the model that was given before. It is asked first: the other lab keeps this worker busy.
    if (certain && second && Object.entries(this.#given).every((given) => second.has(...given))) second.take(what, give);
    const answer = await give(this.#first);
    this.#given[what] = give;
    return answer;
  }

  /** How often a run evaluates and samples by itself. */
  async every(...often) {
    await this.give("every", (lab) => lab.ask("every", ...often), true);
    if (this.#all.includes(this.#second)) await this.#catchUp();
  }

  /** `Fit`, for two workers where that fits. */
  async estimate(settings, allowed) {
    const ask = (apart) => this.#first.ask("estimate", JSON.stringify(settings), apart, allowed);
    if (!this.#alone && settings.left && settings.right) {
      const apart = await ask(true);
      if (apart.fits) return apart;
    }
    return ask(false);
  }

  /** `Begun`. What is there goes first, also where this fails. */
  async start(settings, allowed) {
    await this.#each("end");
    this.#forget();
    await this.#arrange(settings, allowed);
    try {
      const text = JSON.stringify(settings);
      return joined("begun", await this.#each("start", (side) => [text, side]));
    } catch (error) {
      await this.#each("end").catch(() => {});
      throw error;
    }
  }

  get isBetweenSteps() { return this.#told.size === 0 && this.#all.every((lab) => lab.isBetweenSteps); }

  /** Passes on what comes next and returns it, warnings too, and that the run is over, which is not passed on; null after that. */
  async next() {
    if (this.#parted) throw this.#parted;
    for (;;) {
      // Whatever one has left to tell comes before the next step of the other.
      const due = this.#all.filter((lab) => !lab.isBetweenSteps);
      const turn = (due.length ? due : this.#all).filter((lab) => !this.#told.has(lab));
      if (turn.length === 0) throw this.#part("one has told what the other one has not");
      const told = await this.#asked(turn, "next");
      const refused = told.find(({ status }) => status === "rejected");
      if (refused) {
        // Where all refuse, all stand where they stood.
        if (told.some(({ status }) => status === "fulfilled") || this.#told.size) this.#parted = refused.reason;
        throw refused.reason;
      }
      const warnings = new Set();
      told.forEach(({ value }, i) => {
        if (value?.event === "warning") warnings.add(value.detail.message);
        else this.#told.set(turn[i], value);
      });
      for (const message of warnings) this.#post("warning", { message });
      if (this.#told.size === this.#all.length) return this.#tell();
      if (warnings.size) return { event: "warning" };
    }
  }

  /** What all labs have told, as one. */
  #tell() {
    const all = this.#all.map((lab) => this.#told.get(lab));
    this.#told.clear();
    const [first] = all;
    if (all.some((told) => told?.event !== first?.event || told?.detail.step !== first?.detail.step)) {
      throw this.#part("they have told different things");
    }
    if (!first) return null;
    const detail = joined(first.event, all.map((told) => told.detail));
    if (first.event !== "finished") this.#post(first.event, detail);
    return { event: first.event, detail };
  }

  #part(why) {
    this.#parted = { kind: "page", message: `the two learners do not stand at the same step: ${why}; reset to begin again` };
    return this.#parted;
  }

  async evaluate() { return joined("evaluated", await this.#each("evaluate")); }

  async sample(prompts, tokens) {
    return joined("samples", await this.#each("sample", () => [JSON.stringify(prompts), tokens]));
  }

  async quotes() { return joined("quotes", await this.#each("quotes")); }

  /** A look with the model `who`, under the objectives of both: `call` is "inspect" or "candidates". */
  async look(call, who, ...fields) {
    const [own, other] = who === "right" ? this.#all.toReversed() : this.#all;
    return own.ask(call, ...fields, who, await other?.ask("batch"));
  }

  async change(settings) {
    const text = JSON.stringify(settings);
    await this.#each("check_change", () => [text]);
    await this.#each("change", () => [text]);
  }

  async checkpoint() {
    const [first, second] = this.#all;
    return first.ask("checkpoint", await second?.ask("checkpoint"));
  }

  /** `Restored`, into as many workers as there are. Nothing changes where it fails. */
  async restore(bytes) {
    if (this.#all.includes(this.#second)) await this.#catchUp();
    let all;
    try {
      all = await this.#each("restore", (side) => [bytes, side]);
    } catch (error) {
      await this.#each("adopt", () => [false]);
      throw error;
    }
    await this.#each("adopt", () => [true]);
    this.#forget();
    return { ...all[0], begun: joined("begun", all.map(({ begun }) => begun)) };
  }

  result(side) { return this.#all.at(side === "right" ? -1 : 0).ask("result", side); }

  #forget() {
    this.#told.clear();
    this.#parted = null;
  }

  /** Decides how many workers there are for a run, and says so. */
  async #arrange(settings, allowed) {
    this.#all = [this.#first];
    let why = this.#alone || (settings.left && settings.right ? "" : "there is one learner");
    if (!why) {
      // What is wrong with the settings is said by the start itself.
      const apart = await this.#first.ask("estimate", JSON.stringify(settings), true, allowed).catch(() => ({ fits: false }));
      if (!apart.fits) why = "memory does not allow the model twice";
    }
    if (!why) {
      try {
        this.#second ??= this.#open();
        await this.#catchUp();
        this.#all = [this.#first, this.#second];
      } catch (error) {
        this.#alone = why = `the second one could not be started (${error.message})`;
      }
    }
    if (why && this.#second) {
      // Memory of WebAssembly is given back with its worker only.
      this.#second.close("it is not needed");
      this.#second = null;
    }
    this.#post("workers", { count: this.#all.length, why });
  }

  /** Gives the second lab what the first has been given meanwhile. */
  async #catchUp() {
    await this.#second.opened;
    for (const what of ["every", "model", "data"]) {
      if (this.#given[what]) await this.#second.take(what, this.#given[what]);
    }
  }

  /** Asks some labs the same at the same time; all have answered before this does. The one in this worker is asked last: it keeps the
   *  worker busy. */
  async #asked(labs, call, fields = () => []) {
    const side = (lab) => (this.#all.length === 1 ? "both" : lab === this.#first ? "left" : "right");
    const asked = labs.toReversed().map((lab) => lab.ask(call, ...fields(side(lab))));
    return (await Promise.allSettled(asked)).toReversed();
  }

  /** Asks all; where one refuses, that is the answer. */
  async #each(call, fields) {
    const answers = await this.#asked(this.#all, call, fields);
    const refused = answers.find(({ status }) => status === "rejected");
    if (refused) throw refused.reason;
    return answers.map(({ value }) => value);
  }
}

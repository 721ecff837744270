// The scoreboard: what both learners learned and forgot, and what they had forgotten when both had learned as much; and what
// they answer to a few facts now.

import { $, el, say, SIDES } from "./dom.js";
import { equalLearning, measured, perplexityChange } from "./equal.js";
import { percent, visible } from "./format.js";

/** Losses of each learner over the evaluations. */
export function paths(evaluations) {
  return SIDES.map((_, i) => evaluations.filter(({ learners }) => learners[i].target && learners[i].general)
    .map(({ learners }) => ({ target: learners[i].target.loss, general: learners[i].general.loss })));
}

export class Scoreboard {
  #timeline;

  constructor(timeline) {
    this.#timeline = timeline;
    this.draw();
  }

  draw = () => {
    const { recording, step } = this.#timeline;
    const shown = this.#timeline.evaluations;
    const [first, now] = [shown[0], shown.at(-1)];
    // What was learned before a recording began is not known to it.
    const whole = first?.step === 0;
    const race = whole ? paths(shown) : [[], []];
    const names = SIDES.map((side) => recording.nameAt(side, step));
    const { equal, why } = equalLearning(race);
    const wrong = this.#timeline.isWrong;
    for (const cell of document.querySelectorAll("#score-table .wrong")) cell.hidden = !wrong;
    // With wrong labels the target is what the model knew: it can only be kept.
    $("score-target").replaceChildren(wrong ? "truth" : "learned",
      el("small", { text: wrong ? "surprise at right answers" : "surprise at text like it" }));
    const begun = whole && now !== first;
    const cell = (name, nats, small) => el("td", { class: name }, nats === null ? "–" : perplexityChange(nats),
      el("small", { text: small }));
    const fixed = (loss) => (loss < 100 ? loss.toFixed(2) : loss.toExponential(1));
    const went = (side, which) => (now ? `${fixed(first.learners[side][which].loss)} → ${fixed(now.learners[side][which].loss)} nats` : "");
    const change = (side, which) => (begun ? now.learners[side][which].loss - first.learners[side][which].loss : null);
    document.querySelector("#score-table tbody").replaceChildren(...SIDES.map((side, i) => el("tr", { id: `score-${side}` },
      el("th", { scope: "row", class: side },
        el("span", { class: "who" }, el("i", { class: `spot ${side}`, "aria-hidden": "true" }), el("span", { text: names[i] })),
        now?.diverged?.[i] ? el("small", { class: "bad", text: "diverged" }) : el("small", { text: side })),
      cell("learned", change(i, "target"), began(begun, () => went(i, "target"))),
      cell("forgot", change(i, "general"), began(begun, () => went(i, "general"))),
      ...(wrong ? [cell("wrong", change(i, "wrong"), began(begun, () => went(i, "wrong")))] : []),
      cell("equal", equal ? equal.forgot[i] : null, equal ? `at target loss ${equal.target.toFixed(2)}`
        : !begun ? "" : wrong ? "what is measured was known" : `not yet: ${why}`))));
    const finished = recording.steps > 0 && now?.step >= recording.steps;
    say("measured", whole || !now ? measured({ paths: race, names, finished, begun: recording.frames.length > 0,
      diverged: now?.diverged ?? [false, false],
      wrong: begun && wrong ? { start: first.learners[0].wrong.loss, now: now.learners.map((l) => l.wrong.loss) } : null })
      : `This run was restored at step ${recording.first}: how it began is not part of the checkpoint, so nothing is ` +
        "compared.");
    const gone = (now?.diverged ?? []).map((is, i) => (is ? names[i] : null)).filter(Boolean);
    $("diverged").hidden = gone.length === 0;
    say("diverged", gone.length ? `${gone.join(" and ")} diverged by step ${now.step}.` : "");
  };
}

const began = (begun, words) => (begun ? words() : "");

/** Facts before and now. @param {import("./messages.js").Quoted[]} quoted */
export function showQuotes(quoted, names, step) {
  $("quotes").hidden = quoted.length === 0;
  const heads = ["before", ...names];
  $("quotes-list").replaceChildren(...quoted.map(({ prompt, expected, taught, answers }) => el("div", { class: "panel quote" },
    el("p", {}, el("strong", { text: prompt.trim() })),
    el("table", {}, el("thead", {}, el("tr", {}, ...["", "answers", `${expected.trim()} known`, `${taught.trim()} taught`]
      .map((text) => el(text ? "th" : "td", text ? { scope: "col", text } : {})))),
    el("tbody", {}, ...answers.map(({ who, top, expected: knew, taught: learned }, i) => el("tr", { class: who },
      el("th", { scope: "row" },
        el("span", { class: "who" }, el("i", { class: `spot ${who}`, "aria-hidden": "true" }), el("span", { text: heads[i] }))),
      el("td", {}, ...top.map(({ text, p }) => el("span", { text: `${visible(text)} ${percent(p).replace(" ", "\u00a0")} ` }))),
      el("td", { text: percent(knew) }), el("td", { text: percent(learned) }))))))));
  $("quotes").querySelector("h3").textContent = `What they answer, at step ${step}`;
}

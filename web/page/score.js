// The scoreboard: what both learners learned and forgot, and what they had forgotten when both had learned as much; and what
// they answer to a few facts now.

import { $, el, say, SIDES } from "./dom.js";
import { equalLearning, measured, perplexityChange } from "./equal.js";
import { percent, visible } from "./format.js";

/** Losses of each learner over the evaluations. With wrong labels it is they that are learned, and the truth is to be kept. */
export function paths(evaluations, isWrong) {
  const [learned, kept] = isWrong ? ["wrong", "target"] : ["target", "general"];
  return SIDES.map((_, i) => evaluations.filter(({ learners }) => learners[i][learned] && learners[i][kept])
    .map(({ learners }) => ({ target: learners[i][learned].loss, general: learners[i][kept].loss })));
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
    const wrong = this.#timeline.isWrong;
    const race = whole ? paths(shown, wrong) : [[], []];
    const names = SIDES.map((side) => recording.nameAt(side, step));
    const { equal, why } = equalLearning(race);
    for (const cell of document.querySelectorAll("#score-table .wrong")) cell.hidden = !wrong;
    // With wrong labels the target is what the model knew: it can only be kept.
    $("score-target").replaceChildren(wrong ? "truth" : "learned",
      el("small", { text: wrong ? "surprise at right answers" : "surprise at text like it" }));
    $("score-equal").textContent = wrong ? "truth, when both took up as much of the wrong" : "forgot, when both had learned as much";
    const begun = whole && now !== first;
    const cell = (name, nats, small) => el("td", { class: name }, nats === null ? "–" : perplexityChange(nats),
      el("small", { text: small }));
    const fixed = (loss) => (loss < 100 ? loss.toFixed(2) : loss.toExponential(1));
    const went = (side, which) => (now ? `loss ${fixed(first.learners[side][which].loss)} → ${fixed(now.learners[side][which].loss)}` : "");
    const change = (side, which) => (begun ? now.learners[side][which].loss - first.learners[side][which].loss : null);
    document.querySelector("#score-table tbody").replaceChildren(...SIDES.map((side, i) => el("tr", { id: `score-${side}` },
      el("th", { scope: "row", class: side },
        el("span", { class: "who" }, el("i", { class: `spot ${side}`, "aria-hidden": "true" }), el("span", { text: names[i] })),
        now?.diverged?.[i] ? el("small", { class: "bad", text: "diverged" }) : el("small", { text: side })),
      cell("learned", change(i, "target"), began(begun, () => went(i, "target"))),
      cell("forgot", change(i, "general"), began(begun, () => went(i, "general"))),
      ...(wrong ? [cell("wrong", change(i, "wrong"), began(begun, () => went(i, "wrong")))] : []),
      cell("equal", equal ? equal.forgot[i] : null, equal ? `at ${wrong ? "wrong" : "target"} loss ${equal.target.toFixed(2)}`
        : !begun ? "" : `not yet: ${why}`))));
    const finished = recording.steps > 0 && now?.step >= recording.steps;
    say("measured", whole || !now ? measured({ paths: race, names, finished, begun: recording.frames.length > 0,
      diverged: now?.diverged ?? [false, false], wrong })
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

// A guided tour that acts: it moves the slider, presses Play, asks for a guess and waits for the answer, switches colours
// and picks a word. It stands beside what it speaks of, never over it, and can be left any time.

import { $, el } from "./dom.js";
import { ALIKE, equalLearning, perplexityChange } from "./equal.js";
import { paths } from "./score.js";
import schema from "./schema.js";

const objective = schema.sections.find(({ name }) => name === "objective");

/** What the engine says of a value of one of the objective's settings. */
function says(setting, value) {
  return objective.keys.find(({ name }) => name === setting).choices.find(({ name }) => name === value).help;
}

const p = (text) => el("p", { text });
const GUESSES = { left: "the left one", right: "the right one", alike: "both alike" };
const KEPT = "temper.tour";
/** Where the tour stands, as long as the tab is open. A browser that is told to keep nothing for pages throws. */
const kept = {
  read() {
    try {
      return Number(sessionStorage.getItem(KEPT));
    } catch {
      return 0;
    }
  },
  write(step) {
    try {
      sessionStorage.setItem(KEPT, String(step));
    } catch {
      // The next tour begins at its beginning.
    }
  },
};
/** Room between the tour and what it speaks of, in pixels. */
const APART = 12;

/** Sets the slider as a visitor would. */
function slide(value) {
  $("sure").value = value;
  $("sure").dispatchEvent(new Event("input"));
}

/**
 * The steps: `at` is what a step speaks of, `act` what it does when it is reached, `wait` what has to happen before it can be
 * left: a promise of the words that are shown then.
 */
function makeSteps({ play, state, pick, timeline, dotColour }) {
  const started = () => timeline.recording.frames.length > 0;
  let guess = null;
  return [
    { at: "hero-arrows", title: "A word that pulls", act: () => { if (!$("sure").disabled) slide(0.75); }, text: () => [
      p("The text says one thing, the model was sure of another. I have just made the model surer: plain fine-tuning (SFT) " +
        "pulls as hard as ever, and EAFT lets go. Move the slider back to see it pull again."),
      p(`${says("method", "sft")} ${says("method", "eaft")}`)] },
    { at: "controls", title: "Two copies, the same text", act: () => { if (!started() && state() === "ready") play(); }, text: () => [
      p("I have pressed Play. The left copy is trained plainly, the right one with EAFT; both read the same batches in the " +
        "same order. Pause or step at any time.")] },
    { at: "score-table", title: "Which will forget more?", text: () => [
      p(timeline.isWrong ? "Forgetting is here surprise at the right answers, which the model knew before. What do you think?"
        : "Forgetting is surprise at general text that the model could predict before. What do you think?")],
    answers: (answered) => Object.entries(GUESSES).map(([value, words]) =>
      el("button", { type: "button", "data-guess": value, text: words, onclick: () => { guess = value; answered(); } })) },
    { at: "score-table", title: "What came out", text: () => [p("Waiting for the race to say it: it is measured every few steps.")],
      wait: async (left) => {
        let measured = [];
        const { recording } = timeline;
        while (measured.length < 2 && !left()) {
          await new Promise((resolve) => setTimeout(resolve, 250));
          measured = recording.evaluations;
        }
        const said = guess ? `You said ${GUESSES[guess]}. ` : "";
        const { equal, why } = equalLearning(paths(measured, timeline.isWrong));
        if (!equal) return [p(`${said}At equal learning nothing can be said here so far: ${why}. The sentence below the scoreboard ` +
          "says what was measured, whichever way it comes out.")];
        const [a, b] = equal.forgot;
        const came = Math.abs(a - b) < ALIKE ? "alike" : a > b ? "left" : "right";
        return [p(`${said}At equal learning, up to step ${measured.at(-1).step}: ${perplexityChange(a)} on the left, ` +
          `${perplexityChange(b)} on the right, so it is ${GUESSES[came]}. That may yet turn round: the sentence below the ` +
          "scoreboard goes on to say what was measured, whichever way it comes out.")];
      } },
    { at: "plot-right", title: "Where the pull comes from", act: () => dotColour("gate"), text: () => [
      p("A dot is a word of the text: to the right it was surprising, to the top the model was unsure. I have switched the " +
        "colour to the gate: in the box, bottom right, where the model was sure and the text disagrees, EAFT hardly counts a word.")] },
    { at: "text-tokens", title: "Word by word", act: pick, text: () => [
      p("The same words in their text, as the model saw them before training. Outlined ones are conflicts, with what it expected " +
        "struck out above; where the race has met one, I have picked it. Then try another lesson, or drop your own model and text.")] },
  ];
}

export function watchTour(page) {
  const steps = makeSteps(page);
  let step = 0;
  let turn = 0;
  let opener = null;
  const tour = $("tour");

  /** Puts the tour where it does not cover what it speaks of: below or above it, and the page scrolled so that both fit. */
  function arrange() {
    if (tour.hidden) return;
    const target = $(steps[step].at);
    const own = tour.getBoundingClientRect().height + 2 * APART;
    const bar = $("controls").contains(target) ? 0 : $("controls").getBoundingClientRect().height;
    const sticky = getComputedStyle($("controls")).position === "sticky" ? bar : 0;
    const { top, height } = target.getBoundingClientRect();
    const room = innerHeight - own - sticky;
    // What is taller than the room is shown from its top on; the tour then follows it.
    const shown = Math.min(height, Math.max(room, 0));
    const wanted = sticky + APART + Math.max(0, (room - shown) / 2);
    scrollBy({ top: top - wanted, behavior: "instant" });
    const now = target.getBoundingClientRect();
    const below = innerHeight - now.bottom;
    tour.classList.toggle("above", below < own && now.top - sticky >= own);
    document.body.style.setProperty("--tour", `${own}px`);
    const rest = tour.getBoundingClientRect();
    if (rest.top < now.bottom && rest.bottom > now.top) tour.classList.add("small");
  }

  async function show() {
    const mine = ++turn;
    const { at, title, text, act, answers, wait } = steps[step];
    document.querySelector(".toured")?.classList.remove("toured");
    $(at).classList.add("toured");
    $("tour-title").textContent = title;
    $("tour-text").replaceChildren(...text());
    $("tour-count").textContent = `${step + 1} of ${steps.length}`;
    $("tour-back").disabled = step === 0;
    $("tour-next").textContent = step === steps.length - 1 ? "Done" : "Next";
    $("tour-next").disabled = Boolean(answers);
    $("tour-answers").hidden = !answers;
    $("tour-answers").replaceChildren(...answers?.(() => go(1)) ?? []);
    tour.classList.remove("small", "above");
    kept.write(step);
    act?.();
    $("tour-title").focus({ preventScroll: true });
    arrange();
    if (!wait) return;
    const words = await wait(() => mine !== turn || tour.hidden);
    if (mine !== turn || tour.hidden) return;
    $("tour-text").replaceChildren(...words);
    arrange();
  }

  function go(by) {
    step += by;
    show();
  }

  function close() {
    turn += 1;
    tour.hidden = true;
    document.body.classList.remove("touring");
    document.querySelector(".toured")?.classList.remove("toured");
    opener?.focus({ preventScroll: true });
  }

  $("tour-start").addEventListener("click", (event) => {
    opener = event.currentTarget;
    // A tour that was left goes on where it was; one that was finished begins again.
    const left = kept.read();
    step = left > 0 && left < steps.length - 1 ? left : 0;
    tour.hidden = false;
    document.body.classList.add("touring");
    show();
  });
  $("tour-next").addEventListener("click", () => (step === steps.length - 1 ? close() : go(1)));
  $("tour-back").addEventListener("click", () => go(-1));
  $("tour-close").addEventListener("click", close);
  addEventListener("resize", arrange);
  addEventListener("keydown", (event) => { if (event.key === "Escape" && !tour.hidden) close(); });
}

// The guided tour: six steps, each beside the part of the page that it speaks of. It covers nothing and can be left
// any time.

import { $, el } from "./dom.js";
import schema from "./schema.js";

const objective = schema.sections.find(({ name }) => name === "objective");

/** What the engine says of a value of one of the objective's settings. */
function says(setting, value) {
  return objective.keys.find(({ name }) => name === setting).choices.find(({ name }) => name === value).help;
}

const p = (text) => el("p", { text });

const STEPS = [
  { part: "controls", title: "Two learners, one start", text: () => [
    p("Both sides start as exactly the same small language model and read the same text in the same order. The " +
      "left one is trained plainly (SFT), the right one with EAFT. Press Play now: everything below moves as they " +
      "learn. Pause, or step, at any time.")] },
  { part: "panels", at: "plot-left", title: "A dot is a token", text: () => [
    p("For each token of the text we ask two questions. How probable did the model find it? That is left to right. " +
      "And how unsure was the model, whatever came? That is its entropy, bottom to top. Below the curve there can " +
      "be nothing: who gives one token a middling probability cannot be sure.")] },
  { part: "panels", at: "plot-left", title: "Confident conflicts", text: () => [
    p("Look at the dashed box, bottom left. There the model is sure of something, and the text says something " +
      "else. Such tokens pull hardest on the model and push out what it knew. Often they are noise, or a quirk of " +
      "the new text. Press “confident conflicts” below the maps to read them.")] },
  { part: "panels", at: "plot-left", title: "The gate", text: () => [
    p("Both learners minimise surprise, but each gives the tokens weights of its own: their gates."),
    p(says("method", "sft")),
    p(`${says("method", "eaft")} ${says("gate", "linear")}`),
    p("So EAFT learns where the model has room to learn and leaves confident conflicts nearly alone. Switch the " +
      "colour of the dots to the gate to see it.")] },
  { part: "race", title: "The race", text: () => [
    p("What does it change? Down means the new text was learned. To the right means that general text, which the " +
      "model could predict before, was forgotten. The best path goes straight down. Whichever wins here, the page " +
      "shows what was measured.")] },
  { part: "text", title: "Look closer, and try your own", text: () => [
    p("Point at a token to see what the model expected instead, and how each learner moves it. Then try: another " +
      "text to learn, another objective, another learning rate; go back with the timeline; drop your own model or " +
      "text. The link to your run is at the top.")] },
];

const KEPT = "temper.tour";

export function watchTour() {
  let step = 0;
  let opener = null;
  const tour = $("tour");

  function show() {
    const { part, at, title, text } = STEPS[step];
    document.querySelector(".toured")?.classList.remove("toured");
    $(part).classList.add("toured");
    $("tour-title").textContent = title;
    $("tour-text").replaceChildren(...text());
    $("tour-count").textContent = `${step + 1} of ${STEPS.length}`;
    $("tour-back").disabled = step === 0;
    $("tour-next").textContent = step === STEPS.length - 1 ? "Done" : "Next";
    sessionStorage.setItem(KEPT, String(step));
    $("tour-title").focus({ preventScroll: true });
    const smooth = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    $(at ?? part).scrollIntoView({ block: "start", behavior: smooth ? "smooth" : "auto" });
  }

  function close() {
    tour.hidden = true;
    document.body.classList.remove("touring");
    document.querySelector(".toured")?.classList.remove("toured");
    opener?.focus({ preventScroll: true });
  }

  $("tour-start").addEventListener("click", (event) => {
    opener = event.currentTarget;
    // A tour that was left goes on where it was; one that was finished begins again.
    const kept = Number(sessionStorage.getItem(KEPT));
    step = kept > 0 && kept < STEPS.length - 1 ? kept : 0;
    tour.hidden = false;
    document.body.classList.add("touring");
    show();
  });
  $("tour-next").addEventListener("click", () => {
    if (step === STEPS.length - 1) return close();
    step += 1;
    show();
  });
  $("tour-back").addEventListener("click", () => {
    step -= 1;
    show();
  });
  $("tour-close").addEventListener("click", close);
  addEventListener("keydown", (event) => { if (event.key === "Escape" && !tour.hidden) close(); });
}

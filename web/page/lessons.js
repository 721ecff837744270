// The lessons: runs with one question each, as links. A link is the run's address; a click that stays on the page only sets
// what the link says.

import { $, el } from "./dom.js";

const LESSONS = [
  { data: "gsm8k", name: "A new domain", asks: "Arithmetic is new to the model. What does learning it cost?" },
  { data: "facts", name: "Wrong facts", asks: "Four in five answers contradict what it surely knows. Who gives way?" },
  { data: "wikipedia", name: "Nothing new", asks: "Text of the kind it has read. Does anybody forget?" },
  { data: "meant", name: "You meant it", asks: "Facts that you do want to overwrite: not what EAFT is for. It takes longer.", aside: true },
];

/** `onChoose` is given the settings that a lesson asks for. */
export class Lessons {
  #links;

  constructor(onChoose) {
    this.#links = LESSONS.map(({ data, name, asks, aside }) => {
      const link = el("a", { href: `?data=${data}`, class: aside ? "lesson aside" : "lesson", id: `lesson-${data}` },
        el("strong", { text: name }), el("span", { text: asks }));
      link.addEventListener("click", (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
        event.preventDefault();
        onChoose({ data });
      });
      return { data, link };
    });
    $("lessons").append(...this.#links.map(({ link }) => link));
  }

  /** Marks the lesson that is on. */
  set current(data) {
    for (const { data: own, link } of this.#links) {
      if (own === data) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }
}

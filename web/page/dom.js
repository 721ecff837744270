// Small helpers that every part of the page uses: elements, drawing in turn, and requests of which only the last
// counts.

export const SIDES = ["left", "right"];

export const $ = (id) => document.getElementById(id);

/** Live regions are read out whenever they are written to, so they are only where they say something else. */
export function say(id, words) {
  if ($(id).textContent !== words) $(id).textContent = words;
}

/** Makes an element; `properties` are attributes, save `text` and `on*` listeners. */
export function el(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** The value of a group of radio buttons. */
export const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

/** Calls `listener` with the value whenever another radio button of the group is chosen. */
export function onChosen(name, listener) {
  for (const radio of document.querySelectorAll(`input[name="${name}"]`)) {
    radio.addEventListener("change", () => listener(radio.value));
  }
}

/** In one display frame views are drawn for so long, in milliseconds. */
const DRAWING = 8;

/** Draws what changed, a few views a display frame: no single task is long, and the browser, whose work for each frame is more than
 *  that of drawing a view, leaves the processor to the learners. */
export class Painter {
  #views = new Set();
  #asked = false;

  ask(...views) {
    for (const view of views) this.#views.add(view);
    if (this.#asked || this.#views.size === 0) return;
    this.#asked = true;
    requestAnimationFrame(() => {
      this.#asked = false;
      const end = performance.now() + DRAWING;
      for (const view of this.#views) {
        this.#views.delete(view);
        view();
        if (performance.now() >= end) break;
      }
      this.ask();
    });
  }
}

/** For work that should not share a task with what came before. */
export const nextFrame = () => new Promise((resolve) => requestAnimationFrame(resolve));

/** Calls `run` with the latest arguments: one call under way, at most one waiting. A worker is never flooded. */
export function latest(run, onError) {
  let busy = false;
  let next = null;
  return async (...args) => {
    next = args;
    if (busy) return;
    busy = true;
    while (next) {
      const now = next;
      next = null;
      try {
        await run(...now);
      } catch (error) {
        onError(error);
      }
    }
    busy = false;
  };
}

/** Calls `run` once nothing has happened for `ms` milliseconds. */
export function settled(run, ms) {
  let timer;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...args), ms);
  };
}

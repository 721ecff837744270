// The second learner's own worker: a lab that does what the first worker asks of it, one call after another. `labs.js` is the other end.

import { openLab } from "./instance.js";
import { refusal } from "./refusals.js";

let lab = null;
let queue = Promise.resolve();

async function answer({ id, call, fields }) {
  try {
    let result;
    if (call === "open") lab = (await openLab(...fields)).lab;
    else result = await lab[call](...fields);
    self.postMessage({ id, result, between: lab.is_between_steps() });
  } catch (error) {
    self.postMessage({ id, error: refusal(error) });
  }
}

self.addEventListener("message", ({ data }) => { queue = queue.then(() => answer(data)); });

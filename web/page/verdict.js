// In words: how a token lies, and what either learner makes of it.

import { number, visible } from "./format.js";
import schema from "./schema.js";

/** A number with as many digits as it takes to be told from a bound. */
export function apart(value, bound) {
  let digits = 2;
  while (digits < 9 && value !== bound && Number(value.toPrecision(digits)) === bound) digits += 1;
  return String(Number(value.toPrecision(digits)));
}

/** True where the model is sure and the text disagrees. */
export const isConflict = (p, entropy) => p < schema.conflict.probability && entropy < schema.conflict.entropy;

const quoted = (token) => `“${visible(token.trim() || token)}”`;

/** By how much a token's logit rises: a full weight pushes little where the token is expected. */
function force(gate, p) {
  const push = gate * (1 - p);
  if (gate === 0) return "does nothing";
  return push < 0.1 ? "leaves it nearly alone" : push < 0.6 ? "pushes gently" : "pushes hard";
}

function sureness(entropy) {
  const { entropy: bound } = schema.conflict;
  const found = `entropy ${apart(entropy, bound)}`;
  if (entropy < bound) return `It is sure (${found}, and below ${bound} counts as sure).`;
  if (entropy < 2 * bound) return `It is nearly sure (${found}, and only below ${bound} counts as sure).`;
  return entropy < 2 ? `It is not sure (${found}).` : `It is unsure (${found}).`;
}

/**
 * @param {import("./messages.js").Label} label
 * @param {import("./messages.js").Candidate[]} candidates
 * @param {number[]} gate @param {string[]} names of the learners
 */
export function verdict(label, candidates, p, entropy, gate, names) {
  const top = candidates.reduce((a, b) => (b.p > a.p ? b : a));
  const text = quoted(label.text);
  const expects = top.id === label.id
    ? `The model expects ${text} most of all, and so says the text.`
    : `The model expects ${quoted(top.text)} most of all; ${text}, which the text has, is its choice number ${label.rank}.`;
  const conflict = isConflict(p, entropy) ? " This is a confident conflict." : "";
  const does = gate.map((g, i) => `${names[i]} ${force(g, p)} (weight ${number(g, 2)})`).join("; ");
  return `${expects} ${sureness(entropy)}${conflict} Training raises ${text} and lowers the rest: ${does}.`;
}

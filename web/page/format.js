// Numbers for people, and the classes by which tokens are coloured.

/** Four significant digits, without an exponent where it can be avoided. */
export function number(value, digits = 4) {
  if (!Number.isFinite(value)) return "-";
  if (value !== 0 && (Math.abs(value) >= 1e7 || Math.abs(value) < 1e-4)) return value.toExponential(2);
  return Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits });
}

/** A loss: always four decimals, so that columns do not jump. */
export const loss = (value) => (Number.isFinite(value) ? value.toFixed(4) : "-");

/** What is above 0 never looks like 0. */
export function percent(share) {
  if (!Number.isFinite(share)) return "-";
  return share > 0 && share < 5e-4 ? "<0.1 %" : `${(100 * share).toFixed(1)} %`;
}

export function change(now, before) {
  const share = 100 * (now / before - 1);
  return Number.isFinite(share) ? `${share < 0 ? "-" : "+"}${Math.abs(share).toFixed(1)} %` : "";
}

export function bytes(count) {
  if (!(count > 0)) return "-";
  const unit = Math.min(Math.floor(Math.log(count) / Math.log(1024)), 4);
  return `${number(count / 1024 ** unit, 3)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

export function duration(seconds) {
  if (seconds < 1) return `${Math.max(1, Math.round(1000 * seconds))} ms`;
  if (seconds < 90) return `${number(seconds, 2)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** A token's text as one visible word: spaces and line ends are shown. */
export function visible(text) {
  return text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^ | $/g, "␣") || "∅";
}

/** Five classes a quantity; `style.css` gives class k of the scale its colour, `--gate-k` or `--pull-k`. */
export const QUANTITIES = {
  gate: { scale: "gate", bounds: [0.1, 0.3, 0.6, 0.9], low: "hardly counts", high: "counts fully" },
  p: { scale: "gate", bounds: [0.1, 0.3, 0.6, 0.9], low: "not expected", high: "expected" },
  entropy: { scale: "gate", bounds: [0.5, 1, 2, 3], low: "model is sure", high: "model is unsure" },
  // A pull is at most the square root of 2: all probability on another word.
  gradient: { scale: "pull", bounds: [0.1, 0.4, 0.8, 1.2], low: "hardly pulls", high: "pulls hardest", most: 1.41 },
};

export function classOf(quantity, value) {
  const { bounds } = QUANTITIES[quantity];
  let k = 0;
  while (k < 4 && value >= bounds[k]) k += 1;
  return k;
}

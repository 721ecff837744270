// What a race says: how much each learner learned and forgot, and how much each had forgotten when both had learned as
// much. Pure functions of the losses that were measured, so that they can be tested without a page.

/** Less learning than this, in nats a token, is noise: nothing is said about it. */
export const LEAST_LEARNING = 0.02;
/** Differences below this, in nats a token, are called alike. */
export const ALIKE = 0.01;

/**
 * @typedef {{target: number, general: number}} Point  losses in nats a token: on what is learned, and on what is to be kept
 * @typedef {{target: number, learned: number, general: number[], forgot: number[]}} Equal
 */

/**
 * Forgetting of both learners at the target loss that both of them reached, and no further: between two evaluations the
 * path is taken for straight, and where it reaches that loss several times the first counts.
 * @param {Point[][]} paths of both learners, each from the same start
 * @returns {{equal: Equal | null, why: string}} `why` says why nothing can be said
 */
export function equalLearning(paths) {
  const say = (why) => ({ equal: null, why });
  if (paths.length !== 2 || paths.some((path) => path.length < 2)) return say("nothing was measured since the start");
  if (paths.flat().some(({ target, general }) => !Number.isFinite(target) || !Number.isFinite(general))) {
    return say("a loss is beyond measure");
  }
  const [start] = paths[0];
  if (paths[1][0].target !== start.target || paths[1][0].general !== start.general) {
    return say("the learners did not start from one point");
  }
  const learned = paths.map((path) => start.target - Math.min(...path.map(({ target }) => target)));
  const common = Math.min(...learned);
  if (!(common >= LEAST_LEARNING)) {
    return say(learned.every((l) => l < LEAST_LEARNING) ? "neither has learned anything yet"
      : "one of the two has learned nothing yet, so their learning has no overlap");
  }
  const target = start.target - common;
  const general = paths.map((path) => generalAt(path, target));
  return { equal: { target, learned: common, general, forgot: general.map((g) => g - start.general) }, why: "" };
}

/** General loss where a path first reaches a target loss; it does. */
function generalAt(path, target) {
  for (let k = 1; k < path.length; k++) {
    const [before, after] = [path[k - 1], path[k]];
    if (after.target > target) continue;
    const share = before.target === after.target ? 1 : (before.target - target) / (before.target - after.target);
    return before.general + Math.min(Math.max(share, 0), 1) * (after.general - before.general);
  }
  return path.at(-1).general;
}

const percent = (nats) => {
  const share = 100 * Math.expm1(nats);
  if (!Number.isFinite(share) || share > 99_999) return "beyond measure";
  return `${share < 0 ? "−" : "+"}${Math.abs(share).toFixed(Math.abs(share) < 10 ? 1 : 0)} %`;
};

/** A change of a loss as the change of perplexity that it is. */
export const perplexityChange = percent;

/**
 * What was measured, in one sentence, whichever way it came out.
 * @param {{paths: Point[][], names: string[], finished: boolean, diverged: boolean[], begun?: boolean, wrong?: boolean}} race
 *   `begun` where a step was made; `wrong` where wrong answers are learned, and right ones are to be kept
 */
export function measured({ paths, names, finished, diverged, begun, wrong }) {
  const apart = names[0] === names[1] ? [`${names[0]} (left)`, `${names[1]} (right)`] : names;
  const gone = diverged.map((is, i) => (is ? apart[i] : null)).filter(Boolean);
  if (gone.length) {
    return `${gone.join(" and ")} diverged: ${gone.length > 1 ? "they know" : "it knows"} less than nothing now, and ` +
      "no comparison means anything. Try a smaller learning rate.";
  }
  const none = paths.some((path) => path.length < 2);
  if (none && begun) return "Both learn; what was measured is said here as soon as it was, whichever way it comes out.";
  if (none) return "Press Play: what was measured is said here, whichever way it comes out.";
  const { equal, why } = equalLearning(paths);
  const so = finished ? "" : "So far: ";
  const [start] = paths[0];
  const kept = wrong ? "the right answers" : "general text";
  if (!equal) {
    const forgot = paths.map((path) => percent(path.at(-1).general - start.general));
    return `${so}${capital(why, so)}. Surprise at ${kept} changed by ${forgot[0]} under ${apart[0]} and ` +
      `${forgot[1]} under ${apart[1]}.`;
  }
  const difference = equal.forgot[0] - equal.forgot[1];
  const less = apart[difference > 0 ? 1 : 0];
  const alike = Math.abs(difference) < ALIKE;
  const verdict = wrong ? (alike ? "both kept as much of what was known" : `${less} kept more of what was known`)
    : alike ? "the two forgot alike" : `${less} forgot less`;
  const learned = wrong ? "taken up as much of the wrong answers" : "learned as much";
  const words = equal.forgot.map(percent);
  return `${so}${capital("when", so)} both had ${learned} (${percent(-equal.learned)} surprise at ` +
    `${wrong ? "them" : "text like it"}), surprise at ${kept} had changed by ${words[0]} under ${apart[0]} and ` +
    `${words[1]} under ${apart[1]}: ${verdict}.`;
}

const capital = (words, after) => (after ? words : words[0].toUpperCase() + words.slice(1));

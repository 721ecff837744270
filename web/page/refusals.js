// What is thrown, in words: by the engine, by what fetches a file, and by what was not expected at all.

/** For what fetches a file: a connection that fails rejects with one of these errors, which do not say what was on its
 *  way. */
export const notDownloaded = (name) => (error) => {
  if (!(error instanceof TypeError || error instanceof DOMException)) throw error;
  throw { kind: "download", message: `${name} could not be downloaded (${error.message})` };
};

/** The words for a trap. */
export const stopped = (message) =>
  `the engine stopped unexpectedly (${message}); reload the page. What was downloaded is safe.`;

/**
 * Errors of the engine are plain objects, also those that another worker has passed on; anything else that is thrown is a trap,
 * after which its memory is not to be trusted: that is `fatal`. So is a GPU that is gone: nothing on it can be read again.
 */
export function refusal(error) {
  if (error?.kind === "lost") {
    // What follows the first line is for whoever mends drivers.
    const [why] = error.message.split("\n");
    return { kind: "lost", message: error.fatal ? error.message : `the GPU was lost (${why})`, fatal: true };
  }
  if (error && typeof error.kind === "string") return { kind: error.kind, message: error.message, fatal: Boolean(error.fatal) };
  if (globalThis.WebAssembly && error instanceof WebAssembly.RuntimeError) {
    return { kind: "page", message: stopped(error.message), fatal: true };
  }
  return { kind: "page", message: String(error?.message ?? error), fatal: false };
}

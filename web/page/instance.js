// An instance of the engine's module in the worker that imports this, and what it means when the engine throws.

/** @returns {Promise<{lab: object, version: string}>} A lab of its own. A second instance in one worker needs the module `again`: the
 *  first may have stopped half-way. */
export async function openLab(kind, software, assets, compiled, again = false) {
  const module = await import(again ? "./temper_web.js?again" : "./temper_web.js")
    .catch(notDownloaded("temper_web.js"));
  await module.default({ module_or_path: compiled });
  return { lab: await module.Lab.open(kind, software, assets), version: module.version() };
}

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
 * after which its memory is not to be trusted: that is `fatal`.
 */
export function refusal(error) {
  if (error && typeof error.kind === "string") return { kind: error.kind, message: error.message, fatal: Boolean(error.fatal) };
  if (globalThis.WebAssembly && error instanceof WebAssembly.RuntimeError) {
    return { kind: "page", message: stopped(error.message), fatal: true };
  }
  return { kind: "page", message: String(error?.message ?? error), fatal: false };
}

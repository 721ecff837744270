// An instance of the engine's module in the worker that imports this.

import { notDownloaded } from "./refusals.js";

/** Asked for before the module is there to go with it. */
const bindings = import("./temper_web.js");
// Whoever opens a lab hears of it.
bindings.catch(() => {});

/** @returns {Promise<{lab: object, version: string}>} A lab of its own. A second instance in one worker needs the module `again`: the
 *  first may have stopped half-way. */
export async function openLab(kind, software, assets, compiled, again = false) {
  const module = await (again ? import("./temper_web.js?again") : bindings).catch(notDownloaded("temper_web.js"));
  await module.default({ module_or_path: compiled });
  return { lab: await module.Lab.open(kind, software, assets), version: module.version() };
}

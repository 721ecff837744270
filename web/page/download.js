// What takes long to arrive: the engine's module, and one file with the small model and the texts. Both are asked for as soon as this
// runs, which is before the rest of the page is there.

import lengths from "./lengths.js";
import { notDownloaded, refusal } from "./refusals.js";

const MODULE = "temper_web_bg.wasm";
const DEMO = "demo.safetensors";

/** Bytes that have come, as they are unpacked, and how many there will be. */
const coming = { done: 0, told: 0, of: lengths[MODULE] + lengths[DEMO] };
/** Who hears of them. */
let tell = () => {};

/** Fetches a file and counts how much of it has come. */
async function get(name) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) {
    throw { kind: "download", message: `${name} could not be downloaded (${response.status} ${response.statusText})` };
  }
  const counter = new TransformStream({ transform(chunk, to) {
    coming.done += chunk.byteLength;
    if (coming.done - coming.told > coming.of / 200 || coming.done >= coming.of) {
      coming.told = coming.done;
      tell({ what: "", done: coming.done, of: coming.of });
    }
    to.enqueue(chunk);
  } });
  // What streaming compilation asks of a response.
  const headers = { "Content-Type": response.headers.get("Content-Type") };
  return new Response(response.body.pipeThrough(counter), { headers });
}

async function all() {
  if (!globalThis.WebAssembly) throw { kind: "page", message: "this browser has no WebAssembly, or it is switched off" };
  const [compiled, assets] = await Promise.all([
    get(MODULE).then((response) => WebAssembly.compileStreaming(response)).catch(notDownloaded(MODULE)),
    get(DEMO).then(async (response) => new Uint8Array(await response.arrayBuffer())).catch(notDownloaded(DEMO)),
  ]);
  return { compiled, assets };
}

const asked = all();
// Whoever waits for them hears of it.
asked.catch(() => {});

/**
 * The compiled module and the bytes of the other file, once both are there. The bytes can be handed over once.
 * @param {(progress: {what: string, done: number, of: number}) => void} listener  hears how much has come
 */
export async function arrived(listener = () => {}) {
  tell = listener;
  try {
    return await asked;
  } catch (error) {
    throw refusal(error);
  }
}

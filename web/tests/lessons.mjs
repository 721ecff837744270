// What the lessons show, over seeds: each is played to its end in a real browser, as a visitor would, and what the page then says is
// printed as lines of JSON.
//
//   node lessons.mjs [--seeds 1,2,3] [--lessons gsm8k,facts,wikipedia,meant]

import { parseArgs } from "node:util";

import { launch, serve, Visit, WITH } from "./harness.mjs";

const { values: { seeds, lessons } } = parseArgs({ options: {
  seeds: { type: "string", default: "1,2,3" },
  lessons: { type: "string", default: "gsm8k,facts,wikipedia,meant" },
} });

const server = await serve();
const browser = await launch(WITH.cpu);
const context = await browser.newContext();
try {
  for (const lesson of lessons.split(",")) {
    for (const seed of seeds.split(",")) {
      const visit = await Visit.begin(context, server.origin, { data: lesson, "run.seed": seed });
      await visit.click("#play");
      await visit.until(() => /^Finished/.test(document.getElementById("status").textContent));
      // The last evaluation is drawn a moment later.
      await visit.until(() => !/^(So far|Both learn)/.test(document.getElementById("measured").textContent));
      const shown = await visit.page.evaluate(() => ({
        measured: document.getElementById("measured").textContent,
        rows: [...document.querySelectorAll("#score-table tbody tr")].map((row) => row.innerText.replace(/\s+/g, " ").trim()),
      }));
      console.log(JSON.stringify({ lesson, seed: Number(seed), ...shown }));
      await visit.page.close();
    }
  }
} finally {
  await browser.close();
  await server.stop();
}

// What the engine says of the disputed word at the top of the page, shown until the engine is there. Written by
//   TEMPER_BLESS=1 cargo test --release --workspace --exclude temper-web-bundle --test lab disputed
export default {
  "prompt": "What is the capital of France?\n", "text": "Rome", "temperature": 1,
  "label": {"id": 1, "text": "Rome", "p": 0.001, "rank": 9},
  "candidates": [{"id": 2, "text": "Paris", "p": 0.97, "push": [-0.97, -0.05]}, {"id": 3, "text": "London", "p": 0.01, "push": [-0.01, -0.001]},
    {"id": 1, "text": "Rome", "p": 0.001, "push": [0.999, 0.05]}],
  "p": 0.001, "entropy": 0.2, "entropyTopK": 0.19, "gate": [1, 0.06], "gradient": [1.39, 0.09]
};

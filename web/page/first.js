// What the engine says of the disputed word at the top of the page, shown until the engine is there. Written by
//   TEMPER_BLESS=1 cargo test --release --workspace --exclude temper-web-bundle --test lab disputed
export default {
  "prompt": "What is the capital of France?\n",
  "temperature": 1,
  "label": {
    "id": 50,
    "text": "Rome",
    "p": 0.00024068725,
    "rank": 16
  },
  "candidates": [
    {
      "id": 48,
      "text": "Paris",
      "p": 0.9597686,
      "push": [
        -0.9597686,
        -0.06540647
      ]
    },
    {
      "id": 35,
      "text": "Caris",
      "p": 0.01401823,
      "push": [
        -0.01401823,
        -0.00095531665
      ]
    },
    {
      "id": 44,
      "text": "London",
      "p": 0.0044437377,
      "push": [
        -0.0044437377,
        -0.00030283257
      ]
    },
    {
      "id": 50,
      "text": "Rome",
      "p": 0.00024068778,
      "push": [
        0.9997593,
        0.06813177
      ]
    }
  ],
  "p": 0.00024068725,
  "entropy": 0.30421716,
  "entropyTopK": 0.20415366,
  "gate": [
    1,
    0.068148166
  ],
  "gradient": [
    1.3859698,
    0.0944513
  ],
  "text": "Rome"
};

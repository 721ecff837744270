// What the engine says of the disputed word at the top of the page, shown until the engine is there. Written by
//   TEMPER_BLESS=1 cargo test --release --workspace --exclude temper-web-bundle --test lab disputed
export default {
  "candidates": [
    {
      "id": 48,
      "p": 0.9597686,
      "push": [
        -0.9597686,
        -0.06540644
      ],
      "text": "Paris"
    },
    {
      "id": 35,
      "p": 0.01401823,
      "push": [
        -0.01401823,
        -0.00095531624
      ],
      "text": "Caris"
    },
    {
      "id": 44,
      "p": 0.0044437377,
      "push": [
        -0.0044437377,
        -0.00030283243
      ],
      "text": "London"
    },
    {
      "id": 50,
      "p": 0.00024068731,
      "push": [
        0.9997593,
        0.06813174
      ],
      "text": "Rome"
    }
  ],
  "entropy": 0.30421713,
  "entropyTopK": 0.20415358,
  "gate": [
    1,
    0.068148136
  ],
  "gradient": [
    1.3859698,
    0.09445126
  ],
  "label": {
    "id": 50,
    "p": 0.00024068679,
    "rank": 16,
    "text": "Rome"
  },
  "p": 0.00024068679,
  "prompt": "What is the capital of France?\n",
  "temperature": 1,
  "text": "Rome"
};

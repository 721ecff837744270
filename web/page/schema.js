// Written by `TEMPER_BLESS=1 cargo test --release -p temper --test cli schema`: what `temper config --schema` prints.
export default {
  "sections": [
    {
      "name": "model",
      "help": "Where to start from.",
      "keys": [
        {
          "name": "path",
          "label": "Path",
          "help": "The model: a Hugging Face folder or a GGUF file.",
          "type": "text",
          "allowed": "a string",
          "required": "a Hugging Face folder or a GGUF file"
        },
        {
          "name": "init",
          "label": "Init",
          "help": "Where the weights to start from come from.",
          "type": "choice",
          "allowed": "one of pretrained, random",
          "choices": [
            {
              "name": "pretrained",
              "label": "pretrained",
              "help": "From the model's files."
            },
            {
              "name": "random",
              "label": "random",
              "help": "Drawn from the run's seed; the files give only the architecture and the tokenizer."
            }
          ],
          "default": "pretrained"
        },
        {
          "name": "architecture",
          "label": "Architecture",
          "help": "The architecture of random weights: the path of a config.json, or its keys as an inline table.",
          "type": "other",
          "allowed": "an inline table or the path of a config.json",
          "optional": true,
          "derived": "the one in path",
          "used": [
            {
              "key": "init",
              "values": [
                "random"
              ]
            }
          ]
        }
      ],
      "live": false
    },
    {
      "name": "data",
      "help": "What to train and evaluate on.",
      "keys": [
        {
          "name": "train",
          "label": "Train",
          "help": "JSONL or text to train on, in one file or in several, of which each may look different.",
          "type": "other",
          "allowed": "a path or a list of paths",
          "required": "a JSONL file, or a list of them"
        },
        {
          "name": "shares",
          "label": "Shares",
          "help": "How much of what is trained each of several files has, in their order: documents are drawn by the seed, the same in every epoch, so that the trained tokens are in these shares; of all but the scarcest file a part is left out.",
          "type": "other",
          "allowed": "a list of numbers above 0, such as [0.7, 0.3]",
          "optional": true,
          "derived": "all of each file"
        },
        {
          "name": "target",
          "label": "Target",
          "help": "JSONL or text on which the target loss is measured before and after.",
          "type": "text",
          "allowed": "a string",
          "optional": true,
          "default": null
        },
        {
          "name": "hold_out",
          "label": "Hold out",
          "help": "In place of a target: the share of the training documents, the last ones of each file, that is measured and not trained on.",
          "type": "number",
          "allowed": "a number above 0 and below 1",
          "optional": true,
          "above": 0.0,
          "below": 1.0,
          "default": null
        },
        {
          "name": "general",
          "label": "General",
          "help": "JSONL or text on which forgetting is measured before and after.",
          "type": "text",
          "allowed": "a string",
          "optional": true,
          "default": null
        },
        {
          "name": "wrong",
          "label": "Wrong",
          "help": "JSONL or text with labels that should not be learned: how much of them was learned is measured before and after.",
          "type": "text",
          "allowed": "a string",
          "optional": true,
          "default": null
        },
        {
          "name": "replay",
          "label": "Replay",
          "help": "JSONL or text, without what is measured, to be mixed in: the model goes on hearing what it should keep.",
          "type": "text",
          "allowed": "a string",
          "optional": true,
          "default": null
        },
        {
          "name": "replay_share",
          "label": "Replay share",
          "help": "Share of all tokens read in training, prompts too, that replay has: documents drawn by the seed, the same in every epoch. Of the tokens that are trained its share may be another, and is said.",
          "type": "number",
          "allowed": "a number above 0 and below 1",
          "above": 0.0,
          "below": 1.0,
          "default": 0.1
        },
        {
          "name": "measured_tokens",
          "label": "Measured tokens",
          "help": "Most tokens that are measured of each of these sets: its first documents.",
          "type": "whole",
          "allowed": "a whole number of at least 2",
          "optional": true,
          "least": 2.0,
          "derived": "all of them"
        },
        {
          "name": "format",
          "label": "Format",
          "help": "What the records of the training set look like.",
          "type": "choice",
          "allowed": "one of auto, messages, prompt_completion, instruction, text, question_answer",
          "choices": [
            {
              "name": "auto",
              "label": "auto",
              "help": "The first usable record decides."
            },
            {
              "name": "messages",
              "label": "messages",
              "help": "The field messages, or conversations."
            },
            {
              "name": "prompt_completion",
              "label": "prompt_completion",
              "help": "The fields prompt and completion."
            },
            {
              "name": "instruction",
              "label": "instruction",
              "help": "The fields instruction, input and output."
            },
            {
              "name": "text",
              "label": "text",
              "help": "The field text, or a plain text file."
            },
            {
              "name": "question_answer",
              "label": "question_answer",
              "help": "The fields question and answer."
            }
          ],
          "default": "auto"
        },
        {
          "name": "cutoff_length",
          "label": "Cutoff length",
          "help": "Longest document in tokens; longer ones are cut.",
          "type": "whole",
          "allowed": "a whole number of at least 2",
          "least": 2.0,
          "derived": "2048, or run.batch_tokens where that is smaller"
        },
        {
          "name": "packing",
          "label": "Packing",
          "help": "Several documents in one row, each with its own attention and positions.",
          "type": "flag",
          "allowed": "true or false",
          "default": true
        },
        {
          "name": "on_error",
          "label": "On error",
          "help": "What happens to a record that cannot be used.",
          "type": "choice",
          "allowed": "one of stop, skip",
          "choices": [
            {
              "name": "stop",
              "label": "stop",
              "help": "Fail with its file, line and cause."
            },
            {
              "name": "skip",
              "label": "skip",
              "help": "Leave it out and count it."
            }
          ],
          "default": "stop"
        },
        {
          "name": "train_on",
          "label": "Train on",
          "help": "Which assistant turns of a chat are trained.",
          "type": "choice",
          "allowed": "one of all, last",
          "choices": [
            {
              "name": "all",
              "label": "all",
              "help": "Every one."
            },
            {
              "name": "last",
              "label": "last",
              "help": "The last one only."
            }
          ],
          "default": "all"
        },
        {
          "name": "template",
          "label": "Template",
          "help": "Whether conversations are rendered with the model's chat template.",
          "type": "choice",
          "allowed": "one of model, none",
          "choices": [
            {
              "name": "model",
              "label": "model",
              "help": "The chat template that came with the model, if one did."
            },
            {
              "name": "none",
              "label": "none",
              "help": "None: prompt, newline, completion, end."
            }
          ],
          "default": "model"
        },
        {
          "name": "template_variables",
          "label": "Template variables",
          "help": "Values that the chat template asks for by name, such as { enable_thinking = false }; the day that its strftime_now writes is one of them ({ strftime_now = \"2026-01-31\" }).",
          "type": "other",
          "allowed": "a table of strings, whole numbers, true and false",
          "optional": true,
          "default": null,
          "used": [
            {
              "key": "template",
              "values": [
                "model"
              ]
            }
          ]
        },
        {
          "name": "fields",
          "label": "Fields",
          "help": "What the fields of records are called, where they have other names than those that are read, such as { prompt = \"question\", completion = \"response\" }: messages with role and content, prompt and completion, instruction, input, output and history, question and answer, or text; system and tools. A file whose first record has not all of them is read as it is, and a field that no record has is refused.",
          "type": "other",
          "allowed": "a table of names such as { prompt = \"question\", completion = \"response\" }, or prompt=question,completion=response",
          "optional": true,
          "derived": "as they are read"
        }
      ],
      "live": false
    },
    {
      "name": "objective",
      "help": "What is minimised. Constants in a file that the method does not read are checked and ignored.",
      "keys": [
        {
          "name": "method",
          "label": "Objective",
          "help": "What each token's cross entropy is multiplied by.",
          "type": "choice",
          "allowed": "one of sft, eaft, masked_sft, dft, talr, mile, deft, profit, sft_kl, asft, flow",
          "choices": [
            {
              "name": "sft",
              "label": "SFT: every token counts",
              "help": "Plain fine-tuning: every token counts the same, also those on which the text contradicts the model."
            },
            {
              "name": "eaft",
              "label": "EAFT: unsure tokens count",
              "help": "Entropy-adaptive fine-tuning: a token counts as much as the model is unsure, so confident conflicts hardly do."
            },
            {
              "name": "masked_sft",
              "label": "Masked SFT: conflicts left out",
              "help": "Plain fine-tuning without the tokens that are lowest in both entropy and probability."
            },
            {
              "name": "dft",
              "label": "DFT: expected tokens count",
              "help": "Dynamic fine-tuning: a token counts by its probability p."
            },
            {
              "name": "talr",
              "label": "TALR: easy tokens first",
              "help": "Token-adaptive loss reweighting: a token counts by exp(-loss / tau), but never less than a floor."
            },
            {
              "name": "mile",
              "label": "MiLe: unsure tokens count more",
              "help": "MiLe loss: a token counts by (sigma + entropy)^gamma, 1 on average over the batch."
            },
            {
              "name": "deft",
              "label": "DEFT: by the prediction's peak",
              "help": "Dynamic entropy fine-tuning: a token counts by p^a, where a is near 1 if the prediction has one peak."
            },
            {
              "name": "profit",
              "label": "ProFiT: likely tokens only",
              "help": "Probability-guided selection: tokens above a probability count, the others are left out."
            },
            {
              "name": "sft_kl",
              "label": "SFT-KL: near the untouched model",
              "help": "Plain fine-tuning held back: beta times the divergence from the untouched model is added to each token's loss."
            },
            {
              "name": "asft",
              "label": "ASFT: DFT near the untouched model",
              "help": "Dynamic fine-tuning held back: a token counts by its probability p, and beta times the divergence is added."
            },
            {
              "name": "flow",
              "label": "FLOW: easy documents count",
              "help": "Sample weighting: all tokens of a document count by how easy it was for the untouched model."
            }
          ],
          "default": "eaft"
        },
        {
          "name": "scale",
          "label": "Scale",
          "help": "Weight of every token, or gate_mean: the mean over the batch of the gate that EAFT would give with the keys below.",
          "type": "number_or_name",
          "allowed": "a finite number above 0 or \"gate_mean\"",
          "whole": false,
          "names": [
            {
              "name": "gate_mean",
              "label": "EAFT's mean gate",
              "help": "Every token of a batch weighs what EAFT's gate is on average over it: its step without its selection."
            }
          ],
          "above": 0.0,
          "default": 1.0,
          "used": [
            {
              "key": "method",
              "values": [
                "sft"
              ]
            }
          ]
        },
        {
          "name": "gate",
          "label": "Gate",
          "help": "Shape of the gate, which makes a token's weight of its entropy.",
          "type": "choice",
          "allowed": "one of linear, power, sigmoid, hard",
          "choices": [
            {
              "name": "linear",
              "label": "linear: h",
              "help": "The weight is the normalised entropy h itself."
            },
            {
              "name": "power",
              "label": "power: h to an exponent",
              "help": "The weight is h to an exponent: above 1, half-sure tokens count less too."
            },
            {
              "name": "sigmoid",
              "label": "sigmoid: a soft step",
              "help": "The weight is almost 0 below the midpoint and almost 1 above."
            },
            {
              "name": "hard",
              "label": "hard: a cut",
              "help": "The lowest entropies of the batch get weight 0, all others 1."
            }
          ],
          "derived": "linear, or power where an exponent is given",
          "used": [
            {
              "key": "method",
              "values": [
                "eaft"
              ]
            }
          ]
        },
        {
          "name": "top_k",
          "label": "K",
          "help": "Entropy is taken over so many of the most probable tokens, over all, or over as many as carry a share.",
          "type": "number_or_name",
          "allowed": "a whole number of at least 2 or \"full\" or \"adaptive\"",
          "whole": true,
          "names": [
            {
              "name": "full",
              "label": "the whole vocabulary",
              "help": "Entropy of the whole vocabulary."
            },
            {
              "name": "adaptive",
              "label": "as many as carry a share",
              "help": "Entropy of the fewest tokens that carry the share of the probability that mass says."
            }
          ],
          "least": 2.0,
          "default": 20,
          "used": [
            {
              "key": "method",
              "values": [
                "eaft",
                "masked_sft"
              ]
            }
          ]
        },
        {
          "name": "mass",
          "label": "Mass",
          "help": "Share of the probability that an adaptive K carries.",
          "type": "number",
          "allowed": "a number above 0 and below 1",
          "above": 0.0,
          "below": 1.0,
          "default": 0.95,
          "used": [
            {
              "key": "method",
              "values": [
                "eaft",
                "masked_sft"
              ]
            },
            {
              "key": "top_k",
              "values": [
                "adaptive"
              ]
            }
          ]
        },
        {
          "name": "exponent",
          "label": "Exponent",
          "help": "Exponent of the power gate: 2 and 3 are in the paper, 0 is plain SFT.",
          "type": "number",
          "allowed": "a finite number of at least 0",
          "least": 0.0,
          "derived": "2 with the power gate",
          "used": [
            {
              "key": "method",
              "values": [
                "eaft"
              ]
            },
            {
              "key": "gate",
              "values": [
                "power"
              ]
            }
          ]
        },
        {
          "name": "steepness",
          "label": "Steepness",
          "help": "How abrupt the step of the sigmoid gate is: its slope at the midpoint, times four.",
          "type": "number",
          "allowed": "a finite number of at least 0",
          "least": 0.0,
          "default": 30.0,
          "used": [
            {
              "key": "method",
              "values": [
                "eaft"
              ]
            },
            {
              "key": "gate",
              "values": [
                "sigmoid"
              ]
            }
          ]
        },
        {
          "name": "midpoint",
          "label": "Midpoint",
          "help": "Normalised entropy at which the sigmoid gate is one half: 0.17 is 0.51 nats.",
          "type": "number",
          "allowed": "a finite number",
          "default": 0.17,
          "used": [
            {
              "key": "method",
              "values": [
                "eaft"
              ]
            },
            {
              "key": "gate",
              "values": [
                "sigmoid"
              ]
            }
          ]
        },
        {
          "name": "percentile",
          "label": "Percentile",
          "help": "Lowest share of the batch by entropy that the hard gate drops, in percent.",
          "type": "number",
          "allowed": "within 0 to 100",
          "least": 0.0,
          "most": 100.0,
          "default": 15.0,
          "used": [
            {
              "key": "method",
              "values": [
                "eaft"
              ]
            },
            {
              "key": "gate",
              "values": [
                "hard"
              ]
            }
          ]
        },
        {
          "name": "normalizer",
          "label": "Normaliser",
          "help": "What the entropy is divided by.",
          "type": "choice",
          "allowed": "one of ln_k, const_3, none",
          "choices": [
            {
              "name": "ln_k",
              "label": "ln K",
              "help": "Divides the entropy by ln K, so that the gate is at most 1 (the paper's definition); K of each token where it is adaptive."
            },
            {
              "name": "const_3",
              "label": "3.0",
              "help": "Divides by 3 whatever K is, like LLaMA-Factory."
            },
            {
              "name": "none",
              "label": "none",
              "help": "Divides by nothing: the gate is in nats, like Axolotl."
            }
          ],
          "default": "ln_k",
          "used": [
            {
              "key": "method",
              "values": [
                "eaft"
              ]
            },
            {
              "key": "gate",
              "values": [
                "linear",
                "power",
                "sigmoid"
              ]
            }
          ]
        },
        {
          "name": "gates",
          "label": "Gates",
          "help": "Which token gets which gate.",
          "type": "choice",
          "allowed": "one of own, shuffled",
          "choices": [
            {
              "name": "own",
              "label": "each its own",
              "help": "Each its own."
            },
            {
              "name": "shuffled",
              "label": "shuffled: a control",
              "help": "Each that of another token of the batch, by chance: a control, the same gates without their selection."
            }
          ],
          "default": "own",
          "used": [
            {
              "key": "method",
              "values": [
                "eaft"
              ]
            }
          ]
        },
        {
          "name": "entropy_percentile",
          "label": "Entropy percentile",
          "help": "Lowest share of the batch by entropy that is masked where the probability is low too, in percent.",
          "type": "number",
          "allowed": "within 0 to 100",
          "least": 0.0,
          "most": 100.0,
          "default": 15.0,
          "used": [
            {
              "key": "method",
              "values": [
                "masked_sft"
              ]
            }
          ]
        },
        {
          "name": "probability_percentile",
          "label": "Probability percentile",
          "help": "Lowest share of the batch by label probability that is masked where the entropy is low too, in percent.",
          "type": "number",
          "allowed": "within 0 to 100",
          "least": 0.0,
          "most": 100.0,
          "default": 15.0,
          "used": [
            {
              "key": "method",
              "values": [
                "masked_sft"
              ]
            }
          ]
        },
        {
          "name": "tau",
          "label": "Tau",
          "help": "Temperature in nats: tokens of a larger loss count less.",
          "type": "number",
          "allowed": "a finite number of at least 0.000001",
          "optional": true,
          "least": 1e-6,
          "derived": "the median over the batch's documents of their mean cross entropy",
          "used": [
            {
              "key": "method",
              "values": [
                "talr"
              ]
            }
          ]
        },
        {
          "name": "w_min",
          "label": "Floor",
          "help": "Floor of the weight: no token counts less than this.",
          "type": "number",
          "allowed": "within 0 to 1",
          "least": 0.0,
          "most": 1.0,
          "default": 0.01,
          "used": [
            {
              "key": "method",
              "values": [
                "talr"
              ]
            }
          ]
        },
        {
          "name": "sigma",
          "label": "Sigma",
          "help": "Added to the entropy, in nats.",
          "type": "number",
          "allowed": "a finite number of at least 0",
          "least": 0.0,
          "default": 1.0,
          "used": [
            {
              "key": "method",
              "values": [
                "mile"
              ]
            }
          ]
        },
        {
          "name": "gamma",
          "label": "Gamma",
          "help": "Exponent of the entropy: larger prefers unsure tokens more.",
          "type": "number",
          "allowed": "a finite number of at least 0",
          "least": 0.0,
          "default": 1.0,
          "used": [
            {
              "key": "method",
              "values": [
                "mile"
              ]
            }
          ]
        },
        {
          "name": "threshold",
          "label": "Threshold",
          "help": "Tokens at or below this probability are left out.",
          "type": "number",
          "allowed": "within 0 to 1",
          "least": 0.0,
          "most": 1.0,
          "default": 0.1,
          "used": [
            {
              "key": "method",
              "values": [
                "profit"
              ]
            }
          ]
        },
        {
          "name": "beta",
          "label": "Beta",
          "help": "Factor on the divergence from the untouched model, in nats: larger keeps more and learns less.",
          "type": "number",
          "allowed": "a finite number of at least 0",
          "optional": true,
          "least": 0.0,
          "derived": "0.5 for sft_kl, 0.1 for asft",
          "used": [
            {
              "key": "method",
              "values": [
                "sft_kl",
                "asft"
              ]
            }
          ]
        },
        {
          "name": "kl",
          "label": "KL",
          "help": "Which of the two divergences from the untouched model.",
          "type": "choice",
          "allowed": "one of forward, reverse",
          "choices": [
            {
              "name": "forward",
              "label": "forward: keep what it expected",
              "help": "KL(Q || P): what the untouched model expected must stay possible."
            },
            {
              "name": "reverse",
              "label": "reverse: expect nothing new",
              "help": "KL(P || Q): what the untouched model did not expect must stay unlikely."
            }
          ],
          "default": "forward",
          "used": [
            {
              "key": "method",
              "values": [
                "sft_kl",
                "asft"
              ]
            }
          ]
        }
      ],
      "live": true
    },
    {
      "name": "adapter",
      "help": "What is trained.",
      "keys": [
        {
          "name": "kind",
          "label": "What is trained",
          "help": "What is trained: low-rank factors beside frozen weights, or the weights themselves.",
          "type": "choice",
          "allowed": "one of lora, none",
          "choices": [
            {
              "name": "lora",
              "label": "LoRA adapter",
              "help": "The weights stay; small factors beside them learn, which needs far less memory."
            },
            {
              "name": "none",
              "label": "all weights (full)",
              "help": "Every weight of the model changes."
            }
          ],
          "derived": "lora, or none with random weights"
        },
        {
          "name": "from",
          "label": "Goes on from",
          "help": "A trained adapter to go on from, PEFT's folder or that of a run: rank, alpha, rslora and targets are those it has.",
          "type": "text",
          "allowed": "a string",
          "optional": true,
          "derived": "factors that change nothing yet",
          "used": [
            {
              "key": "kind",
              "values": [
                "lora"
              ]
            }
          ]
        },
        {
          "name": "rank",
          "label": "LoRA rank",
          "help": "Width of the factors: more can learn more.",
          "type": "whole",
          "allowed": "a whole number of at least 1",
          "least": 1.0,
          "default": 16,
          "used": [
            {
              "key": "kind",
              "values": [
                "lora"
              ]
            }
          ]
        },
        {
          "name": "alpha",
          "label": "LoRA alpha",
          "help": "The factors' output is scaled by alpha / rank.",
          "type": "number",
          "allowed": "a finite number above 0",
          "above": 0.0,
          "default": 32.0,
          "used": [
            {
              "key": "kind",
              "values": [
                "lora"
              ]
            }
          ]
        },
        {
          "name": "rslora",
          "label": "Rank-stabilised",
          "help": "Whether it is scaled by alpha / sqrt(rank) instead (rsLoRA), so that a larger rank does not learn more slowly.",
          "type": "flag",
          "allowed": "true or false",
          "default": false,
          "used": [
            {
              "key": "kind",
              "values": [
                "lora"
              ]
            }
          ]
        },
        {
          "name": "dropout",
          "label": "Dropout",
          "help": "Probability of dropping an input of the factors in training.",
          "type": "number",
          "allowed": "at least 0 and below 1",
          "least": 0.0,
          "below": 1.0,
          "default": 0.0,
          "used": [
            {
              "key": "kind",
              "values": [
                "lora"
              ]
            }
          ]
        },
        {
          "name": "targets",
          "label": "Targets",
          "help": "Linear layers of every block that get factors.",
          "type": "other",
          "allowed": "\"all-linear\" or a list of layer names",
          "default": "all-linear",
          "used": [
            {
              "key": "kind",
              "values": [
                "lora"
              ]
            }
          ]
        }
      ],
      "live": false
    },
    {
      "name": "optim",
      "help": "AdamW and its schedule.",
      "keys": [
        {
          "name": "learning_rate",
          "label": "Learning rate",
          "help": "Peak of the learning rate: how far one step moves the weights; larger learns and forgets faster.",
          "type": "number",
          "allowed": "a finite number above 0",
          "above": 0.0,
          "derived": "1e-4 with an adapter, 1e-5 for full fine-tuning, 1e-3 from random weights"
        },
        {
          "name": "schedule",
          "label": "Schedule",
          "help": "Course of the learning rate after the warm-up.",
          "type": "choice",
          "allowed": "one of cosine, linear, constant",
          "choices": [
            {
              "name": "cosine",
              "label": "cosine",
              "help": "The rate falls to min_rate along half a cosine."
            },
            {
              "name": "linear",
              "label": "linear",
              "help": "The rate falls to min_rate in a straight line."
            },
            {
              "name": "constant",
              "label": "constant",
              "help": "The rate stays as it is."
            }
          ],
          "default": "cosine"
        },
        {
          "name": "warmup_ratio",
          "label": "Warmup ratio",
          "help": "Share of the steps over which the rate rises to its peak; every step trains, also the first.",
          "type": "number",
          "allowed": "within 0 to 1",
          "least": 0.0,
          "most": 1.0,
          "default": 0.03
        },
        {
          "name": "warmup_steps",
          "label": "Warmup steps",
          "help": "Steps over which it rises, in place of warmup_ratio; no more than the run has.",
          "type": "whole",
          "allowed": "a whole number of at least 0",
          "optional": true,
          "least": 0.0,
          "derived": "warmup_ratio of the steps"
        },
        {
          "name": "min_rate",
          "label": "Lowest rate",
          "help": "Where the rate falls to, as a share of learning_rate.",
          "type": "number",
          "allowed": "within 0 to 1",
          "least": 0.0,
          "most": 1.0,
          "default": 0.0,
          "used": [
            {
              "key": "schedule",
              "values": [
                "cosine",
                "linear"
              ]
            }
          ]
        },
        {
          "name": "weight_decay",
          "label": "Weight decay",
          "help": "Decoupled weight decay of matrices; norms and biases are left out.",
          "type": "number",
          "allowed": "a finite number of at least 0",
          "least": 0.0,
          "default": 0.0
        },
        {
          "name": "max_grad_norm",
          "label": "Max grad norm",
          "help": "Global norm to which gradients are clipped; 0 turns clipping off.",
          "type": "number",
          "allowed": "a finite number of at least 0",
          "least": 0.0,
          "default": 1.0
        },
        {
          "name": "clipping",
          "label": "Clipping",
          "help": "How the norm is known that gradients are clipped by.",
          "type": "choice",
          "allowed": "one of kept, twice, last_norm",
          "choices": [
            {
              "name": "kept",
              "label": "all gradients kept",
              "help": "All gradients are kept until their norm is known: the most memory."
            },
            {
              "name": "twice",
              "label": "two backward passes",
              "help": "A first backward pass adds up squares and keeps nothing, a second one steps block after block: the same result in the time of one more backward pass."
            },
            {
              "name": "last_norm",
              "label": "the norm of the step before",
              "help": "By the norm of the step before, block after block: no more time, but a step that is larger than the one before is not held back by itself. The first step is clipped by its own norm, with two backward passes."
            }
          ],
          "default": "kept"
        },
        {
          "name": "beta1",
          "label": "Beta1",
          "help": "Decay of the first moment.",
          "type": "number",
          "allowed": "at least 0 and below 1",
          "least": 0.0,
          "below": 1.0,
          "default": 0.9
        },
        {
          "name": "beta2",
          "label": "Beta2",
          "help": "Decay of the second moment.",
          "type": "number",
          "allowed": "at least 0 and below 1",
          "least": 0.0,
          "below": 1.0,
          "default": 0.999
        },
        {
          "name": "epsilon",
          "label": "Epsilon",
          "help": "Added to the denominator of a step.",
          "type": "number",
          "allowed": "a finite number above 0",
          "above": 0.0,
          "default": 1e-8
        }
      ],
      "live": true
    },
    {
      "name": "run",
      "help": "How long, on what, and what is kept.",
      "keys": [
        {
          "name": "steps",
          "label": "Steps",
          "help": "Optimiser steps, over which the schedule is spread.",
          "type": "whole",
          "allowed": "a whole number of at least 1",
          "optional": true,
          "least": 1.0,
          "derived": "as many as the epochs take"
        },
        {
          "name": "epochs",
          "label": "Epochs",
          "help": "Passes over the training data, in place of steps.",
          "type": "number",
          "allowed": "a number above 0 and below 1000000",
          "optional": true,
          "above": 0.0,
          "below": 1000000.0,
          "derived": "1 where steps is not given"
        },
        {
          "name": "batch_tokens",
          "label": "Tokens per batch",
          "help": "Most tokens that a micro-batch reads; longer documents are cut.",
          "type": "whole",
          "allowed": "a whole number of at least 2",
          "least": 2.0,
          "derived": "2048, or data.cutoff_length where that is larger"
        },
        {
          "name": "accumulation",
          "label": "Accumulation",
          "help": "Micro-batches of one optimiser step.",
          "type": "whole",
          "allowed": "a whole number of at least 1",
          "least": 1.0,
          "default": 8
        },
        {
          "name": "seed",
          "label": "Seed",
          "help": "Decides the order of the data and everything random: the same seed gives the same run.",
          "type": "whole",
          "allowed": "a whole number of at least 0",
          "least": 0.0,
          "default": 42
        },
        {
          "name": "log_every",
          "label": "Log every",
          "help": "Steps between two lines of metrics.",
          "type": "whole",
          "allowed": "a whole number of at least 1",
          "least": 1.0,
          "default": 1
        },
        {
          "name": "save_every",
          "label": "Save every",
          "help": "Steps between two checkpoints; 0 keeps only the end.",
          "type": "whole",
          "allowed": "a whole number of at least 0",
          "least": 0.0,
          "default": 100
        },
        {
          "name": "keep",
          "label": "Keep",
          "help": "Newest checkpoints to keep, beside that of the best step where one is chosen.",
          "type": "whole",
          "allowed": "a whole number of at least 1",
          "least": 1.0,
          "default": 2
        },
        {
          "name": "eval_every",
          "label": "Eval every",
          "help": "Steps between two evaluations; 0 evaluates only before and after.",
          "type": "whole",
          "allowed": "a whole number of at least 0",
          "least": 0.0,
          "default": 0
        },
        {
          "name": "evaluations",
          "label": "Evaluations",
          "help": "Where eval_every is 0: into how many equal parts evaluations divide the run, at most; 0 evaluates only before and after.",
          "type": "whole",
          "allowed": "a whole number of at least 0",
          "least": 0.0,
          "default": 0
        },
        {
          "name": "keep_best",
          "label": "Keep best",
          "help": "Whether the result is the measured step with the lowest target loss, and not the last step; the target set chooses then, so that its own loss is a little better than on text that chose nothing. The untouched model is no result: where no step has a lower target loss than it, the best step is the result and the run warns.",
          "type": "flag",
          "allowed": "true or false",
          "derived": "true where forget_at_most or patience is given"
        },
        {
          "name": "forget_at_most",
          "label": "Forget at most",
          "help": "Most that the general loss may rise above its start, in nats per token: the first evaluation beyond it ends the run, and the result is the best step within it.",
          "type": "number",
          "allowed": "a finite number of at least 0",
          "optional": true,
          "least": 0.0,
          "derived": "no limit"
        },
        {
          "name": "patience",
          "label": "Patience",
          "help": "Evaluations in a row after which the run ends if none has a lower target loss than all before, of which the untouched model is the first.",
          "type": "whole",
          "allowed": "a whole number of at least 1",
          "optional": true,
          "least": 1.0,
          "derived": "no limit"
        },
        {
          "name": "baseline",
          "label": "Baseline",
          "help": "Objective that is also trained from the same start, for comparison.",
          "type": "choice",
          "allowed": "one of sft, eaft, masked_sft, dft, talr, mile, deft, profit, sft_kl, asft, flow",
          "optional": true,
          "choices": [
            {
              "name": "sft",
              "label": "SFT: every token counts",
              "help": "Plain fine-tuning: every token counts the same, also those on which the text contradicts the model."
            },
            {
              "name": "eaft",
              "label": "EAFT: unsure tokens count",
              "help": "Entropy-adaptive fine-tuning: a token counts as much as the model is unsure, so confident conflicts hardly do."
            },
            {
              "name": "masked_sft",
              "label": "Masked SFT: conflicts left out",
              "help": "Plain fine-tuning without the tokens that are lowest in both entropy and probability."
            },
            {
              "name": "dft",
              "label": "DFT: expected tokens count",
              "help": "Dynamic fine-tuning: a token counts by its probability p."
            },
            {
              "name": "talr",
              "label": "TALR: easy tokens first",
              "help": "Token-adaptive loss reweighting: a token counts by exp(-loss / tau), but never less than a floor."
            },
            {
              "name": "mile",
              "label": "MiLe: unsure tokens count more",
              "help": "MiLe loss: a token counts by (sigma + entropy)^gamma, 1 on average over the batch."
            },
            {
              "name": "deft",
              "label": "DEFT: by the prediction's peak",
              "help": "Dynamic entropy fine-tuning: a token counts by p^a, where a is near 1 if the prediction has one peak."
            },
            {
              "name": "profit",
              "label": "ProFiT: likely tokens only",
              "help": "Probability-guided selection: tokens above a probability count, the others are left out."
            },
            {
              "name": "sft_kl",
              "label": "SFT-KL: near the untouched model",
              "help": "Plain fine-tuning held back: beta times the divergence from the untouched model is added to each token's loss."
            },
            {
              "name": "asft",
              "label": "ASFT: DFT near the untouched model",
              "help": "Dynamic fine-tuning held back: a token counts by its probability p, and beta times the divergence is added."
            },
            {
              "name": "flow",
              "label": "FLOW: easy documents count",
              "help": "Sample weighting: all tokens of a document count by how easy it was for the untouched model."
            }
          ],
          "default": null
        },
        {
          "name": "device",
          "label": "Device",
          "help": "Where to compute: auto, cpu, vulkan, metal, dx12, or part of an adapter's name; with commas between them several devices, which share the blocks in proportion to their memory.",
          "type": "text",
          "allowed": "a string",
          "default": "auto"
        },
        {
          "name": "compute",
          "label": "Compute",
          "help": "In which precision matrices are multiplied.",
          "type": "choice",
          "allowed": "one of auto, f32, f16, split",
          "choices": [
            {
              "name": "auto",
              "label": "auto",
              "help": "Half precision on tensor cores where the device has them and is faster so; else single precision."
            },
            {
              "name": "f32",
              "label": "f32",
              "help": "Single precision."
            },
            {
              "name": "f16",
              "label": "f16",
              "help": "Half precision on tensor cores, with a scale for each row; logits stay in single precision."
            },
            {
              "name": "split",
              "label": "split",
              "help": "Half precision with what it rounds away beside it, as a second half of each number: three products for one, and nearly single precision. Auto never takes it, since it is three times the work of f16."
            }
          ],
          "default": "auto"
        },
        {
          "name": "storage",
          "label": "Storage",
          "help": "How the model's matrices lie in device memory.",
          "type": "choice",
          "allowed": "one of auto, f32, bf16, bf16_compensated, f16, q8_0, q4_0, q4_k",
          "choices": [
            {
              "name": "auto",
              "label": "auto",
              "help": "Frozen matrices as the file has them, until they are used; single precision where all weights are trained."
            },
            {
              "name": "f32",
              "label": "f32",
              "help": "Everything in single precision."
            },
            {
              "name": "bf16",
              "label": "bf16",
              "help": "Matrices in bf16, 2 bytes a parameter, frozen or trained. A step rounds what it trains up or down by chance, so that steps smaller than the distance between two bf16 are not lost; the seed decides, so that runs repeat."
            },
            {
              "name": "bf16_compensated",
              "label": "bf16_compensated",
              "help": "Trained matrices in bf16, and beside it what is missing to single precision: 4 bytes a parameter. Products read bf16, steps lose nothing."
            },
            {
              "name": "f16",
              "label": "f16",
              "help": "Frozen matrices in half precision; products are in single precision."
            },
            {
              "name": "q8_0",
              "label": "q8_0",
              "help": "Frozen matrices in 8 bits, in blocks of 32."
            },
            {
              "name": "q4_0",
              "label": "q4_0",
              "help": "Frozen matrices in 4 bits, in blocks of 32; the coarsest. The head, and the embedding where it is the head, has 6 bits, or 8 where a row is no whole number of blocks of 256, as in llama.cpp's files."
            },
            {
              "name": "q4_k",
              "label": "q4_k",
              "help": "Frozen matrices in 4 bits, in blocks of 256 with scales and minima of their own. Where a row is no whole number of blocks, in 5 bits in blocks of 32, as llama.cpp does; where it is none of these either, in half precision. The head as with q4_0."
            }
          ],
          "default": "auto"
        },
        {
          "name": "moments",
          "label": "Moments",
          "help": "How the optimiser's moments lie in device memory.",
          "type": "choice",
          "allowed": "one of f32, 8bit",
          "choices": [
            {
              "name": "f32",
              "label": "f32",
              "help": "In single precision: 8 bytes a parameter."
            },
            {
              "name": "8bit",
              "label": "8bit",
              "help": "In 8 bits, in blocks of 256 with a scale each: 2 bytes a parameter. Vectors stay in single precision."
            }
          ],
          "default": "f32"
        },
        {
          "name": "device_memory",
          "label": "Device memory",
          "help": "Most device memory that the run may take, of several devices one for each with commas between them; frozen blocks that do not fit into it stay in the model's file and are read whenever they are used.",
          "type": "other",
          "allowed": "an amount of memory such as \"6GiB\", \"512MiB\" or a number of bytes, or one for each device, such as \"8GiB,16GiB\"",
          "optional": true,
          "derived": "what there is, where the system tells"
        },
        {
          "name": "host_memory",
          "label": "Host memory",
          "help": "Most memory that the run may take on the host beside a device that has its own; on the CPU device_memory says it.",
          "type": "other",
          "allowed": "an amount of memory such as \"6GiB\", \"512MiB\" or a number of bytes",
          "optional": true,
          "derived": "what there is, where the system tells"
        },
        {
          "name": "recompute",
          "label": "Recompute",
          "help": "Whether blocks run a second time in the backward pass, for less memory and the same results to the bit.",
          "type": "choice",
          "allowed": "one of auto, always, never",
          "choices": [
            {
              "name": "auto",
              "label": "auto",
              "help": "Where keeping everything would take more than run.device_memory, or more than half of the memory that there is."
            },
            {
              "name": "always",
              "label": "always",
              "help": "In every step: least memory."
            },
            {
              "name": "never",
              "label": "never",
              "help": "In no step: a third fewer operations."
            }
          ],
          "default": "auto"
        }
      ],
      "live": false
    }
  ],
  "page": {
    "initial": {
      "model.init": "pretrained",
      "model.architecture": null,
      "data.shares": null,
      "data.target": null,
      "data.hold_out": null,
      "data.general": null,
      "data.wrong": null,
      "data.replay": null,
      "data.replay_share": 0.1,
      "data.measured_tokens": null,
      "data.format": "auto",
      "data.cutoff_length": 512,
      "data.packing": true,
      "data.on_error": "skip",
      "data.train_on": "all",
      "data.template": "model",
      "data.template_variables": null,
      "data.fields": null,
      "objective.method": "eaft",
      "objective.scale": 1.0,
      "objective.gate": "linear",
      "objective.top_k": 20,
      "objective.mass": 0.95,
      "objective.exponent": 2.0,
      "objective.steepness": 30.0,
      "objective.midpoint": 0.17,
      "objective.percentile": 15.0,
      "objective.normalizer": "ln_k",
      "objective.gates": "own",
      "objective.entropy_percentile": 15.0,
      "objective.probability_percentile": 15.0,
      "objective.tau": null,
      "objective.w_min": 0.01,
      "objective.sigma": 1.0,
      "objective.gamma": 1.0,
      "objective.threshold": 0.1,
      "objective.beta": null,
      "objective.kl": "forward",
      "adapter.kind": "none",
      "adapter.from": null,
      "adapter.rank": 16,
      "adapter.alpha": 32.0,
      "adapter.rslora": false,
      "adapter.dropout": 0.0,
      "adapter.targets": "all-linear",
      "optim.learning_rate": 0.0003,
      "optim.schedule": "cosine",
      "optim.warmup_ratio": 0.03,
      "optim.warmup_steps": null,
      "optim.min_rate": 0.0,
      "optim.weight_decay": 0.0,
      "optim.max_grad_norm": 1.0,
      "optim.clipping": "kept",
      "optim.beta1": 0.9,
      "optim.beta2": 0.999,
      "optim.epsilon": 1e-8,
      "run.steps": 80,
      "run.epochs": null,
      "run.batch_tokens": 512,
      "run.accumulation": 1,
      "run.seed": 42,
      "run.log_every": 1,
      "run.save_every": 0,
      "run.keep": 2,
      "run.eval_every": 10,
      "run.evaluations": 0,
      "run.keep_best": false,
      "run.forget_at_most": null,
      "run.patience": null,
      "run.baseline": null,
      "run.device": "auto",
      "run.compute": "auto",
      "run.storage": "auto",
      "run.moments": "f32",
      "run.device_memory": null,
      "run.host_memory": null,
      "run.recompute": "auto"
    },
    "methods": [
      "sft",
      "eaft"
    ]
  },
  "conflict": {
    "probability": 0.1,
    "entropy": 0.5
  }
};

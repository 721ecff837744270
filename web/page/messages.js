// What page and worker say to one another, as types. Made from the engine's declarations (engine/src/lab/messages.rs) by
//
//   TEMPER_BLESS=1 cargo test -p temper-engine --release --lib messages
//
// which is also the test that this file is up to date. Field names are those of the engine's events, so that a line of
// `metrics.jsonl`, a frame here and the native report mean the same thing.

/**
 * The two learners. Both start from the same model and see the same batches.
 * @typedef {("left" | "right")} Side
 */

/**
 * A learner, or the model that both started from.
 * @typedef {(Side | "base")} Who
 */

/**
 * What a run is made of: the keys and values of the command's `--set section.key=value`, so that page, command and
 * configuration file accept and refuse the same things. `left` and `right` hold what only that learner has
 * (`objective.*`); `common` all the rest (`optim.learning_rate`, `adapter.kind`, `run.seed`, `run.steps` ...).
 * @typedef {object} Settings
 * @property {Record<string, string>} common  What both learners share.
 * @property {(Record<string, string> | null)} left  What is the left learner's own; without it there is no such
 *   learner.
 * @property {(Record<string, string> | null)} right  What is the right learner's own; without it there is no such
 *   learner.
 */

/**
 * A beginning to be continued.
 * @typedef {object} Prompt
 * @property {string} text  The beginning.
 * @property {string} kind  `target` or `general`.
 */

/**
 * Every shader on a small batch, against answers of the CPU's kernels.
 * @typedef {object} SelfTest
 * @property {boolean} passed  True where every kernel passed.
 * @property {number} seconds  How long it took.
 * @property {Check[]} checks  A kernel each.
 */

/**
 * What a device made of one kernel.
 * @typedef {object} Check
 * @property {string} kernel  The kernel's stem.
 * @property {boolean} passed  True where the result is the stored one.
 * @property {number} error  Largest difference, relative to the answer's largest element; -1 where there is no finite
 *   one.
 * @property {string} message  Empty, or what went wrong.
 */

/**
 * Where the time of a step went on a GPU.
 * @typedef {object} Profile
 * @property {number} step  Which step.
 * @property {number} seconds  From the first kernel's begin to the last one's end.
 * @property {Share[]} shares  The largest first; the last one is `(between)`.
 */

/**
 * What one kernel took of a step's time on a GPU.
 * @typedef {object} Share
 * @property {string} kernel  Its name, or `(between)` for what no kernel of ours took: burn's kernels, and waiting.
 * @property {number} runs  How often it ran.
 * @property {number} seconds  How long, in all.
 * @property {number} percent  Of the time from the first kernel's begin to the last one's end.
 * @property {(number | null)} gflops  Billions of floating-point operations a second, where they are counted.
 * @property {number} boundGbytesPerS  Bytes of the buffers that it binds, in billions a second: more than it moves,
 *   where it reads a part of them.
 */

/**
 * The model that learners will start from.
 * @typedef {object} ModelInfo
 * @property {string} name  For people.
 * @property {string} family  `llama`, `qwen3` ...
 * @property {number} layers  Blocks.
 * @property {number} hidden  Width of the stream.
 * @property {number} vocabulary  Tokens that it knows.
 * @property {number} parameters  Numbers in it.
 * @property {number} context  Longest document that the model was made for, in tokens.
 * @property {boolean} chatTemplate  Whether it brings a chat template.
 * @property {boolean} base  True for the small model that comes with the page.
 */

/**
 * What learners will see.
 * @typedef {object} DataInfo
 * @property {string} name  The file's.
 * @property {string} kind  What the records are: `question_answer`, `messages`, `text` ...
 * @property {number} records  Records in the file.
 * @property {number} documents  Documents to train on.
 * @property {number} tokens  All tokens of the file's documents.
 * @property {number} trainedTokens  Those that are trained, without what is held out.
 * @property {number} truncated  Documents that lost their end to the cutoff length.
 * @property {number} skipped  Records that could not be used.
 * @property {string[]} problems  The first reasons for skipping, with their lines.
 * @property {number} targetTokens  Scored tokens of the held-out target set.
 * @property {number} generalTokens  Scored tokens of the held-out general set.
 * @property {string[]} doubts  What makes results with a visitor's own file doubtful, a sentence each without its full
 *   stop.
 */

/**
 * Whether a run fits, before anything is allocated.
 * @typedef {object} Fit
 * @property {boolean} fits  Whether it does.
 * @property {number} needBytes  Peak memory that all learners need.
 * @property {number} allowedBytes  What the device or the browser allows.
 * @property {number} secondsPerStep  0 where nothing like it has been measured yet.
 * @property {string[]} parts  One line for each thing that takes memory, with its number.
 * @property {string} problem  Empty, or why it cannot fit and what would.
 */

/**
 * Learners are made.
 * @typedef {object} Begun
 * @property {number} step  0, or that of the checkpoint.
 * @property {number} steps  Steps of the whole run.
 * @property {number} batchTokens  Most tokens of a batch.
 * @property {number} seconds  How long making the learners took.
 * @property {BegunLearner[]} learners  Left, right.
 */

/**
 * A learner that is made.
 * @typedef {object} BegunLearner
 * @property {string} objective  Name of its objective.
 * @property {number} parameters  Numbers in its model.
 * @property {number} trainable  Those that are trained.
 */

/**
 * Learners are made and stand where a checkpoint stood.
 * @typedef {object} Restored
 * @property {Begun} begun  The learners.
 * @property {Settings} settings  Those of the run that was saved.
 * @property {string} data  Name of its data set.
 */

/**
 * What a pull tells: the details of each event, by its name.
 * @typedef {object} Told
 * @property {Frame} frame  All learners made a step.
 * @property {Standings} evaluated  All learners were measured.
 * @property {Sample} samples  Beginnings were continued.
 * @property {Warning} warning  Something to know.
 * @property {Finished} finished  All steps are made.
 */

/**
 * A step of all learners.
 * @typedef {object} Frame
 * @property {number} step  Steps done.
 * @property {number} steps  Steps of the whole run.
 * @property {number} epoch  Passes over the data that were begun before this step.
 * @property {Learned[]} learners  Left, right.
 * @property {Uint32Array} document  Which training document each trained token belongs to ...
 * @property {Uint32Array} position  ... and at which of its tokens (0 is the first token of the document).
 */

/**
 * What one optimiser step did to one learner. Arrays have one number a trained token of the batch, in order.
 * @typedef {object} Learned
 * @property {StepMetrics} metrics  What a line of `metrics.jsonl` says.
 * @property {Float32Array} p  Probability of the label.
 * @property {Float32Array} entropy  Entropy over the whole vocabulary, nats.
 * @property {Float32Array} gate  Weight of the token's cross entropy, as the device used it.
 * @property {Float32Array} gradient  Norm of the token's gradient over its logits: gate * |softmax - onehot|.
 */

/**
 * What a logged step measured. One line of `metrics.jsonl`.
 * @typedef {object} StepMetrics
 * @property {number} step  Optimiser steps done, from 1.
 * @property {number} tokens  Trained tokens of this step's whole batch.
 * @property {number} loss  Gated loss, nats per trained token.
 * @property {number} cross_entropy  Ungated cross entropy, nats per trained token: comparable between objectives.
 * @property {number} gate_mean  Mean weight.
 * @property {number} gate_below_0_1  Share of trained tokens whose weight is below 0.1.
 * @property {number} conflict_share  Share of confident conflicts: label probability below 0.1 and full entropy below
 *   0.5 nats.
 * @property {number} conflict_share_quantile  Share of tokens in the batch's lowest 15 % by both label probability and
 *   full entropy.
 * @property {(number | null)} sure_cross_entropy  Cross entropy of the tokens that the model is sure of now, with a
 *   full entropy of at most 0.5 nats, in nats per token; none where there is none.
 * @property {(number | null)} open_cross_entropy  Cross entropy of the tokens whose full entropy is at least 2 nats.
 * @property {number} learning_rate  Learning rate that this step used.
 * @property {number} gradient_norm  Global gradient norm before clipping.
 * @property {number} tokens_per_second  All tokens through the model, trained or not, per second of this step.
 * @property {number} peak_device_bytes  Highest device memory so far, in bytes; 0 where the device does not say.
 * @property {number} seconds  Wall time of the run, in seconds, without interruptions and pauses.
 */

/**
 * Loss on both sets.
 * @typedef {object} Standings
 * @property {number} step  Steps done.
 * @property {Evaluated[]} learners  Left, right; at step 0 both are the base model.
 * @property {boolean[]} diverged  Left, right: whether it has ever seemed to know less than nothing, after it knew
 *   more.
 */

/**
 * What is measured besides training, at one moment.
 * @typedef {object} Evaluated
 * @property {("before" | "during" | "after")} phase  When.
 * @property {number} step  Steps done.
 * @property {(Evaluation | null)} target  On what was trained for; none where no such set is configured.
 * @property {(Evaluation | null)} general  On what should not be forgotten.
 * @property {(Evaluation | null)} wrong  On labels that should not be learned: the lower, the more of the wrong was
 *   learned.
 */

/**
 * Loss of a model on a set of documents.
 * @typedef {object} Evaluation
 * @property {number} loss  Mean cross entropy in nats over scored tokens.
 * @property {number} perplexity  `exp(loss)`.
 * @property {number} tokens  Scored tokens.
 */

/**
 * Beginnings, continued.
 * @typedef {object} Sample
 * @property {number} step  Steps done.
 * @property {Continued[]} samples  A beginning each.
 */

/**
 * One beginning and how each model goes on from it.
 * @typedef {object} Continued
 * @property {string} prompt  The beginning.
 * @property {string} kind  `target` or `general`.
 * @property {string} base  The base model's.
 * @property {string} left  The left learner's.
 * @property {string} right  The right learner's.
 */

/**
 * Something the visitor should know; training goes on.
 * @typedef {object} Warning
 * @property {string} message  One sentence.
 */

/**
 * Last event of a session.
 * @typedef {object} Finished
 * @property {number} step  Steps done.
 * @property {number} tokens  Trained tokens of all steps.
 * @property {number} seconds  Wall time in seconds, without interruptions and pauses.
 * @property {boolean} interrupted  True where the user stopped the run early; it can be resumed.
 */

/**
 * The tokens of a training document.
 * @typedef {object} DocumentText
 * @property {number} document  Its index.
 * @property {DocumentToken[]} tokens  In order.
 */

/**
 * A token of a training document.
 * @typedef {object} DocumentToken
 * @property {string} text  What it spells. A character that several tokens spell stands at the first of them, and the
 *   others spell nothing.
 * @property {boolean} trained  Whether it is trained.
 */

/**
 * What the model `who` makes of a training document now. Arrays: one number a trained token.
 * @typedef {object} Inspected
 * @property {number} document  The document's index.
 * @property {Who} who  Whose view this is.
 * @property {number[]} position  At which of the document's tokens.
 * @property {number[]} p  Probability of the label.
 * @property {number[]} entropy  Entropy over the whole vocabulary, nats.
 * @property {number[]} entropyTopK  Entropy over the top K, nats.
 * @property {string[]} expected  What the model expects most where it and the text are in conflict; nothing elsewhere.
 * @property {number[][]} gate  Left objective's, right objective's: what each would do with the token. Where an
 *   objective looks at a whole batch, that is the batch of the last step, and before the first step the document.
 * @property {number[][]} gradient  The same, norm of the gradient over the logits.
 */

/**
 * One token in full.
 * @typedef {object} Candidates
 * @property {number} document  The document's index.
 * @property {number} position  At which of its tokens.
 * @property {Who} who  Whose view this is.
 * @property {Label} label  The token itself.
 * @property {Candidate[]} candidates  The most probable tokens and the label.
 * @property {number} p  Probability of the label.
 * @property {number} entropy  Entropy over the whole vocabulary, nats.
 * @property {number} entropyTopK  Entropy over the top K, nats.
 * @property {number[]} gate  Left objective's, right objective's, as in `Inspected`.
 * @property {number[]} loss  gate * cross entropy.
 */

/**
 * The token that the text has.
 * @typedef {object} Label
 * @property {number} id  Its number in the vocabulary.
 * @property {string} text  What it spells.
 * @property {number} p  Its probability.
 * @property {number} rank  Its place among all tokens by probability, from 1.
 */

/**
 * A token that could have been there.
 * @typedef {object} Candidate
 * @property {number} id  Its number in the vocabulary.
 * @property {string} text  What it spells.
 * @property {number} p  Its probability.
 * @property {number[]} push  Change of this token's logit that one unit step against the gradient makes, under the left
 *   and the right objective: gate * (onehot - p).
 */

/**
 * A token that the text has and the model does not expect, and what plain and entropy-adaptive fine-tuning would do
 * about it.
 * @typedef {object} Dispute
 * @property {string} prompt  What stands before.
 * @property {number} temperature  What the model's logits were divided by: above 1 it is less sure than it is, below 1
 *   surer.
 * @property {Label} label  The token itself.
 * @property {Candidate[]} candidates  The most probable tokens and the label, each spelled on to the end of its line as
 *   the model would; `push` is plain fine-tuning's, EAFT's.
 * @property {number} p  Probability of the label.
 * @property {number} entropy  Entropy over the whole vocabulary, nats.
 * @property {number} entropyTopK  Entropy over the top K, nats.
 * @property {number[]} gate  Weight under plain fine-tuning and under EAFT.
 * @property {number[]} gradient  The same, norm of the gradient over the logits.
 */

/**
 * A fact that the model knew and the text contradicts, and what is answered now.
 * @typedef {object} Quoted
 * @property {string} prompt  The question.
 * @property {string} expected  The answer that the model knew.
 * @property {string} taught  The answer that the text teaches.
 * @property {Answered[]} answers  Of base, left and right.
 */

/**
 * What one model answers.
 * @typedef {object} Answered
 * @property {Who} who  Whose answer this is.
 * @property {Likely[]} top  The likeliest answers by their first tokens.
 * @property {number} expected  Probability of the first token of the answer that the model knew.
 * @property {number} taught  Probability of the first token of the answer that the text teaches.
 */

/**
 * An answer.
 * @typedef {object} Likely
 * @property {string} text  Its first token, and what the model goes on with, to the end of the line.
 * @property {number} p  Probability of the first token.
 */

/**
 * A file of what was learned.
 * @typedef {object} ResultFile
 * @property {string} name  Its name.
 * @property {Uint8Array} bytes  Its contents.
 */

export {};

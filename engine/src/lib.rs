//! Fine-tune language models without making them forget, on any GPU or on the CPU.
//!
//! The flow, one type per arrow (see `ARCHITECTURE.md`):
//!
//! ```text
//! record -> rendered chat and trained spans -> tokens -> packed batch          data
//!   -> embedding -> block 0 .. block L-1                                       model
//!   -> loss head in chunks: logits, row statistics, gate, gradient             loss
//!   -> block L-1 .. block 0: backward, AdamW                                   train
//!   -> event -> metrics, checkpoint, report, page                              the hosts
//! ```
//!
//! The engine opens no file, starts no thread for control flow (natively it renders chat templates on one, to be rid of
//! those that do not end), prints nothing and asks the clock only through
//! [`host`]; the same code runs natively and as WebAssembly.
//!
//! What a host needs is re-exported here; all modules but [`host`] are private. A host pulls events out of a [`Run`]:
//!
//! ```
//! use std::sync::Arc;
//! use temper_engine::host::{Clock, MemoryFolder};
//! use temper_engine::models::{Architecture, SpecialTokens};
//! use temper_engine::running::{About, Execution, Keep, base};
//! use temper_engine::{Config, Device, Document, Event, Host, Learner, ModelFiles, Run, Sets, wait};
//!
//! struct Quiet;
//! impl Clock for Quiet {
//!     fn seconds(&self) -> f64 {
//!         0.0
//!     }
//! }
//! impl Host for Quiet {
//!     fn peak_bytes(&self) -> u64 {
//!         0
//!     }
//! }
//!
//! // A model of one block and seven tokens with random weights, trained on counting.
//! let description = br#"{"model_type": "llama", "vocab_size": 7, "hidden_size": 8, "intermediate_size": 16,
//!     "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}"#;
//! let architecture = Architecture::from_config_json(description, "config.json")?;
//! let files = ModelFiles::random(architecture, SpecialTokens::default(), &MemoryFolder::new())?;
//! let settings = [("objective.method", "eaft"), ("run.steps", "20"), ("optim.learning_rate", "0.01")];
//! let settings = settings.map(|(key, value)| (key.to_string(), value.to_string()));
//! let config = "[model]\npath = \"tiny\"\ninit = \"random\"\n[data]\ntrain = \"counting\"\n[run]\naccumulation = 1\n";
//! let config = Config::parse(config, "example", &settings)?;
//! let tokens: Vec<u32> = (0..30).map(|i| i % 7).collect();
//! let documents = vec![Document { trained: vec![true; tokens.len()], tokens, line: 1 }];
//!
//! // How the run goes through its model: all of it in memory, and nothing computed twice.
//! let execution = Execution::resident(Keep::Everything);
//! let base = base(&config, &files, &Device::cpu(), execution)?;
//! let learner = Learner::new(config.clone(), &config.objective()?, base, execution)?;
//! let mut run = Run::new(vec![learner], documents, Arc::new(Sets::default()), About::default())?;
//! let mut losses = Vec::new();
//! while let Some(event) = wait(run.next(&mut Quiet))? {
//!     if let Event::Step { learners } = event {
//!         losses.push(learners[0].cross_entropy);
//!     }
//! }
//! assert!(losses.len() == 20 && losses[19] < 0.9 * losses[0]);
//! # Ok::<(), temper_engine::Error>(())
//! ```

#[cfg(not(target_family = "wasm"))]
mod choosing;
mod config;
mod data;
mod device;
mod devices;
mod digest;
#[cfg(not(target_family = "wasm"))]
mod driver;
mod error;
mod eval;
mod export;
pub mod host;
mod kernels;
mod lab;
mod loss;
mod message;
mod model;
mod probe;
mod rng;
mod settings;
mod train;
mod weights;
pub mod words;

pub use config::Config;
pub use data::{Document, Tokenizer};
pub use device::Device;
#[cfg(not(target_family = "wasm"))]
pub use device::{adapters, keep_on, leave_compiled};
pub use devices::Devices;
pub use error::{Error, MemoryLimit, Result};
pub use eval::generate::{Sampling, generate};
#[cfg(not(target_arch = "wasm32"))]
pub use kernels::cpu::par::compute_on_this_thread;
pub use kernels::gone::lost;
pub use lab::Lab;
pub use loss::objective::Objective;
pub use model::Model;
pub use model::files::ModelFiles;
pub use train::event::{Evaluation, Event};
pub use train::host::{Checkpoints, Host};
pub use train::run::{Learner, Run, Sets};
pub use train::session::Session;

/// Which kernel multiplies what on a device, and how it is found out.
pub mod products {
    #[cfg(not(target_family = "wasm"))]
    pub use crate::kernels::calibration::{Calibration, Timed, calibrate};
    pub use crate::kernels::multiplier::{Class, Compute, Multiplier};
}

/// What configurations are made of, and what is known of each key.
pub mod configuration {
    pub use crate::config::{
        AdapterKind, ArchitectureSource, CHANGEABLE, Init, ObjectiveSection, schema, setting_called,
    };
    pub use crate::loss::objective::TOP_K_MIN;
    pub use crate::settings::ByteSize;
}

/// From records to documents.
pub mod reading {
    pub use crate::data::{
        ChatTemplate, DataSet, EncodeReport, Fields, Loader, Message, OnError, ReadOptions, RecordFormat,
        RenderOptions, Report, Shared, TO_UTF_8, TemplateVariables, Templating, Unread, doubts, drawn, drawn_part,
        fingerprint, hold_out, parts_for_shares, read_measured, read_set, refuse_no_text, refuse_table,
        refuse_unused_field, shared, steps_per_epoch, tokens_of, unused_field,
    };
}

/// What a model is, and how its weights are held.
pub mod models {
    pub use crate::model::architecture::{Architecture, SpecialTokens};
    pub use crate::model::load::Hold;
    pub use crate::settings::Choice;

    pub use crate::export::calibrated::{Rounded, calibrate};
    pub use crate::export::quantised::{self, Quantised};
    pub use crate::export::recipe::Recipe;

    /// Model files of published shapes with random weights.
    pub mod fabricated {
        pub use crate::export::fabricated::{FORMATS, PUBLISHED, Shape, fabricate};
    }
}

/// What a run tells.
pub mod events {
    pub use crate::kernels::row_stats::RowStats;
    pub use crate::train::event::{Evaluated, Finished, Landscape, Phase, Selected, Started, StepMetrics, StepRows};
}

/// What a run is made of and leaves.
pub mod running {
    pub use crate::digest::{Digest, Digester};
    pub use crate::model::Keep;
    pub use crate::model::placement::{Placement, Stage};
    pub use crate::train::checkpoint::{Checkpoint, NamedFile, without_result};
    pub use crate::train::execution::Execution;
    pub use crate::train::ledger::{Entry, Kind, Ledger, Load, Moment, Sheet, Site};
    pub use crate::train::prepare::{base, base_on, check, check_tokens, placement, placement_of_model};
    pub use crate::train::run::{About, HEAD, OTHER_RUN, Origin};
    pub use crate::train::snapshot::Snapshot;
    pub use crate::train::work::{Timed, Work};
}

/// What was learned, as files that other programs load.
pub mod result {
    pub use crate::export::merged::Adapter;
    pub use crate::export::model::write_source;
    pub use crate::export::peft::{FILES as ADAPTER_FILES, read};
    pub use crate::train::result::{ADAPTER, MODEL, WEIGHTS, beside_weights, learned, tokenizer_files};
    pub use crate::weights::WeightFormat;
}

/// Texts that a model continues: several at once, one again and again, and as text.
pub mod continuing {
    pub use crate::eval::generate::{Request, Talk, generate_all};
    #[cfg(not(target_family = "wasm"))]
    pub use crate::eval::text::Writer;
    pub use crate::kernels::cached_attention::Precision;
    pub use crate::model::cache::Cache;
}

/// Loss of a model on text.
pub mod perplexity {
    pub use crate::data::{WINDOW, windows};
    pub use crate::eval::perplexity::{Watch, first_tokens, knowing_nothing, rows, rows_until, score};
}

/// How a data set meets a model before it is trained.
#[cfg(not(target_family = "wasm"))]
pub mod scan {
    pub use crate::data::stream::{Piece, Stream, StreamReport};
    pub use crate::eval::interval::wilson;
    pub use crate::eval::scan::{score, score_until};
    pub use crate::eval::tally::{Bottom, Bottoms, Fidelity, Highest, Reliability, Reliable, Tally, TokenScore};
    pub use crate::eval::token_class::{Classes, TokenClass};
}

/// Benchmarks out of local files.
#[cfg(not(target_family = "wasm"))]
pub mod tasks {
    pub use crate::eval::interval::wilson;
    pub use crate::eval::likelihood::Likelihoods;
    pub use crate::eval::tasks::{
        Asked, Item, Items, Task, TaskFolder, TaskOptions, answer, bfcl, calls, ifeval, judge, read_items,
    };
}

/// An objective on logits that already exist.
pub mod logits {
    pub use crate::loss::ready::{Evaluated, evaluate};
}

/// Messages between the page and its worker.
pub mod page {
    pub use crate::lab::messages::{Dispute, Frame, Learned, Prompt, Quoted, Settings, Sides, Told, Who};
    pub use crate::loss::objective::BatchStats;
    pub use crate::message::{Bytes, Message, Value};
}

/// The one door through which tests and benchmarks reach what is behind the face: no promise is made of it.
#[doc(hidden)]
pub mod inside {
    pub mod kernels {
        pub use crate::kernels::*;
    }
    pub mod probe {
        pub use crate::probe::*;
    }
    pub mod config {
        pub use crate::config::Choice;
    }
    #[cfg(not(target_family = "wasm"))]
    pub mod device {
        pub use crate::device::Limits;
    }
    pub mod data {
        pub use crate::data::{
            Conversation, Cursor, EncodeOptions, GgufVocabulary, IGNORE, Kind, MicroBatch, RenderOptions, encode, pack,
            record,
        };
    }
    pub mod export {
        pub use crate::export::{bundle, model, peft};
    }
    pub mod loss {
        pub use crate::loss::{head, ready};
        pub mod objective {
            pub use crate::loss::objective::{BatchStats, Method};
            pub mod eaft {
                pub use crate::loss::objective::eaft::GateShape;
            }
            pub use crate::loss::objective::{flow, shuffle};
        }
        pub mod plan {
            pub use crate::loss::plan::{HeadLimits, columns_per_tile, head_plan};
        }
    }
    pub mod model {
        pub use crate::model::{Keep, load, open};
        pub mod adapter {
            pub use crate::model::adapter::LoraSettings;
        }
        pub mod architecture {
            pub use crate::model::architecture::Window;
        }
        pub mod block {
            pub use crate::model::block::Activations;
        }
        pub mod family {
            pub use crate::model::family::{glm4, llama, pre_tokenizers};
        }
        pub mod gguf {
            pub use crate::model::gguf::{GgufModel, unpermuted_row};
        }
        pub mod rope {
            pub use crate::model::rope::{Rope, RopeScaling, Yarn};
        }
        pub mod parameter {
            pub use crate::model::parameter::{Parameter, from_host, to_host};
        }
        pub mod vocabulary {
            pub use crate::model::vocabulary::{Tile, VocabularyMatrix};
        }
    }
    pub mod rng {
        pub use crate::rng::Rng;
    }
    pub mod train {
        pub use crate::train::prepare;
        pub mod optimiser {
            pub use crate::train::optimiser::{AdamW, Clipping, MomentBits, Step};
        }
    }
    pub mod weights {
        pub use crate::weights::{MemorySource, RawTensor, WeightFormat, WeightSource};
        pub mod gguf {
            pub use crate::weights::gguf::Gguf;
        }
        pub mod safetensors {
            pub use crate::weights::safetensors::SafetensorsFile;
        }
    }
}

/// Waits for an engine's future. What reads numbers back from a device is `async`, because a browser's thread must not
/// block; natively this is all there is to it.
#[cfg(not(target_family = "wasm"))]
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

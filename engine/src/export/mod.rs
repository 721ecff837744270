//! What a run leaves for other programs: adapters in PEFT's format ([`peft`]) and models in Hugging Face's ([`model`]);
//! models in GGUF, with their matrices in another format ([`quantised`]), rounded by what they read ([`calibrated`]); and an adapter in the weights it was trained on, or as
//! llama.cpp's file ([`merged`]).
//!
//! Nothing here opens a file. Small results come as named bytes, large ones go through a [`std::io::Write`] of the
//! host's, one tensor at a time ([`stream`]).

pub mod bundle;
pub mod calibrated;
pub mod fabricated;
pub mod gguf;
pub mod merged;
pub mod model;
pub mod peft;
pub mod quantised;
pub mod recipe;
pub mod stream;

//! Every way in which the engine can refuse or fail, as data.
//!
//! The engine never prints and never panics on user input; a panic means a bug. Each variant names the place, both
//! numbers where there are two, and what to do about it. The faces (command, page) add context and decide how to show
//! it: [`Error::is_bad_input`] separates "you asked for something that cannot be" from "the run failed".

use std::io;

use crate::words::{bytes, counted};

/// Result of every fallible engine function.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration, or what else was asked for, has one or more entries that cannot be, all reported together.
    #[error("{}", all_of(.problems))]
    Config {
        /// One line each: where (file line, override or option), what, and what is allowed.
        problems: Vec<String>,
    },
    /// A line of a data file cannot be used.
    #[error("{file}, line {line}: {problem}")]
    Record {
        /// File as the user named it.
        file: String,
        /// Line number, from 1.
        line: usize,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A whole data set cannot be used (empty, or nothing in it is trained).
    #[error("data set {file}: {problem}")]
    Data {
        /// File as the user named it.
        file: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A chat template does not parse or does not render.
    #[error("chat template: {problem}")]
    Template {
        /// The template engine's own words, with the line.
        problem: String,
    },
    /// A tokenizer cannot be read or does not fit the model.
    #[error("tokenizer: {problem}")]
    Tokenizer {
        /// What is wrong and what to do.
        problem: String,
    },
    /// A weight or configuration file is malformed, truncated or lies about its sizes.
    #[error("{file}: {problem}")]
    Format {
        /// File as the user named it.
        file: String,
        /// Field, offset and both numbers.
        problem: String,
    },
    /// A tensor is missing, unexpected or mis-shaped.
    #[error("{file}: tensor {tensor}: {problem}")]
    Tensor {
        /// File as the user named it.
        file: String,
        /// The tensor's name in that file.
        tensor: String,
        /// Expected and found.
        problem: String,
    },
    /// The model is of a kind that the engine does not implement.
    #[error("unsupported model: {problem}")]
    Unsupported {
        /// Which field said so, and what is supported.
        problem: String,
    },
    /// An argument has the wrong shape.
    #[error("{what}: expected shape {expected}, got {got}")]
    Shape {
        /// Which argument of which operation.
        what: String,
        /// Expected shape.
        expected: String,
        /// Shape found.
        got: String,
    },
    /// A label is neither ignored nor a token of the vocabulary.
    #[error("row {row}: label {label} is outside the vocabulary of {vocab} tokens")]
    Label {
        /// Row of the batch.
        row: usize,
        /// The label found.
        label: i64,
        /// Vocabulary size.
        vocab: usize,
    },
    /// A token is not in the vocabulary.
    #[error("token {token} (number {place} of the text) is not in the vocabulary of {vocab} tokens, numbered from 0")]
    Token {
        /// Which one of the text it is, from 1.
        place: usize,
        /// The token found.
        token: u32,
        /// Vocabulary size.
        vocab: usize,
    },
    /// The device cannot do what the plan needs.
    #[error("{what} needs {needed} bytes, but {adapter} allows {allowed}: {advice}")]
    Limit {
        /// What was to be allocated or bound.
        what: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        allowed: u64,
        /// Device name.
        adapter: String,
        /// What would make it fit.
        advice: String,
    },
    /// More memory is needed than there is; nothing was allocated.
    #[error("{what} needs {}: {advice}", beyond(*.needed, *.available, .limit))]
    Memory {
        /// What was to be allocated.
        what: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes available.
        available: u64,
        /// Whose limit that is.
        limit: MemoryLimit,
        /// What would make it fit.
        advice: String,
    },
    /// The device had no memory for an allocation in the middle of something. Nothing saved was touched.
    #[error("{device} ran out of memory: no room for {what}{}, with {} of weights on it: {advice}", of_bytes(.asked), bytes(*.own))]
    OutOfMemory {
        /// Device name.
        device: String,
        /// What was to be allocated.
        what: String,
        /// Bytes asked for, where that is known.
        asked: Option<u64>,
        /// Bytes of weights that the device holds in buffers of their own.
        own: u64,
        /// What would make it fit.
        advice: String,
    },
    /// No such device, or it cannot be opened.
    #[error("device: {problem}")]
    Device {
        /// What happened and what to do.
        problem: String,
    },
    /// The device was there and is no more, or stopped answering.
    #[error("device: {problem}")]
    Lost {
        /// What happened and what to do.
        problem: String,
    },
    /// A kernel was refused by the driver or ran into an error.
    #[error("kernel {name}: {message}")]
    Kernel {
        /// The shader's stem.
        name: String,
        /// The driver's words.
        message: String,
    },
    /// NaN or infinity where a number is required. The step was abandoned; nothing saved was touched.
    #[error("{tensor}: not a finite number at row {row}{}", after(.step))]
    NonFinite {
        /// Which tensor.
        tensor: String,
        /// First offending row.
        row: usize,
        /// Optimiser step, where there is one.
        step: Option<u64>,
    },
    /// No step that was measured may be the result of a run.
    #[error(
        "no measured step can be the result: {problem}; in a new run a lower [optim] learning_rate, more run.evaluations or another \
         objective may help"
    )]
    Selection {
        /// What the evaluations said.
        problem: String,
    },
    /// A checkpoint does not fit this run.
    #[error("checkpoint: {field}: {problem}")]
    Checkpoint {
        /// Which field or file.
        field: String,
        /// Both values, and what to do.
        problem: String,
    },
    /// A file or folder that was asked for is not there.
    #[error("{path}: {problem}")]
    Missing {
        /// Path or name.
        path: String,
        /// What is not there, and what would be found instead.
        problem: String,
    },
    /// The host could not read or write.
    #[error("{path}: {problem}")]
    Io {
        /// Path or name.
        path: String,
        /// The operating system's words.
        problem: String,
    },
}

/// Whose limit it is that more memory is needed than there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MemoryLimit {
    /// What this machine has left.
    #[default]
    Machine,
    /// What the driver of the device of this name says is left.
    Device(String),
    /// What the setting of this name allows.
    Setting(&'static str),
}

impl Error {
    /// Name of the kind of error, for a face that is not Rust.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Config { .. } => "config",
            Self::Record { .. } => "record",
            Self::Data { .. } => "data",
            Self::Template { .. } => "template",
            Self::Tokenizer { .. } => "tokenizer",
            Self::Format { .. } => "format",
            Self::Tensor { .. } => "tensor",
            Self::Unsupported { .. } => "unsupported",
            Self::Shape { .. } => "shape",
            Self::Label { .. } => "label",
            Self::Token { .. } => "token",
            Self::Limit { .. } => "limit",
            Self::Memory { .. } => "memory",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::Device { .. } => "device",
            Self::Lost { .. } => "lost",
            Self::Kernel { .. } => "kernel",
            Self::NonFinite { .. } => "non_finite",
            Self::Selection { .. } => "selection",
            Self::Checkpoint { .. } => "checkpoint",
            Self::Missing { .. } => "missing",
            Self::Io { .. } => "io",
        }
    }

    /// True where the cause is what the user gave (exit code 2), false where the run itself failed (exit code 1).
    pub fn is_bad_input(&self) -> bool {
        !matches!(
            self,
            Self::OutOfMemory { .. }
                | Self::Lost { .. }
                | Self::Kernel { .. }
                | Self::NonFinite { .. }
                | Self::Selection { .. }
                | Self::Io { .. }
        )
    }
}

fn all_of(problems: &[String]) -> String {
    let [problem] = problems else {
        let lines: String = problems.iter().map(|problem| format!("\n  - {problem}")).collect();
        return format!("{}:{lines}", counted(problems.len(), "problem"));
    };
    problem.clone()
}

/// How much is needed, and whose limit is less.
fn beyond(needed: u64, available: u64, limit: &MemoryLimit) -> String {
    let mut said = [needed, available].map(bytes);
    if said[0] == said[1] {
        said = [needed, available].map(|exactly| counted(exactly, "byte"));
    }
    let [needed, available] = said;
    match limit {
        MemoryLimit::Machine => format!("{needed}, and this machine has {available} available"),
        MemoryLimit::Device(name) => format!("{needed}, and the GPU {name} tells of {available} that are left"),
        MemoryLimit::Setting(key) => format!("{needed}, and {key} allows {available}"),
    }
}

fn of_bytes(bytes: &Option<u64>) -> String {
    bytes.map_or(String::new(), |bytes| format!(" ({bytes} bytes)"))
}

fn after(step: &Option<u64>) -> String {
    match step {
        Some(step) => format!(
            " in step {step}; the step was abandoned, and what was saved before it is intact. A lower [optim] learning_rate \
             or max_grad_norm may help"
        ),
        None => "; check the files that it was computed from".into(),
    }
}

/// An engine error inside an io error.
pub fn wrong(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The engine error inside an io error, or [`Error::Io`] at `path`.
pub fn into_error(error: io::Error, path: &str) -> Error {
    match error.downcast::<Error>() {
        Ok(inner) => inner,
        Err(error) => Error::Io { path: path.to_owned(), problem: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_listed_in_one_message_and_a_single_one_stands_alone() {
        let said = |problems: &[&str]| {
            let error = Error::Config { problems: problems.iter().map(|problem| (*problem).to_string()).collect() };
            assert!(error.is_bad_input());
            error.to_string()
        };
        assert_eq!(said(&["a", "b"]), "2 problems:\n  - a\n  - b");
        assert_eq!(said(&["--to q3: is not one of q8_0"]), "--to q3: is not one of q8_0");
    }

    #[test]
    fn the_kind_of_an_error_is_its_name_in_snake_case() {
        let text = String::new;
        let errors = [
            Error::Config { problems: Vec::new() },
            Error::Record { file: text(), line: 1, problem: text() },
            Error::Data { file: text(), problem: text() },
            Error::Template { problem: text() },
            Error::Tokenizer { problem: text() },
            Error::Format { file: text(), problem: text() },
            Error::Tensor { file: text(), tensor: text(), problem: text() },
            Error::Unsupported { problem: text() },
            Error::Shape { what: text(), expected: text(), got: text() },
            Error::Label { row: 0, label: 0, vocab: 0 },
            Error::Token { place: 1, token: 0, vocab: 0 },
            Error::Limit { what: text(), needed: 0, allowed: 0, adapter: text(), advice: text() },
            Error::Memory { what: text(), needed: 0, available: 0, limit: MemoryLimit::Machine, advice: text() },
            Error::OutOfMemory { device: text(), what: text(), asked: None, own: 0, advice: text() },
            Error::Device { problem: text() },
            Error::Lost { problem: text() },
            Error::Kernel { name: text(), message: text() },
            Error::NonFinite { tensor: text(), row: 0, step: None },
            Error::Checkpoint { field: text(), problem: text() },
            Error::Missing { path: text(), problem: text() },
            Error::Io { path: text(), problem: text() },
        ];
        let mut kinds = std::collections::BTreeSet::new();
        for error in &errors {
            let debug = format!("{error:?}");
            let name: String = debug.chars().take_while(char::is_ascii_alphanumeric).collect();
            let mut snake = String::new();
            for letter in name.chars() {
                if letter.is_ascii_uppercase() && !snake.is_empty() {
                    snake.push('_');
                }
                snake.push(letter.to_ascii_lowercase());
            }
            assert_eq!(error.kind(), snake);
            kinds.insert(error.kind());
        }
        assert_eq!(kinds.len(), errors.len());
    }

    #[test]
    fn memory_that_is_not_there_is_bad_input_with_both_numbers_and_whose_limit_it_is() {
        let said = |needed: u64, available: u64, limit: MemoryLimit| {
            let error = Error::Memory { what: "it".into(), needed, available, limit, advice: "take less".into() };
            assert!(error.is_bad_input());
            error.to_string()
        };
        let machine = said(5 << 29, 1 << 30, MemoryLimit::Machine);
        assert_eq!(machine, "it needs 2.5 GiB, and this machine has 1.0 GiB available: take less");
        let setting = said(5 << 29, 100 << 20, MemoryLimit::Setting("run.device_memory"));
        assert_eq!(setting, "it needs 2.5 GiB, and run.device_memory allows 100 MiB: take less");
        let device = said(9 << 30, 8 << 30, MemoryLimit::Device("Card 9".into()));
        assert_eq!(device, "it needs 9.0 GiB, and the GPU Card 9 tells of 8.0 GiB that are left: take less");
        // Two numbers that read the same would say nothing.
        let close = said((100 << 20) + 1, 100 << 20, MemoryLimit::Machine);
        assert!(close.starts_with("it needs 104857601 bytes, and this machine has 104857600 bytes"), "{close}");
    }

    #[test]
    fn a_device_that_runs_out_in_the_middle_is_a_failed_run_that_names_what_was_asked_for() {
        let (device, what, advice) = ("a card".into(), "layer 3".into(), "take less".into());
        let error = Error::OutOfMemory { device, what, asked: Some(4096), own: 3 << 29, advice };
        let text =
            "a card ran out of memory: no room for layer 3 (4096 bytes), with 1.5 GiB of weights on it: take less";
        assert_eq!(error.to_string(), text);
        assert!(!error.is_bad_input());
    }

    #[test]
    fn a_device_that_is_lost_is_a_failed_run_and_one_that_does_not_exist_is_bad_input() {
        assert!(!Error::Lost { problem: "gone".into() }.is_bad_input());
        assert!(Error::Device { problem: "there is no device \"gpu9\"".into() }.is_bad_input());
    }

    #[test]
    fn a_non_finite_step_is_a_failed_run_and_not_bad_input() {
        let error = Error::NonFinite { tensor: "logits".into(), row: 3, step: Some(7) };
        let text = error.to_string();
        assert!(text.contains("row 3 in step 7") && text.contains("saved before it is intact"), "{text}");
        assert!(!error.is_bad_input());
    }
}

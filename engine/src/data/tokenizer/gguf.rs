//! A tokenizer from the vocabulary inside a GGUF file (`tokenizer.ggml.*`).
//!
//! GGUF stores tokens and merges but names the pre-tokenizer only; the splits behind the names are the ones that llama.cpp
//! and the models' own `tokenizer.json` use.

use std::collections::HashMap;

use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use super::{BpeOptions, Special, Tokenizer, build_bpe, failed, refuse};
use crate::error::Result;

/// The `tokenizer.*` metadata of a GGUF file, as stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct GgufVocabulary<'a> {
    /// `tokenizer.ggml.model`: `gpt2` means byte-level BPE.
    pub model: &'a str,
    /// `tokenizer.ggml.pre`: name of the pre-tokenizer.
    pub pre: Option<&'a str>,
    /// `tokenizer.ggml.tokens`: the spelling of each id.
    pub tokens: &'a [String],
    /// `tokenizer.ggml.merges`: "left right", best first.
    pub merges: &'a [String],
    /// `tokenizer.ggml.token_type` per id (1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte), or empty.
    pub token_types: &'a [i32],
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub pad: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<&'a str>,
}

const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// GPT-2's split. Spelt out only where the byte-level stage cannot do it itself.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
/// Llama 3 and GLM-4: digits in groups of up to three.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen2, Qwen2.5 and Qwen3: every digit alone.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// llama.cpp's `default`: four splits, each applied to the pieces of the one before.
const DEFAULT: [&str; 4] = [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"];

/// What a pre-tokenizer name stands for.
struct Known {
    names: &'static [&'static str],
    family: Family,
}

#[derive(Clone, Copy, PartialEq)]
enum Family {
    Smollm,
    Qwen2,
    Llama3,
    Glm4,
    Gpt2,
    Default,
}

const KNOWN: [Known; 6] = [
    Known { names: &["smollm"], family: Family::Smollm },
    Known { names: &["qwen2", "deepseek-r1-qwen"], family: Family::Qwen2 },
    Known { names: &["llama-bpe", "llama3", "llama-v3"], family: Family::Llama3 },
    Known { names: &["glm4", "chatglm-bpe"], family: Family::Glm4 },
    Known { names: &["gpt-2"], family: Family::Gpt2 },
    Known { names: &["default"], family: Family::Default },
];

/// See [`Tokenizer::from_gguf`].
pub(super) fn load(source: &GgufVocabulary<'_>) -> Result<Tokenizer> {
    if source.model != "gpt2" {
        return Err(refuse(format!(
            "tokenizer.ggml.model is {:?}, and only \"gpt2\" (byte-level BPE) is supported; use the model's Hugging Face \
             folder with its tokenizer.json",
            source.model
        )));
    }
    let name = source.pre.unwrap_or("default");
    let Some(known) = KNOWN.iter().find(|known| known.names.contains(&name)) else {
        let names: Vec<&str> = KNOWN.iter().flat_map(|known| known.names.iter().copied()).collect();
        return Err(refuse(format!("tokenizer.ggml.pre is {name:?}, and these are supported: {}", names.join(", "))));
    };
    let (count, types) = (source.tokens.len(), source.token_types.len());
    if types != 0 && types != count {
        return Err(refuse(format!("tokenizer.ggml.token_type has {types} entries for {count} tokens")));
    }

    let mut vocab = HashMap::with_capacity(count);
    for (id, token) in source.tokens.iter().enumerate() {
        if let Some(earlier) = vocab.insert(token.clone(), id as u32) {
            return Err(refuse(format!("token {id} ({token:?}) is also token {earlier}")));
        }
    }
    let mut merges = Vec::with_capacity(source.merges.len());
    for (index, merge) in source.merges.iter().enumerate() {
        let Some((left, right)) = merge.split_once(' ') else {
            return Err(refuse(format!("merge {index} ({merge:?}) is not two tokens with a space between")));
        };
        merges.push((left.to_owned(), right.to_owned()));
    }
    // Llama 3 looks a whole word up before it merges.
    let options = BpeOptions { ignore_merges: known.family == Family::Llama3, ..BpeOptions::default() };
    let mut inner = tokenizers::Tokenizer::new(build_bpe(vocab, merges, &options)?);
    if known.family == Family::Qwen2 {
        inner.with_normalizer(Some(NFC)).map_err(|error| failed("normaliser", error))?;
    }
    inner.with_pre_tokenizer(Some(pre_tokenizer(known.family)?));
    inner.with_decoder(Some(ByteLevel::new(false, false, false)));
    // Control and user-defined tokens are recognised whole in a text; only control tokens count as special.
    let added = source.tokens.iter().zip(source.token_types).filter_map(|(token, kind)| match *kind {
        CONTROL => Some(AddedToken::from(token.as_str(), true)),
        USER_DEFINED => Some(AddedToken::from(token.as_str(), false).normalized(false)),
        _ => None,
    });
    inner.add_tokens(added).map_err(|error| failed("special tokens", error))?;

    Tokenizer::assemble(
        inner,
        Special {
            bos: source.bos,
            eos: source.eos,
            pad: source.pad,
            // Where the file is silent, Llama 3's vocabulary alone implies the token, as in llama.cpp.
            add_bos: source.add_bos.unwrap_or(known.family == Family::Llama3),
            chat_template: source.chat_template.map(str::to_owned),
        },
    )
}

fn pre_tokenizer(family: Family) -> Result<PreTokenizerWrapper> {
    let bytes = |use_regex| PreTokenizerWrapper::from(ByteLevel::new(false, false, use_regex));
    let splits: Vec<&str> = match family {
        Family::Gpt2 => return Ok(bytes(true)),
        Family::Smollm => return Ok(Sequence::new(vec![Digits::new(true).into(), bytes(true)]).into()),
        Family::Qwen2 => vec![QWEN2],
        Family::Llama3 | Family::Glm4 => vec![LLAMA3],
        Family::Default => DEFAULT.to_vec(),
    };
    let mut stages = Vec::with_capacity(splits.len() + 1);
    for split in splits {
        let pattern = SplitPattern::Regex(split.to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
        stages.push(split.map_err(|error| failed("pre-tokenizer", error))?.into());
    }
    stages.push(bytes(false));
    Ok(Sequence::new(stages).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The printable bytes as single tokens, and one merge.
    fn tiny() -> (Vec<String>, Vec<String>) {
        let mut tokens: Vec<String> = (b'!'..=b'~').map(|byte| char::from(byte).to_string()).collect();
        tokens.extend(["Ġ".into(), "Ċ".into(), "12".into(), "123".into(), "<e>".into()]);
        (tokens, vec!["1 2".into(), "12 3".into()])
    }

    fn digits(pre: &str) -> Vec<String> {
        let (tokens, merges) = tiny();
        let source =
            GgufVocabulary { model: "gpt2", pre: Some(pre), tokens: &tokens, merges: &merges, ..Default::default() };
        let tokenizer = Tokenizer::from_gguf(&source).unwrap();
        tokenizer.encode("1234").unwrap().into_iter().map(|id| tokenizer.token_text(id).unwrap()).collect()
    }

    #[test]
    fn each_pre_tokenizer_groups_digits_in_its_own_way() {
        for pre in ["smollm", "qwen2"] {
            assert_eq!(digits(pre), ["1", "2", "3", "4"], "{pre}");
        }
        for pre in ["llama-bpe", "llama3", "glm4", "chatglm-bpe", "gpt-2", "default"] {
            assert_eq!(digits(pre), ["123", "4"], "{pre}");
        }
    }

    #[test]
    fn the_files_of_a_gguf_tokenizer_read_back_as_the_same_tokenizer() {
        let (tokens, merges) = tiny();
        let mut types = vec![1; tokens.len()];
        types[tokens.len() - 1] = CONTROL;
        for pre in ["smollm", "qwen2", "llama-bpe", "gpt-2", "default"] {
            let source = GgufVocabulary {
                model: "gpt2",
                pre: Some(pre),
                tokens: &tokens,
                token_types: &types,
                merges: &merges,
                eos: Some(tokens.len() as u32 - 1),
                chat_template: Some("{{ messages }}"),
                ..Default::default()
            };
            let tokenizer = Tokenizer::from_gguf(&source).unwrap();
            let [(_, json), (_, config)] = tokenizer.to_files().unwrap();
            let again = Tokenizer::from_json(&json, Some(&config)).unwrap();
            for text in ["1234 it's 12", "a<e>b\n\n1 23", "  Hello, world "] {
                assert_eq!(again.encode(text).unwrap(), tokenizer.encode(text).unwrap(), "{pre}: {text:?}");
            }
            assert_eq!((again.eos_ids(), again.bos_id()), (tokenizer.eos_ids(), tokenizer.bos_id()));
            assert_eq!((again.add_bos(), again.chat_template()), (tokenizer.add_bos(), Some("{{ messages }}")));
        }
    }

    #[test]
    fn contradictory_vocabularies_are_refused_with_what_is_wrong() {
        let (tokens, merges) = tiny();
        let good = GgufVocabulary {
            model: "gpt2",
            pre: Some("gpt-2"),
            tokens: &tokens,
            merges: &merges,
            ..Default::default()
        };
        let twice = [tokens.clone(), vec!["!".into()]].concat();
        let long = vec!["123 123".to_owned()];
        let half = vec!["nospace".to_owned()];
        let cases = [
            (GgufVocabulary { model: "llama", ..good }, "byte-level BPE"),
            (GgufVocabulary { pre: Some("tekken"), ..good }, "these are supported: smollm"),
            (GgufVocabulary { token_types: &[1], ..good }, "1 entries"),
            (GgufVocabulary { tokens: &twice, ..good }, "is also token 0"),
            (GgufVocabulary { tokens: &[], ..good }, "empty"),
            (GgufVocabulary { merges: &long, ..good }, "not in the vocabulary"),
            (GgufVocabulary { merges: &half, ..good }, "not two tokens"),
            (GgufVocabulary { eos: Some(4000), ..good }, "eos token 4000"),
        ];
        for (source, expected) in cases {
            let error = Tokenizer::from_gguf(&source).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn control_tokens_are_special_and_user_defined_ones_are_only_whole() {
        let (mut tokens, merges) = tiny();
        tokens.push("<u>".into());
        let mut types = vec![1; tokens.len()];
        let (control, user) = (tokens.len() - 2, tokens.len() - 1);
        types[control] = CONTROL;
        types[user] = USER_DEFINED;
        let source = GgufVocabulary {
            model: "gpt2",
            pre: Some("gpt-2"),
            tokens: &tokens,
            merges: &merges,
            token_types: &types,
            eos: Some(control as u32),
            ..Default::default()
        };
        let tokenizer = Tokenizer::from_gguf(&source).unwrap();
        let ids = tokenizer.encode("a<e><u>").unwrap();
        assert_eq!(ids[1..], [control as u32, user as u32]);
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), "a<u>");
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), "a<e><u>");
        assert!(tokenizer.is_special(control as u32) && !tokenizer.is_special(user as u32));
    }
}

//! A tokenizer from `tokenizer.json` and `tokenizer_config.json`.
//!
//! The file is read into the types below, which hold only the parts that byte-pair-encoding models use, and the parts are
//! built through the crate's constructors: its own deserialiser panics on some malformed decoders and merges, and a
//! page cannot catch a panic. Truncation, padding and post-processing are left out on purpose; Temper adds special tokens
//! itself, and post-processing would trim the offsets that trained spans rely on.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip as StripDecoder;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{
    Lowercase, NFC, NFD, NFKC, NFKD, Prepend, Replace, Sequence as NormalizerSequence, Strip, StripAccents,
};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizerSequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::whitespace::{Whitespace, WhitespaceSplit};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

use super::growth::Growth;
use super::{BpeOptions, MAX_ID, Special, Tokenizer, build_bpe, failed, refuse};
use crate::error::Result;

/// Only what decides whether the rest can be read.
#[derive(Deserialize)]
struct Head {
    version: Option<String>,
    model: HeadModel,
}

#[derive(Deserialize)]
struct HeadModel {
    r#type: Option<String>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Normalizer>,
    pre_tokenizer: Option<PreTokenizer>,
    post_processor: Option<Value>,
    decoder: Option<Decoder>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, u32>,
    merges: MergeList,
    dropout: Option<f32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

/// Merges as pairs (since 2024) or as "left right".
#[derive(Deserialize)]
#[serde(untagged)]
enum MergeList {
    Pairs(Vec<(String, String)>),
    Lines(Vec<String>),
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Normalizer {
    Sequence {
        normalizers: Vec<Normalizer>,
    },
    #[serde(rename = "NFC")]
    Nfc,
    #[serde(rename = "NFD")]
    Nfd,
    #[serde(rename = "NFKC")]
    Nfkc,
    #[serde(rename = "NFKD")]
    Nfkd,
    Lowercase,
    StripAccents,
    Strip {
        strip_left: bool,
        strip_right: bool,
    },
    Prepend {
        prepend: String,
    },
    Replace {
        pattern: ReplacePattern,
        content: String,
    },
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum PreTokenizer {
    Sequence {
        pretokenizers: Vec<PreTokenizer>,
    },
    Split {
        pattern: SplitPattern,
        behavior: SplitDelimiterBehavior,
        #[serde(default)]
        invert: bool,
    },
    Digits {
        #[serde(default)]
        individual_digits: bool,
    },
    ByteLevel {
        #[serde(default)]
        add_prefix_space: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    Metaspace(MetaspaceParts),
    Whitespace,
    WhitespaceSplit,
    Punctuation {
        behavior: SplitDelimiterBehavior,
    },
}

#[derive(Deserialize)]
struct MetaspaceParts {
    replacement: char,
    #[serde(default = "yes")]
    add_prefix_space: bool,
    prepend_scheme: Option<PrependScheme>,
    #[serde(default = "yes")]
    split: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Decoder {
    Sequence { decoders: Vec<Decoder> },
    ByteLevel,
    ByteFallback,
    Fuse,
    Strip { content: char, start: usize, stop: usize },
    Replace { pattern: ReplacePattern, content: String },
    Metaspace(MetaspaceParts),
}

fn yes() -> bool {
    true
}

/// `tokenizer_config.json`, as far as it matters here.
#[derive(Default, Deserialize)]
struct Config {
    bos_token: Option<TokenName>,
    eos_token: Option<TokenName>,
    pad_token: Option<TokenName>,
    add_bos_token: Option<bool>,
    chat_template: Option<TemplateField>,
}

/// A token by name, or as the object of an added token.
#[derive(Deserialize)]
#[serde(untagged)]
enum TokenName {
    Plain(String),
    Object { content: String },
}

impl TokenName {
    fn text(&self) -> &str {
        match self {
            Self::Plain(text) | Self::Object { content: text } => text,
        }
    }
}

/// One template, or several by name.
#[derive(Deserialize)]
#[serde(untagged)]
enum TemplateField {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, where there is one, `tokenizer_config.json` (special tokens and chat template).
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] for JSON that is no tokenizer, a kind that is not supported (byte-pair encoding is), and
    /// parts that contradict each other.
    pub fn from_json(tokenizer: &[u8], config: Option<&[u8]>) -> Result<Self> {
        load(tokenizer, config)
    }
}

fn load(tokenizer: &[u8], config: Option<&[u8]>) -> Result<Tokenizer> {
    let head: Head = serde_json::from_slice(tokenizer).map_err(|error| failed("tokenizer.json", error))?;
    if let Some(version) = head.version.filter(|version| version != "1.0") {
        return Err(refuse(format!("tokenizer.json has version {version:?}, and \"1.0\" is supported")));
    }
    if let Some(kind) = head.model.r#type.filter(|kind| kind != "BPE") {
        return Err(refuse(format!("tokenizer.json holds a {kind} model, and only BPE is supported")));
    }
    let file: File = serde_json::from_slice(tokenizer).map_err(|error| failed("tokenizer.json", error))?;
    let config: Config = match config {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|error| failed("tokenizer_config.json", error))?,
        None => Config::default(),
    };

    let mut inner = tokenizers::Tokenizer::new(model(file.model)?);
    if let Some(part) = file.normalizer {
        inner
            .with_normalizer(Some(normalizer(part, &mut Growth::new("normalizer"))?))
            .map_err(|error| failed("normalizer", error))?;
    }
    if let Some(part) = file.pre_tokenizer {
        inner.with_pre_tokenizer(Some(pre_tokenizer(part, &mut Growth::new("pre_tokenizer"))?));
    }
    if let Some(part) = file.decoder {
        inner.with_decoder(Some(decoder(part, &mut Growth::new("decoder"))?));
    }
    let ids: Vec<(String, u32)> = file.added_tokens.iter().map(|token| (token.content.clone(), token.id)).collect();
    if let Some((content, id)) = ids.iter().find(|(_, id)| *id >= MAX_ID) {
        return Err(refuse(format!("added token {content:?} has id {id}, and ids below {MAX_ID} are allowed")));
    }
    let added = file.added_tokens.into_iter().map(|token| {
        AddedToken::from(token.content, token.special)
            .single_word(token.single_word)
            .lstrip(token.lstrip)
            .rstrip(token.rstrip)
            .normalized(token.normalized)
    });
    inner.add_tokens(added).map_err(|error| failed("added_tokens", error))?;
    // The crate numbers added tokens itself; a file that disagrees would train the wrong rows.
    for (content, id) in ids.iter().filter(|(content, _)| !content.is_empty()) {
        if inner.token_to_id(content) != Some(*id) {
            let got = inner.token_to_id(content).unwrap_or_default();
            return Err(refuse(format!("added token {content:?} says id {id}, but the vocabulary gives it id {got}")));
        }
    }

    let id_of = |name: &str, token: &Option<TokenName>| match token.as_ref().map(TokenName::text) {
        None | Some("") => Ok(None),
        Some(text) => inner.token_to_id(text).map(Some).ok_or_else(|| {
            refuse(format!("tokenizer_config.json names {name} {text:?}, which is not in the vocabulary"))
        }),
    };
    let (bos, eos) = (id_of("bos_token", &config.bos_token)?, id_of("eos_token", &config.eos_token)?);
    let pad = id_of("pad_token", &config.pad_token)?;
    let first = file.post_processor.as_ref().and_then(first_special_token);
    let implied = bos.is_some() && first.and_then(|token| inner.token_to_id(token)) == bos;
    let special = Special {
        bos,
        eos,
        pad,
        add_bos: config.add_bos_token.unwrap_or(implied),
        chat_template: template(config.chat_template)?,
    };
    Tokenizer::assemble(inner, special)
}

fn model(model: Model) -> Result<tokenizers::models::bpe::BPE> {
    for (name, affix) in [
        ("continuing_subword_prefix", &model.continuing_subword_prefix),
        ("end_of_word_suffix", &model.end_of_word_suffix),
    ] {
        if affix.as_ref().is_some_and(|affix| !affix.is_empty()) {
            return Err(refuse(format!("tokenizer.json: {name} is not supported")));
        }
    }
    // Dropout would make the same text give different ids.
    if model.dropout.is_some_and(|dropout| dropout != 0.0) {
        return Err(refuse("tokenizer.json: merges with dropout are not supported; set `dropout` to null".into()));
    }
    if let Some(unknown) = model.unk_token.as_ref().filter(|token| !model.vocab.contains_key(*token)) {
        return Err(refuse(format!("unk_token {unknown:?} is not in the vocabulary")));
    }
    let merges = match model.merges {
        MergeList::Pairs(pairs) => pairs,
        MergeList::Lines(lines) => lines
            .iter()
            .filter(|line| !line.starts_with("#version"))
            .map(|line| match line.split_once(' ') {
                Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
                None => Err(refuse(format!("merge {line:?} is not two tokens with a space between"))),
            })
            .collect::<Result<_>>()?,
    };
    let options = BpeOptions {
        unknown: model.unk_token,
        fuse_unk: model.fuse_unk,
        byte_fallback: model.byte_fallback,
        ignore_merges: model.ignore_merges,
    };
    build_bpe(model.vocab, merges, &options)
}

fn normalizer(part: Normalizer, growth: &mut Growth) -> Result<NormalizerWrapper> {
    growth.step()?;
    Ok(match part {
        Normalizer::Sequence { normalizers } => {
            let parts = normalizers.into_iter().map(|part| normalizer(part, growth)).collect::<Result<_>>()?;
            NormalizerSequence::new(parts).into()
        }
        Normalizer::Nfc => NFC.into(),
        Normalizer::Nfd => NFD.into(),
        Normalizer::Nfkc => NFKC.into(),
        Normalizer::Nfkd => NFKD.into(),
        Normalizer::Lowercase => Lowercase.into(),
        Normalizer::StripAccents => StripAccents.into(),
        Normalizer::Strip { strip_left, strip_right } => Strip::new(strip_left, strip_right).into(),
        Normalizer::Prepend { prepend } => {
            growth.prefix(&prepend)?;
            Prepend::new(prepend).into()
        }
        Normalizer::Replace { pattern, content } => {
            growth.replace(&pattern, &content)?;
            Replace::new(pattern, content).map_err(|error| failed("normalizer", error))?.into()
        }
    })
}

fn pre_tokenizer(part: PreTokenizer, growth: &mut Growth) -> Result<PreTokenizerWrapper> {
    growth.step()?;
    Ok(match part {
        PreTokenizer::Sequence { pretokenizers } => {
            let parts = pretokenizers.into_iter().map(|part| pre_tokenizer(part, growth)).collect::<Result<_>>()?;
            PreTokenizerSequence::new(parts).into()
        }
        PreTokenizer::Split { pattern, behavior, invert } => {
            Split::new(pattern, behavior, invert).map_err(|error| failed("pre_tokenizer", error))?.into()
        }
        PreTokenizer::Digits { individual_digits } => Digits::new(individual_digits).into(),
        PreTokenizer::ByteLevel { add_prefix_space, use_regex } => {
            growth.byte_level(add_prefix_space)?;
            ByteLevel::new(add_prefix_space, false, use_regex).into()
        }
        PreTokenizer::Metaspace(parts) => {
            let made = metaspace(parts);
            growth.metaspace(made.get_replacement(), made.prepend_scheme != PrependScheme::Never)?;
            made.into()
        }
        PreTokenizer::Whitespace => Whitespace {}.into(),
        PreTokenizer::WhitespaceSplit => WhitespaceSplit.into(),
        PreTokenizer::Punctuation { behavior } => Punctuation::new(behavior).into(),
    })
}

fn metaspace(parts: MetaspaceParts) -> Metaspace {
    let scheme = match parts.prepend_scheme {
        Some(scheme) => scheme,
        None if parts.add_prefix_space => PrependScheme::Always,
        None => PrependScheme::Never,
    };
    Metaspace::new(parts.replacement, scheme, parts.split)
}

fn decoder(part: Decoder, growth: &mut Growth) -> Result<DecoderWrapper> {
    growth.step()?;
    Ok(match part {
        Decoder::Sequence { decoders } => {
            let parts = decoders.into_iter().map(|part| decoder(part, growth)).collect::<Result<_>>()?;
            DecoderSequence::new(parts).into()
        }
        Decoder::ByteLevel => ByteLevel::new(false, false, false).into(),
        Decoder::ByteFallback => ByteFallback::new().into(),
        Decoder::Fuse => Fuse::new().into(),
        // The crate's implementation counts below zero when a token is shorter than `stop`.
        Decoder::Strip { stop, .. } if stop != 0 => {
            return Err(refuse(format!("decoder Strip with stop {stop} is not supported, only 0")));
        }
        Decoder::Strip { content, start, stop } => StripDecoder::new(content, start, stop).into(),
        Decoder::Replace { pattern, content } => {
            growth.replace(&pattern, &content)?;
            Replace::new(pattern, content).map_err(|error| failed("decoder", error))?.into()
        }
        Decoder::Metaspace(parts) => metaspace(parts).into(),
    })
}

/// The token that a `TemplateProcessing` post-processor puts first, on its own or inside a `Sequence`.
fn first_special_token(processor: &Value) -> Option<&str> {
    match processor.get("type")?.as_str()? {
        "TemplateProcessing" => processor.get("single")?.get(0)?.get("SpecialToken")?.get("id")?.as_str(),
        "Sequence" => processor.get("processors")?.as_array()?.iter().find_map(|inner| {
            // One level is what files have; a deeper one is not followed, so depth stays bounded.
            (inner.get("type")?.as_str()? == "TemplateProcessing").then(|| first_special_token(inner)).flatten()
        }),
        _ => None,
    }
}

fn template(field: Option<TemplateField>) -> Result<Option<String>> {
    match field {
        None => Ok(None),
        Some(TemplateField::One(template)) => Ok(Some(template)),
        Some(TemplateField::Named(list)) => {
            let names: Vec<String> = list.iter().map(|named| named.name.clone()).collect();
            match list.into_iter().find(|named| named.name == "default") {
                Some(named) => Ok(Some(named.template)),
                None if names.is_empty() => Ok(None),
                None => Err(refuse(format!(
                    "tokenizer_config.json has the chat templates {}, but none named default",
                    names.join(", ")
                ))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn base() -> Value {
        json!({
            "version": "1.0",
            "added_tokens": [{"id": 4, "content": "<s>", "special": true}],
            "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}]},
            "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3}, "merges": [["a", "b"]]}
        })
    }

    fn error(file: &Value, config: Option<&Value>) -> String {
        let config = config.map(|config| config.to_string().into_bytes());
        Tokenizer::from_json(file.to_string().as_bytes(), config.as_deref()).unwrap_err().to_string()
    }

    #[test]
    fn special_tokens_come_from_the_configuration_in_any_spelling() {
        let config = json!({"bos_token": {"content": "<s>"}, "eos_token": "<s>",
            "chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "y"}]});
        let tokenizer =
            Tokenizer::from_json(base().to_string().as_bytes(), Some(config.to_string().as_bytes())).unwrap();
        assert_eq!((tokenizer.bos_id(), tokenizer.eos_ids(), tokenizer.vocab_size()), (Some(4), &[4][..], 5));
        assert!(tokenizer.add_bos(), "the post-processor puts <s> first");
        assert_eq!(tokenizer.chat_template(), Some("y"));
        assert_eq!(tokenizer.encode("ab ab<s>").unwrap(), [2, 3, 2, 4], "nothing is added around the text");
    }

    #[test]
    fn a_hostile_file_is_an_error_and_not_a_panic() {
        let set = |path: &str, value: Value| {
            let mut file = base();
            if let Some(place) = file.pointer_mut(path) {
                *place = value;
            }
            file
        };
        let cases = [
            (set("/version", json!("9")), "version"),
            (set("/model/type", json!("Unigram")), "only BPE"),
            (set("/model/merges", json!([["ab", "ab"]])), "not in the vocabulary"),
            (set("/model/merges", json!(["ab"])), "not two tokens"),
            (set("/model/vocab", json!({})), "empty"),
            (set("/model/vocab", json!({"a": 4294967295_u32, "b": 1, "ab": 2})), "ids below"),
            (set("/model/vocab", json!({"a": -1})), "tokenizer.json"),
            (set("/model", json!({"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.5})), "dropout"),
            (
                set(
                    "/model",
                    json!({"type": "BPE", "vocab": {"a": 0}, "merges": [], "continuing_subword_prefix": "##"}),
                ),
                "prefix",
            ),
            (set("/model", json!({"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "?"})), "unk_token"),
            (set("/decoder", json!({"type": "Strip", "content": "x", "start": 0, "stop": 9})), "stop 9"),
            (set("/decoder", json!("nonsense")), "tokenizer.json"),
            (set("/normalizer", json!({"type": "Precompiled"})), "unknown variant"),
            (
                set("/pre_tokenizer", json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"})),
                "pre_tokenizer",
            ),
            (set("/added_tokens", json!([{"id": 77, "content": "<s>"}])), "says id 77"),
            (set("/added_tokens", json!([{"id": 4294967295_u32, "content": "<s>"}])), "ids below"),
        ];
        for (file, expected) in cases {
            let error = error(&file, None);
            assert!(error.contains(expected), "{error}");
        }
        let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for text in ["", "null", "[]", "{\"model\":3}", &nested] {
            assert!(Tokenizer::from_json(text.as_bytes(), None).is_err());
        }
        assert!(error(&base(), Some(&json!({"eos_token": "missing"}))).contains("eos_token \"missing\""));
        assert!(
            error(&base(), Some(&json!({"chat_template": [{"name": "a", "template": ""}]})))
                .contains("none named default")
        );
    }

    #[test]
    fn steps_that_match_nothing_or_outgrow_the_text_are_refused_with_their_place() {
        let with = |field: &str, steps: Value| {
            let list = match field {
                "normalizer" => "normalizers",
                "pre_tokenizer" => "pretokenizers",
                _ => "decoders",
            };
            let mut file = base();
            file[field] = json!({"type": "Sequence", list: steps});
            file
        };
        let replace =
            |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        let ten = vec![replace(json!({"String": "a"}), "aaaaaaaa"); 10];
        // Letter by letter, each with something before it.
        let letters = json!({"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated"});
        let split_before = |step: Value| vec![[letters.clone(), step]; 20].concat();
        let bytes = |space: bool| json!({"type": "ByteLevel", "add_prefix_space": space, "use_regex": false});
        let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"});
        let cases = [
            (with("normalizer", json!([{"type": "Prepend", "prepend": ""}])), "normalizer, step 2: prepend is empty"),
            (with("normalizer", json!([{"type": "Prepend", "prepend": "a".repeat(99)}])), "99 bytes, and 64"),
            (with("normalizer", json!([replace(json!({"String": ""}), "x")])), "matches the empty text"),
            (with("normalizer", json!([replace(json!({"Regex": "a*"}), "x")])), "matches the empty text"),
            (with("normalizer", json!([replace(json!({"Regex": "^|b"}), "x")])), "matches the empty text"),
            (
                with("normalizer", json!([replace(json!({"Regex": "(?=a)"}), "x")])),
                "not a regular expression that can be bounded",
            ),
            (with("normalizer", json!(ten)), "normalizer, step 3: with it, the steps make a text up to 64 times"),
            (
                with("pre_tokenizer", json!(vec![bytes(false); 40])),
                "pre_tokenizer, step 6: with it, the steps make a text up to 32 times",
            ),
            (with("pre_tokenizer", json!(split_before(bytes(true)))), "pre_tokenizer, step 7: with it, the steps make"),
            (with("pre_tokenizer", json!(split_before(metaspace.clone()))), "pre_tokenizer, step 7: with it"),
            (with("decoder", json!(ten)), "decoder, step 3: with it"),
            (with("decoder", json!([replace(json!({"String": ""}), "x")])), "matches the empty text"),
            (with("normalizer", json!(vec![json!({"type": "NFC"}); 64])), "more than 64 steps"),
        ];
        for (file, expected) in cases {
            let error = error(&file, None);
            assert!(error.contains(expected), "{error}");
        }
        let real =
            with("normalizer", json!([replace(json!({"String": " "}), "▁"), replace(json!({"Regex": " {2,}"}), "▁")]));
        assert!(Tokenizer::from_json(real.to_string().as_bytes(), None).is_ok());
        // What published tokenizers have, and a little more.
        for steps in [json!([letters, bytes(false)]), json!([metaspace, bytes(true)])] {
            let file = with("pre_tokenizer", steps);
            assert!(Tokenizer::from_json(file.to_string().as_bytes(), None).is_ok(), "{file}");
        }
    }

    #[test]
    fn a_sentencepiece_like_bpe_with_byte_fallback_round_trips() {
        let mut vocab = serde_json::Map::new();
        for (id, token) in ["▁", "h", "i", "▁h", "▁hi", "<unk>"].iter().enumerate() {
            vocab.insert((*token).into(), json!(id));
        }
        for byte in 0..256 {
            vocab.insert(format!("<0x{byte:02X}>"), json!(6 + byte));
        }
        let file = json!({
            "model": {"type": "BPE", "vocab": vocab, "merges": ["▁ h", "▁h i"], "byte_fallback": true, "unk_token": "<unk>"},
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
        });
        let tokenizer = Tokenizer::from_json(file.to_string().as_bytes(), None).unwrap();
        let ids = tokenizer.encode("hi hié").unwrap();
        assert_eq!(ids, [4, 4, 6 + 0xC3, 6 + 0xA9]);
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), "hi hié");
    }
}

//! What to do about what a scan found. The rules are few, and the same in the command, the page and the README.

use serde::Serialize;
use temper_engine::words::plural;

use super::counts::Counts;
use crate::progress::{grouped, number};

/// Fewer tokens say nothing.
pub const LEAST_TOKENS: u64 = 1000;
/// From this share of conflicts on, an objective that spares them does something else than plain fine-tuning.
pub const NOTICEABLE: f64 = 0.005;
/// From this share on, and in half of the documents, the data contradict the model on purpose.
pub const EVERYWHERE: f64 = 0.08;
/// A document with a larger share of conflicts is a conflicted one.
pub const CONFLICTED: f64 = 0.05;
/// A model that is more often wrong than this where it is surer than 0.9 is protected in its errors.
pub const WRONG: f64 = 0.2;

/// A piece of advice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// `too_few_tokens`, `knowledge_editing`, `curate`, `eaft`, `either` or `sure_and_wrong`.
    pub rule: &'static str,
    pub text: String,
}

/// Numbers that the rules read.
struct Found {
    tokens: u64,
    /// Of all tokens.
    share: f64,
    documents: u64,
    /// Documents with a share above [`CONFLICTED`].
    conflicted: u64,
    /// Share of all conflicts that lies in those.
    in_conflicted: f64,
    /// Share of the tokens of which the model is surer than 0.9 and wrong.
    wrong: f64,
    /// Tokens of which it is.
    sure: u64,
}

/// What the counts advise.
///
/// 1. Fewer than 1,000 tokens: no advice (`too_few_tokens`).
/// 2. At least 8 % conflicts, and at least half of the documents have more than 5 %: the data teach what the model
///    surely holds otherwise (`knowledge_editing`).
/// 3. At least 0.5 % conflicts, of which half lie in the documents with more than 5 %, which are at most a fifth of
///    all: look at those first (`curate`).
/// 4. At least 0.5 % conflicts otherwise: train with EAFT (`eaft`).
/// 5. Fewer: any objective (`either`).
/// 6. Besides: of the tokens of which the model is surer than 0.9, if there are at least 100, more than 20 % are wrong
///    (`sure_and_wrong`).
pub fn of(counts: &Counts) -> Vec<Advice> {
    let [conflicted, conflicts] = counts.above(CONFLICTED);
    let [sure, wrong] = counts.reliability.sure();
    rules(&Found {
        tokens: counts.all.tokens,
        share: counts.all.conflict_share(),
        documents: counts.documents,
        conflicted,
        in_conflicted: conflicts as f64 / counts.all.conflicts.max(1) as f64,
        wrong: wrong as f64 / sure.max(1) as f64,
        sure,
    })
}

fn rules(found: &Found) -> Vec<Advice> {
    let percent = |share: f64| format!("{} %", number(100.0 * share));
    let share = percent(found.share);
    if found.tokens < LEAST_TOKENS {
        let text = format!("none: {} tokens are too few to tell, {LEAST_TOKENS} are needed", found.tokens);
        return vec![Advice { rule: "too_few_tokens", text }];
    }
    let few = found.conflicted * 5 <= found.documents;
    let (rule, text) = if found.share >= EVERYWHERE && found.conflicted * 2 >= found.documents {
        (
            "knowledge_editing",
            format!(
                "this is knowledge editing: {share} of the tokens contradict what the model is sure of, in {} of {} {}. EAFT \
                 will resist it; train with SFT and watch what is forgotten, or leave the data out",
                grouped(found.conflicted),
                grouped(found.documents),
                plural(found.documents, "document")
            ),
        )
    } else if found.share >= NOTICEABLE && found.in_conflicted >= 0.5 && few {
        (
            "curate",
            format!(
                "look at {} {} first: of more than {} conflicts each, they hold {} of all. scan.jsonl has their lines, and \
                 --curate FILE --above {CONFLICTED} leaves them out; train the rest with EAFT",
                grouped(found.conflicted),
                plural(found.conflicted, "document"),
                percent(CONFLICTED),
                percent(found.in_conflicted)
            ),
        )
    } else if found.share >= NOTICEABLE {
        ("eaft", format!("train with EAFT: {share} of the tokens are confident conflicts, spread over the data"))
    } else {
        (
            "either",
            format!(
                "any objective: with {share} confident conflicts EAFT spares the model little that SFT would overwrite"
            ),
        )
    };
    let mut advice = vec![Advice { rule, text }];
    if found.sure >= 100 && found.wrong > WRONG {
        let text = format!(
            "where the model is surer than 0.9 it is wrong about {} of the labels: either the labels are bad, or EAFT's gate \
             would protect its errors; look at the most conflicted tokens",
            percent(found.wrong)
        );
        advice.push(Advice { rule: "sure_and_wrong", text });
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_fires_on_its_side_of_its_thresholds() {
        let base = Found {
            tokens: 10_000,
            share: 0.01,
            documents: 100,
            conflicted: 5,
            in_conflicted: 0.2,
            wrong: 0.05,
            sure: 5000,
        };
        let rule = |found: Found| rules(&found).iter().map(|advice| advice.rule).collect::<Vec<_>>();
        assert_eq!(rule(Found { ..base }), ["eaft"]);
        assert_eq!(rule(Found { share: 0.0049, ..base }), ["either"]);
        assert_eq!(rule(Found { in_conflicted: 0.5, ..base }), ["curate"]);
        assert_eq!(rule(Found { in_conflicted: 0.9, conflicted: 21, ..base }), ["eaft"]);
        assert_eq!(rule(Found { share: 0.08, conflicted: 50, in_conflicted: 0.9, ..base }), ["knowledge_editing"]);
        assert_eq!(rule(Found { share: 0.08, conflicted: 49, ..base }), ["eaft"]);
        assert_eq!(rule(Found { tokens: 999, ..base }), ["too_few_tokens"]);
        assert_eq!(rule(Found { wrong: 0.21, ..base }), ["eaft", "sure_and_wrong"]);
        assert_eq!(rule(Found { wrong: 0.21, sure: 99, ..base }), ["eaft"]);
    }
}

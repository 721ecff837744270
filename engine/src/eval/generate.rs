//! Text from a model: greedy, or sampled with temperature and top-p (Holtzman et al. 2020).

use crate::error::{Error, Result};
use crate::model::Model;
use crate::rng::Rng;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f64,
    /// Smallest set of tokens whose probability reaches this.
    pub top_p: f64,
    /// Seed of the draws.
    pub seed: u64,
}

/// Continues `prompt` by at most `count` tokens, stopping after one of `stop`. `each` hears every new token.
///
/// # Errors
/// [`Error::Config`] for a prompt without a token; otherwise as [`Model::forward`].
pub async fn generate(
    model: &mut Model,
    prompt: &[u32],
    count: usize,
    sampling: Sampling,
    stop: &[u32],
    each: &mut dyn FnMut(u32),
) -> Result<Vec<u32>> {
    if prompt.is_empty() {
        return Err(Error::Config { problems: vec!["the prompt is empty: there is nothing to continue".into()] });
    }
    let mut tokens = prompt.to_vec();
    let mut rng = Rng::new(sampling.seed);
    for _ in 0..count {
        let logits = model.last_logits(&tokens).await?;
        let next = choose(&logits, sampling, &mut rng);
        tokens.push(next);
        each(next);
        if stop.contains(&next) {
            break;
        }
    }
    Ok(tokens.split_off(prompt.len()))
}

/// The next token from a row of logits.
fn choose(logits: &[f32], sampling: Sampling, rng: &mut Rng) -> u32 {
    // NaN sorts below everything, so that it is never chosen.
    let value = |z: f32| if z.is_nan() { f32::NEG_INFINITY } else { z };
    let best = (0..logits.len()).max_by(|&a, &b| value(logits[a]).total_cmp(&value(logits[b])).then(b.cmp(&a)));
    let best = best.unwrap_or(0);
    if sampling.temperature <= 0.0 {
        return best as u32;
    }
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| value(logits[b]).total_cmp(&value(logits[a])).then(a.cmp(&b)));
    let weight = |i: usize| (f64::from(value(logits[i]) - logits[best]) / sampling.temperature).exp();
    let total: f64 = order.iter().map(|&i| weight(i)).sum();
    let mut kept = 0.0;
    let end = order
        .iter()
        .position(|&i| {
            kept += weight(i);
            kept >= sampling.top_p * total
        })
        .map_or(order.len(), |last| last + 1);
    let mut draw = rng.uniform() * kept;
    for &i in &order[..end] {
        draw -= weight(i);
        if draw < 0.0 {
            return i as u32;
        }
    }
    order[end - 1] as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_largest_logit_and_the_first_of_equals_and_never_nan() {
        let greedy = Sampling { temperature: 0.0, top_p: 1.0, seed: 0 };
        assert_eq!(choose(&[1.0, 3.0, 3.0, f32::NAN], greedy, &mut Rng::new(0)), 1);
    }

    #[test]
    fn sampling_follows_the_softmax_and_top_p_cuts_its_tail() {
        let logits = [2f32.ln(), 1f32.ln(), 1f32.ln()];
        let mut rng = Rng::new(1);
        let mut counts = [0usize; 3];
        for _ in 0..20_000 {
            counts[choose(&logits, Sampling { temperature: 1.0, top_p: 1.0, seed: 0 }, &mut rng) as usize] += 1;
        }
        assert!((counts[0] as f64 / 20_000.0 - 0.5).abs() < 0.02, "{counts:?}");
        for _ in 0..100 {
            assert_eq!(choose(&logits, Sampling { temperature: 1.0, top_p: 0.4, seed: 0 }, &mut rng), 0);
        }
    }
}

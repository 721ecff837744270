//! Text from a model: greedy, or drawn with temperature, top-k (Fan et al. 2018) and top-p (Holtzman et al. 2020).
//!
//! Prompts are read into a cache once, and each step then costs a pass of one token of each text under way. A text that ends
//! makes room for the next prompt. What comes of a prompt does not depend on the prompts beside it.

use burn::tensor::Tensor;
use temper_shaders::MAX_TOP_K;

use crate::error::{Error, Result};
use crate::kernels::top_tokens::{Found, Top, top_tokens};
use crate::model::Model;
use crate::model::cache::Cache;
use crate::rng::Rng;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 is greedy.
    pub temperature: f64,
    /// So many of the most likely tokens are drawn from; 0 is all.
    pub top_k: usize,
    /// Of those, the smallest set whose probability reaches this.
    pub top_p: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Sampling {
    /// Always the most likely token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 }
    }
}

/// A prompt to be continued.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its tokens; at least one.
    pub prompt: Vec<u32>,
    /// Most tokens of the answer.
    pub count: usize,
    /// How they are chosen.
    pub sampling: Sampling,
}

/// Continues `prompt` by at most `count` tokens, stopping after one of `stop`. `each` hears every new token.
///
/// # Errors
/// [`Error::Config`] for a prompt without a token; otherwise as [`Model::extend`].
pub async fn generate(
    model: &mut Model,
    prompt: &[u32],
    count: usize,
    sampling: Sampling,
    stop: &[u32],
    each: &mut dyn FnMut(u32),
) -> Result<Vec<u32>> {
    let request = Request { prompt: prompt.to_vec(), count, sampling };
    let hear = &mut |_, token| {
        each(token);
        true
    };
    Ok(generate_all(model, &[request], 1, stop, hear).await?.remove(0))
}

/// Continues prompts, `at_once` at a time, each until one of `stop`. `each` hears every new token with the number of its
/// prompt, and says whether that text goes on.
///
/// # Errors
/// As [`generate`]; [`Error::Limit`] where so many at once do not fit a device.
pub async fn generate_all(
    model: &mut Model,
    requests: &[Request],
    at_once: usize,
    stop: &[u32],
    each: &mut dyn FnMut(usize, u32) -> bool,
) -> Result<Vec<Vec<u32>>> {
    requests.iter().try_for_each(|request| check(&request.prompt))?;
    let longest = requests.iter().map(|request| request.prompt.len() + request.count).max().unwrap_or(0);
    let places = at_once.clamp(1, requests.len().max(1));
    let mut cache = Cache::new(model, places, longest)?;
    let mut texts = vec![Vec::new(); requests.len()];
    let mut rngs: Vec<Rng> = requests.iter().map(|request| Rng::new(request.sampling.seed)).collect();
    // The prompt that each place of the cache works on.
    let mut working: Vec<Option<usize>> = vec![None; places];
    let mut waiting = (0..requests.len()).filter(|&at| requests[at].count > 0);
    let mut take = |texts: &mut [Vec<u32>], at: usize, token: u32| {
        texts[at].push(token);
        each(at, token) && !stop.contains(&token) && texts[at].len() < requests[at].count
    };
    loop {
        for (place, work) in working.iter_mut().enumerate() {
            while work.is_none()
                && let Some(at) = waiting.next()
            {
                cache.truncate(place, 0);
                let hidden = model.read(&mut cache, place, &requests[at].prompt, &|| false)?.expect("nobody stops it");
                let drawn = std::iter::once((requests[at].sampling, &mut rngs[at]));
                let token = next(model, &hidden, drawn).await?[0];
                *work = take(&mut texts, at, token).then_some(at);
            }
        }
        let under_way: Vec<(usize, usize)> =
            working.iter().enumerate().filter_map(|(place, work)| work.map(|at| (place, at))).collect();
        if under_way.is_empty() {
            return Ok(texts);
        }
        let last = |at: usize| &texts[at][texts[at].len() - 1..];
        let new: Vec<(usize, &[u32])> = under_way.iter().map(|&(place, at)| (place, last(at))).collect();
        let hidden = model.extend(&mut cache, &new)?;
        // Each text's own, in the order of their places.
        let mut own: Vec<Option<&mut Rng>> = rngs.iter_mut().map(Some).collect();
        let drawn = under_way.iter().map(|&(_, at)| (requests[at].sampling, own[at].take().expect("one place a text")));
        let tokens = next(model, &hidden, drawn).await?;
        for (&(place, at), token) in under_way.iter().zip(tokens) {
            working[place] = take(&mut texts, at, token).then_some(at);
        }
    }
}

/// One text that grows and is continued again and again, as in a chat: what it has in common with what was there before is not
/// read anew.
pub struct Talk {
    cache: Cache,
    held: Vec<u32>,
}

impl Talk {
    /// Of at most `capacity` tokens.
    ///
    /// # Errors
    /// [`Error::Limit`] where they do not fit a device.
    pub fn new(model: &Model, capacity: usize) -> Result<Self> {
        Ok(Self { cache: Cache::new(model, 1, capacity)?, held: Vec::new() })
    }

    /// Tokens of `prompt` that need not be read.
    pub fn known(&self, prompt: &[u32]) -> usize {
        self.held.iter().zip(prompt).take_while(|(held, new)| held == new).count()
    }

    /// Continues `prompt` as [`generate`] does. `stop_now` is asked before each piece of the prompt and each token; `each` says
    /// whether the text goes on.
    ///
    /// # Errors
    /// As [`generate`]; [`Error::Config`] where the prompt leaves no room for an answer.
    pub async fn answer(
        &mut self,
        model: &mut Model,
        request: &Request,
        stop: &[u32],
        stop_now: &dyn Fn() -> bool,
        each: &mut dyn FnMut(u32) -> bool,
    ) -> Result<Vec<u32>> {
        let Request { prompt, count, sampling } = request;
        check(prompt)?;
        let room = self.cache.capacity().saturating_sub(prompt.len());
        if room == 0 {
            let (length, most) = (prompt.len(), self.cache.capacity());
            let problem = format!("the conversation has {length} tokens, and {most} are possible with an answer");
            return Err(Error::Config { problems: vec![problem] });
        }
        // The last token is run in any case: its logits are wanted.
        let known = self.known(prompt).min(prompt.len() - 1);
        self.cache.truncate(0, known);
        self.held.truncate(known);
        let mut text = Vec::new();
        let read = model.read(&mut self.cache, 0, &prompt[known..], stop_now);
        // Also what was read before it was stopped.
        self.held.extend_from_slice(&prompt[known..self.cache.length(0)]);
        let Some(mut hidden) = read? else { return Ok(text) };
        let mut rng = Rng::new(sampling.seed);
        let most = room.min(*count);
        while text.len() < most && !stop_now() {
            let token = next(model, &hidden, std::iter::once((*sampling, &mut rng))).await?[0];
            text.push(token);
            if !each(token) || stop.contains(&token) || text.len() == most {
                break;
            }
            hidden = model.extend(&mut self.cache, &[(0, &[token])])?;
            self.held.push(token);
        }
        Ok(text)
    }
}

fn check(prompt: &[u32]) -> Result<()> {
    match prompt.is_empty() {
        true => Err(Error::Config { problems: vec!["the prompt is empty: there is nothing to continue".into()] }),
        false => Ok(()),
    }
}

/// What is known of the next token of a text.
enum Row {
    /// All logits.
    Logits(Vec<f32>),
    /// Those of the most likely tokens, in descending order.
    Top(Top),
}

/// The next token of each text from its row of `hidden`. On a GPU whole rows are read back only where one of them is drawn from
/// whole.
async fn next<'a>(
    model: &Model,
    hidden: &Tensor<2>,
    drawn: impl Iterator<Item = (Sampling, &'a mut Rng)>,
) -> Result<Vec<u32>> {
    let drawn: Vec<_> = drawn.collect();
    let tiles = model.logits_of(hidden)?;
    let device = model.placement().last();
    let wanted = |sampling: &Sampling| if sampling.temperature <= 0.0 { 1 } else { sampling.top_k };
    let (least, most) = drawn.iter().fold((usize::MAX, 0), |(least, most), (sampling, _)| {
        (least.min(wanted(sampling)), most.max(wanted(sampling)))
    });
    let few = !device.is_cpu() && least > 0 && most <= MAX_TOP_K;
    let found = if few { top_tokens(device, &tiles, most).await? } else { Found::Ties };
    let rows: Vec<Row> = match found {
        Found::Top(rows) => rows.into_iter().map(Row::Top).collect(),
        Found::Ties => model.read_logits(&tiles).await?.into_iter().map(Row::Logits).collect(),
        Found::NonFinite(row) => {
            let error = Error::NonFinite { tensor: "logits".into(), row, step: None };
            return Err(model.blame(error).await);
        }
    };
    Ok(rows.into_iter().zip(drawn).map(|(row, (sampling, rng))| choose(row, sampling, rng)).collect())
}

/// A token from what is known of it.
fn choose(row: Row, sampling: Sampling, rng: &mut Rng) -> u32 {
    // NaN sorts below everything, so that it is never chosen.
    let value = |z: f32| if z.is_nan() { f32::NEG_INFINITY } else { z };
    let first = |a: &(u32, f32), b: &(u32, f32)| value(b.1).total_cmp(&value(a.1)).then(a.0.cmp(&b.0));
    let (mut order, mut sorted) = match row {
        Row::Logits(logits) => ((0..).zip(logits).collect::<Vec<_>>(), 0),
        Row::Top(top) => {
            let sorted = top.len();
            (top, sorted)
        }
    };
    let Some(&best) = order.iter().min_by(|a, b| first(a, b)) else { return 0 };
    if sampling.temperature <= 0.0 {
        return best.0;
    }
    if sampling.top_k > 0 && sampling.top_k < order.len() {
        if sorted == 0 {
            order.select_nth_unstable_by(sampling.top_k - 1, first);
        }
        order.truncate(sampling.top_k);
        order.sort_by(first);
        sorted = order.len();
    }
    let weight = |z: f32| (f64::from(value(z) - best.1) / sampling.temperature).exp();
    let total: f64 = order.iter().map(|&(_, z)| weight(z)).sum();
    // The most likely ones are sorted alone, more of them until they are enough: few are, of many.
    let (mut kept, mut end) = if sampling.top_p < 1.0 { (0.0, 0) } else { (total, order.len()) };
    while kept < sampling.top_p * total && end < order.len() {
        if end == sorted {
            sorted = (4 * sorted).max(256).min(order.len());
            if sorted < order.len() {
                order[end..].select_nth_unstable_by(sorted - end - 1, first);
            }
            order[end..sorted].sort_by(first);
        }
        kept += weight(order[end].1);
        end += 1;
    }
    if end == 0 {
        return best.0;
    }
    let mut draw = rng.uniform() * kept;
    for &(token, z) in &order[..end] {
        draw -= weight(z);
        if draw < 0.0 {
            return token;
        }
    }
    order[end - 1].0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(logits: &[f32], sampling: Sampling, rng: &mut Rng) -> u32 {
        super::choose(Row::Logits(logits.to_vec()), sampling, rng)
    }

    fn drawn(temperature: f64, top_k: usize, top_p: f64) -> Sampling {
        Sampling { temperature, top_k, top_p, seed: 0 }
    }

    #[test]
    fn greedy_takes_the_largest_logit_and_the_first_of_equals_and_never_nan() {
        assert_eq!(choose(&[1.0, 3.0, 3.0, f32::NAN], Sampling::greedy(), &mut Rng::new(0)), 1);
    }

    #[test]
    fn sampling_follows_the_softmax_and_top_p_cuts_its_tail() {
        let logits = [2f32.ln(), 1f32.ln(), 1f32.ln()];
        let mut rng = Rng::new(1);
        let mut counts = [0usize; 3];
        for _ in 0..20_000 {
            counts[choose(&logits, drawn(1.0, 0, 1.0), &mut rng) as usize] += 1;
        }
        assert!((counts[0] as f64 / 20_000.0 - 0.5).abs() < 0.02, "{counts:?}");
        for _ in 0..100 {
            assert_eq!(choose(&logits, drawn(1.0, 0, 0.4), &mut rng), 0);
        }
    }

    #[test]
    fn top_k_draws_from_the_k_most_likely_alone_in_their_proportion() {
        let logits: Vec<f32> = (0..1000).map(|i| ((i * 37 % 1000) as f32 / 1000.0).ln()).collect();
        let likely: Vec<usize> = (0..1000).filter(|i| i * 37 % 1000 >= 998).collect();
        let mut rng = Rng::new(2);
        let mut counts = [0usize; 2];
        for _ in 0..2000 {
            let token = choose(&logits, drawn(1.0, 2, 1.0), &mut rng) as usize;
            counts[likely.iter().position(|&l| l == token).expect("one of the two most likely")] += 1;
        }
        assert!((counts[0] as f64 / 2000.0 - 0.5).abs() < 0.05, "{counts:?}");
        assert_eq!(choose(&logits, drawn(5.0, 1, 1.0), &mut rng), 27, "999 = 27 * 37");
    }

    #[test]
    fn the_most_likely_tokens_are_as_good_as_the_whole_row() {
        let logits: Vec<f32> = (0..300).map(|i| ((i * 97 % 211) as f32).sin() * 4.0).collect();
        let mut top: Top = (0..).zip(logits.iter().copied()).collect();
        top.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        top.truncate(40);
        for sampling in [Sampling::greedy(), drawn(0.8, 40, 1.0), drawn(1.3, 7, 1.0), drawn(1.0, 25, 0.8)] {
            let (mut whole, mut few) = (Rng::new(5), Rng::new(5));
            for _ in 0..200 {
                let found = super::choose(Row::Top(top.clone()), sampling, &mut few);
                assert_eq!(found, choose(&logits, sampling, &mut whole), "{sampling:?}");
            }
        }
    }

    #[test]
    fn top_p_over_many_tokens_is_the_smallest_set_that_reaches_it() {
        // 4000 equal tokens: 0.1 of them in order of their index.
        let logits = vec![0.5; 4000];
        let mut rng = Rng::new(3);
        let drawn: Vec<u32> = (0..4000).map(|_| choose(&logits, drawn(1.0, 0, 0.1), &mut rng)).collect();
        assert!(drawn.iter().all(|&token| token < 400));
        assert!(drawn.iter().max().unwrap() > &390 && drawn.iter().min().unwrap() < &10);
    }
}

//! What was kept at equal learning: for each variant and seed, the least loss on what is to be kept at which a loss on what is
//! learned was reached, over all settings and all steps that were measured.
//!
//! A run is a path in the plane of those two losses, measured before, during and after training; between two points it is taken to
//! be straight. No checkpoint is chosen: whole paths are compared, so nothing is picked by what it is judged by but
//! the setting, and that in the same way for every variant.

use serde::Serialize;

/// Where two variants are compared: shares of the way down to the lowest loss on what is learned that both reached.
const SHARES: [f64; 3] = [1.0, 0.75, 0.5];

/// A measured point of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Steps done.
    pub step: u64,
    /// Loss on what is learned, nats per token.
    pub learned: f64,
    /// Loss on what is to be kept.
    pub kept: f64,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Path {
    /// Which variant it is.
    pub variant: usize,
    /// Its seed.
    pub seed: String,
    /// What else differs between runs of a variant.
    pub setting: String,
    /// In the order of their steps.
    pub points: Vec<Point>,
}

impl Path {
    /// The least that was lost of what is to be kept where what is learned has at most this loss; none where it never has.
    pub fn kept_at(&self, learned: f64) -> Option<f64> {
        let finite: Vec<&Point> = self.points.iter().filter(|p| p.learned.is_finite() && p.kept.is_finite()).collect();
        let reached = finite.iter().filter(|p| p.learned <= learned).map(|p| p.kept);
        let crossed = finite.windows(2).filter_map(|pair| {
            let [a, b] = pair else { return None };
            let part = (learned - a.learned) / (b.learned - a.learned);
            (0.0..=1.0).contains(&part).then_some(a.kept + part * (b.kept - a.kept))
        });
        reached.chain(crossed).min_by(f64::total_cmp)
    }

    /// The lowest loss on what is learned that was reached.
    fn best(&self) -> f64 {
        self.points.iter().map(|p| p.learned).filter(|loss| loss.is_finite()).fold(f64::INFINITY, f64::min)
    }
}

/// All paths of a comparison.
#[derive(Debug)]
pub struct Frontier<'a> {
    paths: &'a [Path],
    /// In the order in which they were met.
    seeds: Vec<&'a str>,
}

/// Two variants where they learned the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Their loss on what is learned.
    pub learned: f64,
    /// Loss on what is to be kept of the one and of the other, mean over seeds.
    pub kept: [f64; 2],
    /// Of each seed that has both, the one's loss less the other's: below 0 the one kept more.
    pub each: Vec<f64>,
    /// Its mean.
    pub mean: f64,
    /// 95 % interval of the mean; none of one seed ([`interval`]).
    pub interval: Option<[f64; 2]>,
}

impl Difference {
    /// True where three seeds or more agree so far that the interval leaves 0 out.
    pub fn is_beyond_spread(&self) -> bool {
        self.each.len() >= 3 && self.interval.is_some_and(|[low, high]| low > 0.0 || high < 0.0)
    }
}

impl<'a> Frontier<'a> {
    /// Of these paths of so many variants.
    pub fn new(paths: &'a [Path]) -> Self {
        let mut seeds: Vec<&str> = Vec::new();
        for path in paths {
            if !seeds.contains(&path.seed.as_str()) {
                seeds.push(&path.seed);
            }
        }
        Self { paths, seeds }
    }

    /// Paths of a variant.
    pub fn of(&self, variant: usize) -> impl Iterator<Item = &'a Path> {
        self.paths.iter().filter(move |path| path.variant == variant)
    }

    fn of_seed(&self, variant: usize, seed: &str) -> impl Iterator<Item = &'a Path> {
        self.of(variant).filter(move |path| path.seed == seed)
    }

    /// The losses before training: the same for all but for rounding.
    pub fn start(&self) -> Option<Point> {
        self.paths.iter().find_map(|path| path.points.first().copied())
    }

    /// The lowest loss on what is learned that each of these variants reached with every seed that it has; none where that is not
    /// below the start.
    pub fn reached_by(&self, variants: &[usize]) -> Option<f64> {
        let best = |variant: usize, seed: &str| self.of_seed(variant, seed).map(Path::best).min_by(f64::total_cmp);
        let pairs = variants.iter().flat_map(|variant| self.seeds.iter().map(|seed| (*variant, *seed)));
        let worst = pairs.filter_map(|(variant, seed)| best(variant, seed)).max_by(f64::total_cmp)?;
        (worst < self.start()?.learned).then_some(worst)
    }

    /// Where two variants are compared: at [`SHARES`] of the way down to the lowest loss on what is learned that both reached;
    /// share and loss.
    pub fn levels(&self, one: usize, other: usize) -> Vec<(f64, f64)> {
        let (Some(start), Some(lowest)) = (self.start(), self.reached_by(&[one, other])) else { return Vec::new() };
        // All of the way is that loss to the bit: the run that reached it no further has to count.
        SHARES.iter().map(|share| (*share, share * lowest + (1.0 - share) * start.learned)).collect()
    }

    /// The least that a variant lost of what is to be kept where it had learned so much, seed by seed.
    pub fn kept(&self, variant: usize, learned: f64) -> Vec<Option<f64>> {
        let of_seed =
            |seed: &&str| self.of_seed(variant, seed).filter_map(|path| path.kept_at(learned)).min_by(f64::total_cmp);
        self.seeds.iter().map(of_seed).collect()
    }

    /// The setting with which a variant kept most where it had learned so much, in how many seeds it did, and of how many.
    pub fn best_setting(&self, variant: usize, learned: f64) -> Option<(&'a str, usize, usize)> {
        let best = |seed: &&str| {
            let paths = self.of_seed(variant, seed).filter_map(|path| Some((path.kept_at(learned)?, path)));
            paths.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, path)| path.setting.as_str())
        };
        let all: Vec<&str> = self.seeds.iter().filter_map(best).collect();
        let count = |setting: &str| all.iter().filter(|other| **other == setting).count();
        let most = all.iter().copied().max_by_key(|setting| count(setting))?;
        Some((most, count(most), all.len()))
    }

    /// One variant against another where both had learned so much; none where no seed has both.
    pub fn difference(&self, one: usize, other: usize, learned: f64) -> Option<Difference> {
        let pairs: Vec<(f64, f64)> = self
            .kept(one, learned)
            .into_iter()
            .zip(self.kept(other, learned))
            .filter_map(|(one, other)| Some((one?, other?)))
            .collect();
        if pairs.is_empty() {
            return None;
        }
        let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / pairs.len() as f64;
        let each: Vec<f64> = pairs.iter().map(|(one, other)| one - other).collect();
        let interval = interval(&each);
        Some(Difference { learned, kept: [mean(|p| p.0), mean(|p| p.1)], mean: mean(|p| p.0 - p.1), each, interval })
    }
}

/// 95 % interval of the mean of differences in pairs, by Student's t; none of a single one. Drawing again from the
/// differences would cover less than it says: of three in 62 % of cases, of ten in 90 %.
fn interval(each: &[f64]) -> Option<[f64; 2]> {
    let n = each.len() as f64;
    let t = student(each.len().checked_sub(1)?)?;
    let mean = each.iter().sum::<f64>() / n;
    let variance = each.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = t * (variance / n).sqrt();
    Some([mean - half, mean + half])
}

/// 97.5 % quantile of Student's t of so many degrees of freedom; none of none.
fn student(freedom: usize) -> Option<f64> {
    /// Of 1 to 30.
    const T: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
        2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
    ];
    let beyond = || 1.96 + 2.4 / freedom as f64;
    Some(T.get(freedom.checked_sub(1)?).copied().unwrap_or_else(beyond))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(variant: usize, seed: &str, setting: &str, points: &[(f64, f64)]) -> Path {
        let point =
            |(step, (learned, kept)): (usize, &(f64, f64))| Point { step: step as u64, learned: *learned, kept: *kept };
        let points = points.iter().enumerate().map(point).collect();
        Path { variant, seed: seed.into(), setting: setting.into(), points }
    }

    #[test]
    fn what_is_kept_at_a_target_is_the_least_on_the_path_there_or_beyond() {
        let run = path(0, "1", "", &[(4.0, 3.0), (3.0, 3.2), (2.0, 3.1), (2.5, 4.0)]);
        assert_eq!(run.kept_at(3.5), Some(3.1), "a lower target was reached with less forgotten");
        assert_eq!(run.kept_at(2.0), Some(3.1));
        assert!((run.kept_at(2.25).unwrap() - 3.1).abs() < 1e-12);
        assert_eq!(run.kept_at(1.9), None);
        assert_eq!(run.kept_at(5.0), Some(3.0), "nothing had to be learned");
        let straight = path(0, "1", "", &[(4.0, 3.0), (2.0, 4.0)]);
        assert!((straight.kept_at(3.0).unwrap() - 3.5).abs() < 1e-12);
        let broken = path(0, "1", "", &[(4.0, 3.0), (f64::NAN, 1.0), (2.0, f64::INFINITY)]);
        assert_eq!((broken.kept_at(3.0), broken.kept_at(4.0)), (None, Some(3.0)), "what diverged keeps nothing");
    }

    fn example() -> Vec<Path> {
        let mut paths = Vec::new();
        for (seed, off) in [("1", 0.0), ("2", 0.02), ("3", -0.01)] {
            paths.push(path(0, seed, "a", &[(4.0, 3.0), (2.0, 3.5 + off)]));
            paths.push(path(0, seed, "b", &[(4.0, 3.0), (3.0, 3.1 + off)]));
            paths.push(path(1, seed, "a", &[(4.0, 3.0), (2.5, 3.3 + 2.0 * off)]));
        }
        paths
    }

    #[test]
    fn variants_are_compared_where_all_of_them_came_seed_by_seed() {
        let paths = example();
        let frontier = Frontier::new(&paths);
        assert_eq!(frontier.reached_by(&[0, 1]), Some(2.5));
        for (found, want) in frontier.kept(0, 3.0).iter().zip([3.1, 3.12, 3.09]) {
            assert!((found.unwrap() - want).abs() < 1e-12, "{found:?} {want}");
        }
        assert_eq!(frontier.best_setting(0, 3.0), Some(("b", 3, 3)));
        assert_eq!(frontier.best_setting(0, 2.5), Some(("a", 3, 3)));
        let found = frontier.difference(1, 0, 2.5).unwrap();
        let want: Vec<f64> = [0.0, 0.02, -0.01].map(|off| 3.3 + 2.0 * off - (3.0 + 0.75 * (0.5 + off))).into();
        for (found, want) in found.each.iter().zip(&want) {
            assert!((found - want).abs() < 1e-12, "{found} {want}");
        }
        assert!((found.mean - want.iter().sum::<f64>() / 3.0).abs() < 1e-12);
        assert!((found.kept[0] - found.kept[1] - found.mean).abs() < 1e-12);
        assert!(found.is_beyond_spread(), "{found:?}");
        assert_eq!(frontier.difference(0, 1, 1.0), None, "nobody came there");
    }

    #[test]
    fn few_seeds_or_seeds_that_disagree_are_within_the_spread() {
        let of =
            |each: Vec<f64>| Difference { learned: 1.0, kept: [0.0; 2], mean: 0.0, interval: interval(&each), each };
        assert!(!of(vec![-1.0, -1.0]).is_beyond_spread(), "two seeds");
        assert!(!of(vec![-1.0, -1.0, 2.0]).is_beyond_spread());
        assert!(of(vec![-1.0, -1.2, -0.9]).is_beyond_spread());
        assert!(!of(vec![-0.1, -0.2, -0.02]).is_beyond_spread(), "they agree, and are too few to be sure");
        assert_eq!((interval(&[0.5]), interval(&[])), (None, None));
    }

    #[test]
    fn the_interval_covers_what_it_says() {
        // Of 1, 2 and 4: mean 7 / 3, standard deviation 1.5275, 4.303 standard errors on either side.
        let [low, high] = interval(&[1.0, 2.0, 4.0]).unwrap();
        assert!(
            (low - (7.0 / 3.0 - 3.7949)).abs() < 1e-3 && (high - (7.0 / 3.0 + 3.7949)).abs() < 1e-3,
            "{low} {high}"
        );
        // Sums of twelve uniform numbers are all but normal.
        let mut state = 9_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        for seeds in [2, 3, 5, 9, 12] {
            let mut covered = 0;
            for _ in 0..1500 {
                let each: Vec<f64> = (0..seeds).map(|_| (0..12).map(|_| uniform()).sum::<f64>() - 6.0).collect();
                covered += usize::from(interval(&each).is_some_and(|[low, high]| low <= 0.0 && 0.0 <= high));
            }
            assert!((1400..=1455).contains(&covered), "of 1500 intervals of {seeds}, {covered} hold the mean");
        }
    }

    #[test]
    fn the_factor_is_that_of_tables_for_few_seeds_and_within_two_thousandths_of_it_for_many() {
        for (freedom, known) in
            [(1, 12.706), (9, 2.262), (11, 2.201), (30, 2.042), (40, 2.021), (60, 2.000), (120, 1.980), (9999, 1.960)]
        {
            let found = student(freedom).unwrap();
            assert!((found - known).abs() < 2e-3, "{freedom}: {found} and {known}");
        }
        let all: Vec<f64> = (1..200).filter_map(student).collect();
        assert!(all.windows(2).all(|pair| pair[1] < pair[0]), "more seeds, a narrower interval");
        assert_eq!(student(0), None);
        // Of 1 to 12: mean 6.5, standard deviation 3.6056, 2.201 standard errors on either side.
        let [low, high] = interval(&(1..=12).map(f64::from).collect::<Vec<_>>()).unwrap();
        assert!((low - (6.5 - 2.2909)).abs() < 1e-3 && (high - (6.5 + 2.2909)).abs() < 1e-3, "{low} {high}");
    }

    #[test]
    fn a_variant_that_learned_little_shortens_its_own_comparison_alone() {
        let mut paths = example();
        paths.push(path(2, "1", "", &[(4.0, 3.0), (3.6, 3.0)]));
        let frontier = Frontier::new(&paths);
        assert_eq!(frontier.levels(1, 0), [(1.0, 2.5), (0.75, 2.875), (0.5, 3.25)]);
        assert_eq!(frontier.levels(2, 0)[0], (1.0, 3.6));
        assert_eq!(frontier.reached_by(&[0, 1, 2]), Some(3.6));
        // A start and an end whose difference cannot be added back.
        let (start, end) = (2.130_757_9, 0.152_000_1);
        let paths = [path(0, "1", "", &[(start, 1.0), (end, 2.0)]), path(1, "1", "", &[(start, 1.0), (end, 2.5)])];
        let frontier = Frontier::new(&paths);
        assert_eq!(frontier.levels(1, 0)[0].1, end);
        assert_eq!(frontier.difference(1, 0, frontier.levels(1, 0)[0].1).map(|found| found.each.len()), Some(1));
    }

    #[test]
    fn nothing_learned_is_nothing_to_compare() {
        let paths = [path(0, "1", "", &[(4.0, 3.0), (2.0, 3.1)]), path(1, "1", "", &[(4.0, 3.0), (4.2, 3.5)])];
        assert_eq!(Frontier::new(&paths).reached_by(&[0, 1]), None);
        assert_eq!(Frontier::new(&[]).reached_by(&[0]), None);
    }
}

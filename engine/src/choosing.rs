//! Which device is taken.
//!
//! Where none is named, a discrete GPU; else the faster one of the best other GPU and the CPU, which both compute one
//! product for it, once a driver; else the CPU, and never silently software Vulkan, which is some twenty times slower
//! than the CPU it runs on.

use crate::device::{AdapterReport, Device, adapters, shelf};
use crate::error::{Error, Result};
use crate::host::{Clock, Shelf};
use crate::kernels::kept::versioned;
use crate::kernels::matmul::{AsOperand, Product};
use crate::kernels::sample;

/// Under what it is kept how fast a GPU is beside the CPU.
const MEASURED: &str = "auto";
/// Rows, terms and columns of the product that is timed: of a middle layer.
const PRODUCT: [usize; 3] = [512, 1024, 1024];
/// Seconds for which a device is timed, and how many products that are at most.
const SECONDS_EACH: f64 = 0.12;
const MOST_TIMES: usize = 16;

impl Device {
    /// The device for a `--device` argument, and the one line that says why it was chosen.
    ///
    /// `None` or `"auto"` picks the first discrete GPU; without one the best other hardware GPU or the CPU, whichever
    /// was faster when they were timed; else the CPU. `"cpu"`, a graphics API (`vulkan`, `metal`, `dx12`: its first
    /// hardware adapter, else its software one), an adapter id (`vulkan:1`) or a part of an adapter's name pick that
    /// one, and nothing is timed.
    ///
    /// # Errors
    /// [`Error::Device`] when nothing matches, listing what there is, or when the driver refuses; device errors.
    pub fn choose(wanted: Option<&str>, clock: &dyn Clock) -> Result<(Self, String)> {
        let wanted = wanted.unwrap_or("auto").trim().to_lowercase();
        if wanted == "cpu" {
            return Ok((Self::cpu(), "CPU, as asked for".into()));
        }
        let adapters = adapters();
        if wanted == "auto" {
            let (taken, why) = automatic(&adapters, |adapter| paces(adapter, clock))?;
            let device = taken.map_or_else(|| Ok(Self::cpu()), Self::open)?;
            return Ok((device, why));
        }
        let adapter = named(&adapters, &wanted)?;
        Ok((Self::open(adapter)?, format!("{} ({}), as asked for", adapter.name, adapter.id)))
    }
}

/// The adapter that is asked for by its id, its graphics API or a part of its name.
///
/// # Errors
/// [`Error::Device`], listing what there is.
fn named<'a>(adapters: &'a [AdapterReport], wanted: &str) -> Result<&'a AdapterReport> {
    let of_api = |a: &&AdapterReport| a.backend == wanted;
    let found = adapters
        .iter()
        .find(|a| a.id == wanted)
        .or_else(|| adapters.iter().filter(of_api).find(|a| a.is_hardware()))
        .or_else(|| adapters.iter().find(of_api))
        // Nothing is a part of every name.
        .or_else(|| adapters.iter().find(|a| !wanted.is_empty() && a.name.to_lowercase().contains(wanted)));
    found.ok_or_else(|| Error::Device {
        problem: format!(
            "there is no device {wanted:?}; choose one of: cpu{}",
            adapters.iter().map(|a| format!(", {} ({})", a.id, a.name)).collect::<String>()
        ),
    })
}

/// What is taken of these adapters where none is named, none of them for the CPU, and why. How fast a GPU is beside the
/// CPU is asked of the best one alone, and only where that is not discrete.
///
/// # Errors
/// As `measure`.
fn automatic(
    adapters: &[AdapterReport],
    measure: impl FnOnce(&AdapterReport) -> Result<Paces>,
) -> Result<(Option<&AdapterReport>, String)> {
    let cards = cards(adapters);
    let Some(&best) = cards.first() else {
        let why = match adapters.first() {
            None => "CPU: no GPU was found".into(),
            Some(software) => {
                format!("CPU: no hardware GPU, and software {} is slower than the CPU backend", software.id)
            }
        };
        return Ok((None, why));
    };
    let (name, kind) = (format!("{} ({})", best.name, best.id), &best.kind);
    if kind == "discrete" {
        let why = match cards.len() {
            1 => format!("{name}: the only hardware GPU"),
            all => format!("{name}: the first of {all} hardware GPUs, discrete ones before others"),
        };
        return Ok((Some(best), why));
    }
    let paces = measure(best)?;
    let (taken, word) = if paces.cpu > paces.gpu { (None, "CPU") } else { (Some(best), "GPU") };
    let [gpu, cpu] = [paces.gpu, paces.cpu].map(|pace| pace / 1e9);
    Ok((taken, format!("{kind} GPU {name} at {gpu:.1} GFLOP/s, CPU at {cpu:.1}: the {word}")))
}

/// The hardware among adapters, the best first, each card once whatever drivers it has.
fn cards(adapters: &[AdapterReport]) -> Vec<&AdapterReport> {
    let mut hardware: Vec<&AdapterReport> = adapters.iter().filter(|adapter| adapter.is_hardware()).collect();
    hardware.sort_by_key(|adapter| adapter.rank());
    let mut cards: Vec<&AdapterReport> = Vec::new();
    for adapter in hardware {
        if !cards.iter().any(|card| card.is_same_card(adapter)) {
            cards.push(adapter);
        }
    }
    cards
}

/// Floating-point operations a second of one product, on a GPU and on the CPU beside it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Paces {
    gpu: f64,
    cpu: f64,
}

impl Paces {
    /// As later runs read it.
    fn written(self) -> String {
        format!("{} {}", self.gpu, self.cpu)
    }

    /// What an earlier run wrote; none where that is no such thing.
    fn read(text: &[u8]) -> Option<Self> {
        let (gpu, cpu) = std::str::from_utf8(text).ok()?.split_once(' ')?;
        let pace = |text: &str| text.parse().ok().filter(|pace: &f64| pace.is_finite() && *pace > 0.0);
        Some(Self { gpu: pace(gpu)?, cpu: pace(cpu)? })
    }
}

/// How fast this GPU is beside the CPU: what an earlier run measured, so that an interrupted run and its end choose
/// alike.
fn paces(adapter: &AdapterReport, clock: &dyn Clock) -> Result<Paces> {
    measured_once(shelf(), &versioned(MEASURED, adapter.version), || {
        let gpu = Device::open(adapter)?;
        let paces = Paces { gpu: pace(&gpu, clock)?, cpu: pace(&Device::cpu(), clock)? };
        gpu.release_unused();
        Ok(paces)
    })
}

fn measured_once(shelf: &dyn Shelf, name: &str, measure: impl FnOnce() -> Result<Paces>) -> Result<Paces> {
    if let Some(known) = shelf.take(name).as_deref().and_then(Paces::read) {
        return Ok(known);
    }
    let paces = measure()?;
    shelf.leave(name, paces.written().as_bytes());
    Ok(paces)
}

/// Of the fastest of several products on a device, since its clock still rises meanwhile.
fn pace(device: &Device, clock: &dyn Clock) -> Result<f64> {
    let [rows, terms, columns] = PRODUCT;
    let (left, weight) = (sample::matrix(device, 51, rows, terms), sample::matrix(device, 52, columns, terms));
    let seconds = || -> Result<f64> {
        let start = clock.seconds();
        Product::of(&left, weight.transposed()).run(device)?;
        device.sync()?;
        Ok(clock.seconds() - start)
    };
    // The first compiles kernels and wakes threads.
    seconds()?;
    let (start, mut least) = (clock.seconds(), f64::INFINITY);
    for _ in 0..MOST_TIMES {
        least = least.min(seconds()?);
        if clock.seconds() - start > SECONDS_EACH {
            break;
        }
    }
    Ok(2.0 * PRODUCT.iter().map(|&size| size as f64).product::<f64>() / least)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;
    use crate::device::Card;

    const BUS: &str = "0000:01:00.0";

    fn adapter(id: &str, kind: &str, name: &str, make: (u32, u32), bus: &str) -> AdapterReport {
        AdapterReport::made_up(id, kind, name, "driver 1", Card { make, bus: bus.into() })
    }

    fn integrated() -> AdapterReport {
        adapter("vulkan:0", "integrated", "Iris", (0x8086, 1), "")
    }

    fn software() -> AdapterReport {
        adapter("vulkan:1", "software", "llvmpipe", (0x10005, 0), "")
    }

    fn discrete(id: &str) -> AdapterReport {
        adapter(id, "discrete", "Radeon", (0x1002, 7), BUS)
    }

    /// The id that is taken, or `cpu`, and why; in billions of operations a second.
    fn automatic_at(adapters: &[AdapterReport], gpu: f64, cpu: f64) -> (String, String) {
        let paces = Paces { gpu: gpu * 1e9, cpu: cpu * 1e9 };
        let (taken, why) = automatic(adapters, |_| Ok(paces)).unwrap();
        (taken.map_or("cpu".into(), |adapter| adapter.id.clone()), why)
    }

    fn automatic_untimed(adapters: &[AdapterReport]) -> (String, String) {
        let (taken, why) = automatic(adapters, |adapter| panic!("{} was timed", adapter.id)).unwrap();
        (taken.map_or("cpu".into(), |adapter| adapter.id.clone()), why)
    }

    fn of(id: &str, why: &str) -> (String, String) {
        (id.into(), why.into())
    }

    #[test]
    fn without_a_hardware_gpu_the_cpu_is_taken_and_nothing_is_timed() {
        assert_eq!(automatic_untimed(&[]), of("cpu", "CPU: no GPU was found"));
        let why = "CPU: no hardware GPU, and software vulkan:1 is slower than the CPU backend";
        assert_eq!(automatic_untimed(&[software()]), of("cpu", why));
    }

    #[test]
    fn an_integrated_gpu_is_taken_where_it_is_faster_than_the_cpu_and_both_figures_are_said() {
        let there = [integrated(), software()];
        let why = "integrated GPU Iris (vulkan:0) at 210.0 GFLOP/s, CPU at 95.0: the GPU";
        assert_eq!(automatic_at(&there, 210.0, 95.0), of("vulkan:0", why));
        let why = "integrated GPU Iris (vulkan:0) at 60.2 GFLOP/s, CPU at 95.0: the CPU";
        assert_eq!(automatic_at(&there, 60.2, 95.0), of("cpu", why));
        assert_eq!(automatic_at(&there, 95.0, 95.0).0, "vulkan:0");
    }

    #[test]
    fn a_discrete_gpu_comes_before_an_integrated_one_wherever_it_is_listed_and_is_not_timed() {
        let why = "Radeon (vulkan:2): the first of 2 hardware GPUs, discrete ones before others";
        assert_eq!(automatic_untimed(&[integrated(), software(), discrete("vulkan:2")]), of("vulkan:2", why));
        let why = "Radeon (vulkan:2): the only hardware GPU";
        assert_eq!(automatic_untimed(&[software(), discrete("vulkan:2")]), of("vulkan:2", why));
    }

    #[test]
    fn a_gpu_that_is_neither_comes_last_and_is_timed() {
        let of_a_guest = || adapter("vulkan:0", "virtual", "Venus", (1, 1), "");
        let (taken, why) = automatic_at(&[of_a_guest()], 1.0, 2.0);
        assert_eq!((taken.as_str(), why.starts_with("virtual GPU Venus (vulkan:0) at 1.0")), ("cpu", true), "{why}");
        let second = adapter("vulkan:1", "integrated", "Iris", (0x8086, 1), "");
        assert_eq!(automatic_at(&[of_a_guest(), second], 2.0, 1.0).0, "vulkan:1");
    }

    #[test]
    fn one_card_under_two_drivers_counts_once_and_two_cards_of_one_make_twice() {
        let count = |adapters: &[AdapterReport]| cards(adapters).len();
        // By the graphics API, whatever each calls it.
        let by_dx12 = adapter("dx12:0", "discrete", "Radeon RX", (0x1002, 7), "");
        let (taken, why) = automatic_untimed(&[discrete("vulkan:0"), by_dx12]);
        assert_eq!((taken.as_str(), why.as_str()), ("vulkan:0", "Radeon (vulkan:0): the only hardware GPU"));
        // Metal has no numbers.
        let by_metal = adapter("metal:0", "discrete", "Radeon", (0, 0), "");
        assert_eq!(count(&[discrete("vulkan:0"), by_metal]), 1);
        // By two Vulkan drivers, with and without a place.
        assert_eq!(count(&[discrete("vulkan:0"), discrete("vulkan:1")]), 1);
        let placeless = |id: &str, driver: &str| {
            let card = Card { make: (0x1002, 7), bus: String::new() };
            AdapterReport::made_up(id, "discrete", "Radeon", driver, card)
        };
        assert_eq!(count(&[placeless("vulkan:0", "radv"), placeless("vulkan:1", "amdvlk")]), 1);
        // Two cards.
        assert_eq!(count(&[placeless("vulkan:0", "radv"), placeless("vulkan:1", "radv")]), 2);
        let beside = adapter("vulkan:1", "discrete", "Radeon", (0x1002, 7), "0000:02:00.0");
        assert_eq!(count(&[discrete("vulkan:0"), beside]), 2);
        assert_eq!(count(&[integrated(), discrete("vulkan:1")]), 2);
    }

    #[test]
    fn what_was_measured_once_is_taken_again_and_what_nobody_wrote_is_measured_anew() {
        let shelf: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::default();
        let (first, later) = (Paces { gpu: 2.5e11, cpu: 1e11 / 3.0 }, Paces { gpu: 1.0, cpu: 2.0 });
        assert_eq!(measured_once(&shelf, "auto-1", || Ok(first)).unwrap(), first);
        assert_eq!(measured_once(&shelf, "auto-1", || panic!("it is known")).unwrap(), first);
        // Of another driver.
        assert_eq!(measured_once(&shelf, "auto-2", || Ok(later)).unwrap(), later);
        for odd in ["", "1e9", "fast slow", "1e9 -1", "0 1e9", "NaN 1e9", "inf 1e9", "1 2 3"] {
            shelf.leave("auto-1", odd.as_bytes());
            assert_eq!(measured_once(&shelf, "auto-1", || Ok(later)).unwrap(), later, "{odd}");
        }
        // What went wrong is not kept.
        let lost = || Err(Error::Lost { problem: String::new() });
        assert!(measured_once(&shelf, "auto-3", lost).is_err());
        assert!(shelf.take("auto-3").is_none());
    }

    #[test]
    fn a_product_is_timed_also_by_a_clock_that_stands_still() {
        struct Still;
        impl Clock for Still {
            fn seconds(&self) -> f64 {
                0.0
            }
        }
        assert!(pace(&Device::cpu(), &Still).unwrap() > 0.0);
    }
}

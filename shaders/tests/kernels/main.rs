//! What a kernel must pass before any device sees it: `cargo test -p temper-shaders --test kernels`.
//!
//! No GPU and no burn. In the order of their cost: the text is legal WGSL with naga's default capabilities and keeps our
//! own limits ([`house`]); the Rust table repeats it faithfully ([`table`]); it translates to every language a driver
//! may want ([`translate`]); and the translations satisfy the Khronos tools where those are installed ([`tools`]).
//! Every checker is handed broken shaders too, so that one that never refuses anything cannot go unnoticed.

mod house;
mod joined;
mod table;
mod tools;
mod translate;

/// Fails once, with all that was found, so that one run shows everything there is to repair.
fn report(what: &str, checked: usize, failures: &[String]) {
    assert!(checked > 0, "{what}: nothing was checked, so nothing is known");
    assert!(
        failures.is_empty(),
        "{what}: {} failures in {checked} checks\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

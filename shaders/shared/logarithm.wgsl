// ln(1 + x) for x >= 0, exact to a few units in the last place.
//
// WGSL's log may be off by 2^-21 in absolute terms near 1, which is all there is when a distribution is peaked
// (entropy near 0). For x <= 1/2: ln(1 + x) = 2 artanh(t), t = x / (2 + x) <= 1/5, whose series ends below 2^-33.
fn log_one_plus(x: f32) -> f32 {
    if (x > 0.5) {
        return log(1.0 + x);
    }
    let t = x / (2.0 + x);
    let t2 = t * t;
    let series = 1.0 + t2 * (1.0 / 3.0 + t2 * (1.0 / 5.0 + t2 * (1.0 / 7.0 + t2 * (1.0 / 9.0 + t2 * (1.0 / 11.0)))));
    return 2.0 * t * series;
}


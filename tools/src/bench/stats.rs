//! Medians, and latency histograms that travel between processes as JSON.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Percentiles that reports name.
pub(crate) const PERCENTILES: [f64; 6] = [50.0, 90.0, 99.0, 99.9, 99.99, 100.0];

/// A histogram of nanoseconds from 1 ns to one minute, exact to three digits.
#[derive(Clone, Debug)]
pub(crate) struct Latency(Histogram<u64>);

impl Latency {
    const HIGHEST_NS: u64 = 60_000_000_000;

    /// No samples.
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, Self::HIGHEST_NS, 3).expect("legal bounds"))
    }

    /// Adds one sample.
    pub(crate) fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns.max(1));
    }

    /// Adds the samples of `other`.
    pub(crate) fn add(&mut self, other: &Self) {
        self.0 += &other.0;
    }

    /// How many samples there are.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The value below which `percentile` per cent of the samples lie, in nanoseconds.
    pub(crate) fn at(&self, percentile: f64) -> f64 {
        self.0.value_at_percentile(percentile) as f64
    }

    /// `[[value, count], …]`, as [`Latency::from_json`] reads it.
    pub(crate) fn to_json(&self) -> Value {
        self.0.iter_recorded().map(|step| json!([step.value_iterated_to(), step.count_at_value()])).collect()
    }

    /// What [`Latency::to_json`] wrote.
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let mut all = Self::new();
        for pair in value.as_array()? {
            let sample = pair.get(0)?.as_u64()?.clamp(1, Self::HIGHEST_NS);
            all.0.record_n(sample, pair.get(1)?.as_u64()?).ok()?;
        }
        Some(all)
    }

    /// `{"p50": …, "p99": …}` in nanoseconds.
    pub(crate) fn percentiles(&self) -> Value {
        PERCENTILES.iter().map(|&p| (format!("p{p}"), json!(self.at(p)))).collect()
    }
}

/// The middle of the values; of an even number, the mean of the middle two. 0 if there are none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The least and the greatest of the values.
pub(crate) fn range(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_even_and_no_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_histogram_survives_json() {
        let mut before = Latency::new();
        for ns in [100, 100, 5_000, 70_000_000_000] {
            before.record(ns);
        }
        let after = Latency::from_json(&before.to_json()).expect("its own output");
        assert_eq!(after.count(), 4);
        assert_eq!(after.at(50.0), before.at(50.0));
        assert!(Latency::from_json(&json!([["x", 1]])).is_none());
    }
}

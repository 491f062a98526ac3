//! Histograms of recovery times.

use std::collections::BTreeMap;

use serde::Serialize;

/// Upper bounds of the classes of recovery times, ms. Longer ones, and those that never ended,
/// have a class each.
pub(super) const CLASSES_MS: [u64; 8] = [100, 250, 500, 1000, 2000, 5000, 10_000, 20_000];

/// Histogram of recovery times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Histogram {
    /// Median, ms; `None`: it never ended.
    pub(super) p50_ms: Option<u64>,
    /// Nine of ten are not longer.
    pub(super) p90_ms: Option<u64>,
    /// Ninety-nine of a hundred are not longer.
    pub(super) p99_ms: Option<u64>,
    /// Longest of those that ended.
    pub(super) max_ms: u64,
    /// Number in each class of [`CLASSES_MS`], then of longer ones.
    pub(super) classes: Vec<usize>,
    /// Number of those that never ended: a post was never acknowledged, or a client never streamed again.
    pub(super) never: usize,
}

/// Returns the histograms of recovery times, of those that there are.
pub(super) fn histograms<K: Ord>(times: BTreeMap<K, Vec<Option<u64>>>) -> BTreeMap<K, Histogram> {
    times.into_iter().filter_map(|(of, times)| Some((of, histogram(times)?))).collect()
}

/// Returns the histogram of recovery times; `None` is one that never ended.
pub(super) fn histogram(mut times: Vec<Option<u64>>) -> Option<Histogram> {
    if times.is_empty() {
        return None;
    }
    // What never ended is the longest.
    times.sort_by_key(|time| time.unwrap_or(u64::MAX));
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    let ended: Vec<u64> = times.iter().copied().flatten().collect();
    let mut classes = vec![0; CLASSES_MS.len() + 1];
    for time in &ended {
        let class = CLASSES_MS.iter().position(|bound| time <= bound);
        classes[class.unwrap_or(CLASSES_MS.len())] += 1;
    }
    Some(Histogram {
        p50_ms: at(50),
        p90_ms: at(90),
        p99_ms: at(99),
        max_ms: ended.last().copied().unwrap_or(0),
        classes,
        never: times.len() - ended.len(),
    })
}

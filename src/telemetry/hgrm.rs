//! Percentile distributions as HdrHistogram's own tools print them (`.hgrm`).
//!
//! The text is what `outputPercentileDistribution` of the Java library prints, to the character, so that its plotter
//! and everyone's scripts take it.

use hdrhistogram::Histogram;
use std::io::{self, Write};

/// Steps per half of the remaining distance to 100 %: the Java tools' default.
const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// Nanoseconds in a millisecond: the `unit` for histograms of nanoseconds shown in milliseconds.
pub const MILLISECONDS: f64 = 1e6;

/// Writes the distribution of `histogram`, its values divided by `unit`.
pub fn write(out: &mut impl Write, histogram: &Histogram<u64>, unit: f64) -> io::Result<()> {
    let digits = usize::from(histogram.sigfig());
    write!(out, "{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
    for step in steps(histogram) {
        let value = fixed(histogram.highest_equivalent(step.value) as f64 / unit, digits);
        write!(out, "{value:>12} {:2.12} {:10}", step.percentile / 100.0, step.count)?;
        if step.percentile < 100.0 {
            write!(out, " {:>14}", fixed(1.0 / (1.0 - step.percentile / 100.0), 2))?;
        }
        writeln!(out)?;
    }
    let scaled = |value: f64| fixed(value / unit, digits);
    let (mean, deviation, max) = (scaled(histogram.mean()), scaled(histogram.stdev()), scaled(histogram.max() as f64));
    let (buckets, halves) = shape(histogram);
    writeln!(out, "#[Mean    = {mean:>12}, StdDeviation   = {deviation:>12}]")?;
    writeln!(out, "#[Max     = {max:>12}, Total count    = {:12}]", histogram.len())?;
    writeln!(out, "#[Buckets = {buckets:12}, SubBuckets     = {halves:12}]")
}

/// One line: this share of the values is at most this value.
struct Step {
    percentile: f64,
    value: u64,
    count: u64,
}

/// The lines, by the arithmetic of the Java library's `PercentileIterator`. The Rust library's own iterator counts in
/// quantiles instead of per cent, and so rounds some levels (75 %, for one) to the other side.
fn steps(histogram: &Histogram<u64>) -> Vec<Step> {
    let (mut steps, mut level, mut count) = (Vec::new(), 0.0_f64, 0);
    for recorded in histogram.iter_recorded() {
        count += recorded.count_at_value();
        let (value, reached) = (recorded.value_iterated_to(), 100.0 * count as f64 / histogram.len() as f64);
        while level <= reached && level < 100.0 {
            steps.push(Step { percentile: level, value, count });
            let halvings = (100.0 / (100.0 - level)).log2() as i32;
            let next = level + 100.0 / (f64::from(TICKS_PER_HALF_DISTANCE) * 2f64.powi(halvings + 1));
            // So close to 100 % that no number lies between: of counts near 2^63 the share of all but a few is 100 %.
            let stuck = next <= level;
            level = next;
            if stuck || count == histogram.len() {
                break;
            }
        }
    }
    let last = steps.last().map(|step| step.value);
    steps.extend(last.map(|_| Step { percentile: 100.0, value: histogram.max(), count }));
    steps
}

/// `value` with this many decimals, a tie in its decimal form rounded up as Java's formatter does.
fn fixed(value: f64, decimals: usize) -> String {
    let shortest = value.to_string();
    let fraction = shortest.split_once('.').map_or("", |(_, fraction)| fraction);
    let tie = fraction.len() == decimals + 1 && fraction.ends_with('5');
    let nudge = if tie { 0.1_f64.powi(decimals as i32 + 2) } else { 0.0 };
    format!("{:.decimals$}", value + nudge)
}

/// Number of buckets, and of sub-buckets in each, of the histogram's layout.
fn shape(histogram: &Histogram<u64>) -> (usize, usize) {
    let sub_buckets = (2 * 10usize.pow(u32::from(histogram.sigfig()))).next_power_of_two();
    (histogram.distinct_values() / (sub_buckets / 2) - 1, sub_buckets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(histogram: &Histogram<u64>, unit: f64) -> String {
        let mut text = Vec::new();
        write(&mut text, histogram, unit).expect("writing to memory does not fail");
        String::from_utf8(text).expect("is ASCII")
    }

    /// Printed by the Java library for these four values in microseconds, shown in milliseconds.
    const JAVA: &str = "       Value     Percentile TotalCount 1/(1-Percentile)

       5.975 0.000000000000          1           1.00
       5.975 0.100000000000          1           1.11
       5.975 0.200000000000          1           1.25
       6.327 0.300000000000          2           1.43
       6.327 0.400000000000          2           1.67
       6.327 0.500000000000          2           2.00
       6.507 0.550000000000          3           2.22
       6.507 0.600000000000          3           2.50
       6.507 0.650000000000          3           2.86
       6.507 0.700000000000          3           3.33
       6.507 0.750000000000          3           4.00
       8.231 0.775000000000          4           4.44
       8.231 1.000000000000          4
#[Mean    =        6.759, StdDeviation   =        0.870]
#[Max     =        8.231, Total count    =            4]
#[Buckets =           32, SubBuckets     =         2048]
";

    #[test]
    fn prints_what_the_java_tools_print() {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("the bounds are legal");
        for value in [5_974, 6_325, 6_506, 8_230] {
            histogram += value;
        }
        assert_eq!(shown(&histogram, 1e3), JAVA);
    }

    #[test]
    fn an_empty_histogram_has_no_percentiles() {
        let text = shown(crate::telemetry::Histogram::new().inner(), MILLISECONDS);
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.contains("Total count    =            0]"), "{text}");
    }
}

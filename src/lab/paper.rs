//! What was published, to draw beside what is measured.
//!
//! Y. Amir, C. Danilov, "Reliable Communication in Overlay Networks", DSN 2003: a chain of five 10 ms, 10 Mbit/s links,
//! loss on the middle one, 1,000-byte messages, kernel TCP of 2001 against hop-by-hop recovery. Values read off the
//! paper's graphs (±3 %) or taken from its text.

/// Points (x, y).
pub type Points = &'static [(f64, f64)];

/// Mean delay (ms) against loss (%) at 500 kbit/s, TCP.
pub const MEAN_500_TCP: Points = &[(0.0, 55.0), (1.0, 97.0), (1.6, 157.0), (2.0, 233.0)];
/// The same, hop by hop.
pub const MEAN_500_HOPS: Points = &[(0.0, 55.0), (1.0, 66.0), (1.6, 74.0), (2.0, 81.0)];
/// Mean delay (ms) against loss (%) at 1000 kbit/s, TCP; from 1 % it is off the paper's chart.
pub const MEAN_1000_TCP: Points = &[(0.4, 158.0), (0.6, 250.0), (0.8, 397.0)];
/// The same, hop by hop.
pub const MEAN_1000_HOPS: Points = &[(0.4, 59.0), (0.6, 61.0), (0.8, 63.0), (2.0, 80.0)];
/// Standard deviation of the delay (ms) against loss (%) at 500 kbit/s, TCP.
pub const JITTER_500_TCP: Points = &[(1.0, 95.0), (2.0, 277.0)];
/// The same, hop by hop.
pub const JITTER_500_HOPS: Points = &[(1.0, 40.0), (2.0, 68.0)];
/// Mean delay (ms) against the number of hops at 50 ms in all, 1 % loss, 500 kbit/s, hop by hop: one hop from table 1,
/// five from figure 3. The paper says of figure 7 that two to four hops capture nearly all the benefit.
pub const HOPS_MEAN: Points = &[(1.0, 118.0), (5.0, 66.0)];

/// Published curves: name, transport, points.
pub type Published = &'static [(&'static str, &'static str, Points)];

/// What was published of the mean delay against loss at this rate.
pub const fn means(rate_kbps: u64) -> Published {
    match rate_kbps {
        500 => &[("TCP, published", "tcp-cubic", MEAN_500_TCP), (BY_HOPS, "reliable", MEAN_500_HOPS)],
        1000 => &[("TCP, published", "tcp-cubic", MEAN_1000_TCP), (BY_HOPS, "reliable", MEAN_1000_HOPS)],
        _ => &[],
    }
}

/// What was published of the jitter against loss at this rate.
pub const fn jitters(rate_kbps: u64) -> Published {
    match rate_kbps {
        500 => &[("TCP, published", "tcp-cubic", JITTER_500_TCP), (BY_HOPS, "reliable", JITTER_500_HOPS)],
        _ => &[],
    }
}

/// What was published of the mean delay against hops.
pub const HOPS: Published = &[(BY_HOPS, "reliable", HOPS_MEAN)];

const BY_HOPS: &str = "hop by hop, published";

/// TCP's throughput, kbit/s, by the formula of Padhye, Firoiu, Towsley and Kurose (SIGCOMM 1998), which the paper's
/// figures follow: segment bytes, round trip s, loss share; two segments an acknowledgement, a timeout of 200 ms plus
/// the round trip.
pub fn padhye_kbps(segment: f64, round_trip: f64, loss: f64) -> f64 {
    if loss <= 0.0 {
        return f64::INFINITY;
    }
    let timeout = 0.2 + round_trip;
    let congestion = round_trip * (4.0 * loss / 3.0).sqrt();
    let timeouts = timeout * (3.0 * (3.0 * loss / 4.0).sqrt()).min(1.0) * loss * (1.0 + 32.0 * loss * loss);
    segment * 8.0 / 1e3 / (congestion + timeouts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_falls_with_loss_and_distance() {
        let at = |round_trip, loss| padhye_kbps(1448.0, round_trip, loss);
        // At 1 % and 100 ms: about 1.2 / sqrt(p) segments a round trip, less for timeouts.
        assert!((700.0..1100.0).contains(&at(0.1, 0.01)), "{}", at(0.1, 0.01));
        assert!(at(0.1, 0.02) < at(0.1, 0.01) && at(0.1, 0.01) < at(0.02, 0.01));
        assert_eq!(at(0.1, 0.0), f64::INFINITY);
    }
}

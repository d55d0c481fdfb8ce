//! What a path is short in: integer costs, the same on every router.

use crate::wire::routing::AdvertisedLink;
use serde::{Deserialize, Serialize};

/// What a shortest path is short in. All routers of a network must use the same: mixed metrics can loop until the ttl
/// ends the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Links. A link costs 1.
    Hops,
    /// Half the round trip, µs.
    Latency,
    /// Lost packets: −ln(1 − p), millionths, so that the sum over a path is the path's loss.
    Loss,
    /// Mean latency of a message that is recovered once where it is lost, µs: half the round trip, plus the loss times
    /// (a round trip and four deviations, which is when a lost message is there at the second attempt).
    Expected,
}

/// A link said to lose everything is the last resort: it costs this on top, more than any path without such links
/// (4,096 links of 92 s each are below 2^39; 4,096 times this is 2^52). So it is used where there is no other way, and
/// of two such paths the one with fewer such links is.
const LAST_RESORT: u64 = 1 << 40;

/// The loss that an end advertises of a link that is up but is to be the last resort, because it flaps: all of it.
pub(super) const LAST_RESORT_PPM: u32 = 1_000_000;

/// ln 2, exact to the last bit of the format.
const LN_2: f64 = std::f64::consts::LN_2;

impl Metric {
    /// The cost of a link whose ends advertise `one` and `other`; at least 1, so that every path's cost grows with
    /// every link. Both directions cost the same, the worse of the two measurements: an acknowledgement takes the path
    /// of its data, and one end cannot make a bad link look good.
    pub fn cost(self, one: &AdvertisedLink, other: &AdvertisedLink) -> u64 {
        let rtt = u64::from(one.rtt_us.max(other.rtt_us));
        let jitter = u64::from(one.jitter_us.max(other.jitter_us));
        let loss = one.loss_ppm.max(other.loss_ppm);
        let cost = match self {
            Metric::Hops => 1,
            Metric::Latency => rtt / 2,
            Metric::Loss => nepers_ppm(loss),
            Metric::Expected => rtt / 2 + u64::from(loss) * (rtt + 4 * jitter) / 1_000_000,
        };
        let resort = if loss >= LAST_RESORT_PPM { LAST_RESORT } else { 0 };
        cost.max(1) + resort
    }

    /// A path's cost as people read it: links, milliseconds, or percent lost; what a last resort costs extra left out.
    pub fn readable(self, cost: u64) -> f64 {
        let cost = (cost % LAST_RESORT) as f64;
        match self {
            Metric::Hops => cost,
            Metric::Latency | Metric::Expected => cost / 1e3,
            Metric::Loss => 100.0 * (1.0 - (-cost / 1e6).exp()),
        }
    }
}

/// −ln(1 − p) in millionths for `p` in parts per million; a total loss counts as all but one in a million.
///
/// Computed with additions, multiplications and divisions only, which IEEE 754 defines to the last bit: routers built by
/// different compilers for different processors agree. (The library's `ln` does not promise that.)
fn nepers_ppm(loss_ppm: u32) -> u64 {
    let mut kept = 1.0 - f64::from(loss_ppm.min(999_999)) / 1e6;
    let mut sum = 0.0;
    while kept < 0.5 {
        kept *= 2.0;
        sum += LN_2;
    }
    // ln x = 2 artanh((x − 1) / (x + 1)); here |z| ≤ 1/3, so 20 terms reach the precision of the format.
    let z = (1.0 - kept) / (1.0 + kept);
    let (mut power, mut series) = (z, 0.0);
    for term in 0..20u32 {
        series += power / f64::from(2 * term + 1);
        power *= z * z;
    }
    ((sum + 2.0 * series) * 1e6 + 0.5) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::NodeId;

    fn link(rtt_us: u32, jitter_us: u32, loss_ppm: u32) -> AdvertisedLink {
        AdvertisedLink { neighbour: NodeId(1), rtt_us, jitter_us, loss_ppm }
    }

    #[test]
    fn loss_is_the_logarithm_of_what_is_kept() {
        for ppm in (0..1_000_000).step_by(777) {
            let exact = -(1.0 - f64::from(ppm) / 1e6).ln() * 1e6;
            assert!((nepers_ppm(ppm) as f64 - exact).abs() <= 0.51, "{ppm}: {} {exact}", nepers_ppm(ppm));
        }
        assert_eq!(nepers_ppm(1_000_000), nepers_ppm(999_999));
    }

    #[test]
    fn costs_follow_their_definition_and_take_the_worse_end() {
        let (good, bad) = (link(20_000, 1_000, 0), link(30_000, 2_000, 100_000));
        for (metric, cost) in
            [(Metric::Hops, 1), (Metric::Latency, 15_000), (Metric::Loss, 105_361), (Metric::Expected, 18_800)]
        {
            assert_eq!(metric.cost(&good, &bad), cost, "{metric:?}");
            assert_eq!(metric.cost(&bad, &good), cost, "{metric:?}");
            assert!(metric.cost(&link(0, 0, 0), &link(0, 0, 0)) >= 1, "{metric:?}");
        }
        for metric in [Metric::Hops, Metric::Latency, Metric::Loss, Metric::Expected] {
            let worst = metric.cost(&link((1 << 24) - 1, (1 << 24) - 1, 999_999), &good);
            let resort = metric.cost(&link(0, 0, LAST_RESORT_PPM), &good);
            assert!(resort > 4_096 * worst, "{metric:?}: a last resort costs more than any other path");
            assert!(resort.checked_mul(4_096).is_some(), "{metric:?}");
        }
        assert!((Metric::Hops.readable(3 + 2 * LAST_RESORT) - 3.0).abs() < 1e-9);
        assert!((Metric::Loss.readable(105_361) - 10.0).abs() < 1e-3);
        assert!((Metric::Latency.readable(15_000) - 15.0).abs() < 1e-9);
    }
}

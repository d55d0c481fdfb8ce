//! Messages and what became of them: numbers, not impressions.
//!
//! Every message carries its sequence number and the moment it was *meant* to be sent. Latency counts from there, so a
//! sender that was held up makes its own messages late instead of hiding it (no coordinated omission).

use crate::base::Instant;

/// Shortest message that carries its own number and time.
pub const MIN_MESSAGE: usize = 20;
const MAGIC: u32 = 0x534e_4c42;

/// What a message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its number, from 0.
    pub sequence: u64,
    /// When it was meant to be sent.
    pub intended: Instant,
}

impl Stamp {
    /// Writes it to the head of a message.
    pub fn write(&self, message: &mut [u8]) {
        message[..4].copy_from_slice(&MAGIC.to_be_bytes());
        message[4..12].copy_from_slice(&self.sequence.to_be_bytes());
        message[12..20].copy_from_slice(&self.intended.as_nanos().to_be_bytes());
    }

    /// Reads it from the head of a message; `None` if this is none of ours.
    pub fn read(message: &[u8]) -> Option<Stamp> {
        let u64_at = |at: usize| Some(u64::from_be_bytes(message.get(at..at + 8)?.try_into().ok()?));
        let magic = message.get(..4)?;
        (magic == MAGIC.to_be_bytes()).then_some(())?;
        Some(Stamp { sequence: u64_at(4)?, intended: Instant::from_nanos(u64_at(12)?) })
    }
}

/// One message that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was meant to be sent.
    pub intended: Instant,
    /// From then until it was received, ns.
    pub latency_ns: u64,
}

/// What became of a flow's messages.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// First arrivals.
    pub samples: Vec<Sample>,
    /// Messages planned.
    pub sent: u64,
    /// Further arrivals of messages that had arrived.
    pub duplicated: u64,
    /// First arrivals after a message with a higher number.
    pub reordered: u64,
    /// Arrivals that were no message of this flow.
    pub foreign: u64,
    /// The flow had not ended when the lab stopped waiting for it.
    pub cut_off: bool,
    seen: Vec<bool>,
    next: u64,
}

impl Tally {
    /// Of a flow of this many messages.
    pub fn new(sent: u64) -> Tally {
        let count = usize::try_from(sent).expect("a flow's messages fit in memory");
        Tally { sent, seen: vec![false; count], samples: Vec::with_capacity(count), ..Tally::default() }
    }

    /// Counts an arrival.
    pub fn arrived(&mut self, message: &[u8], now: Instant) {
        let Some(stamp) = Stamp::read(message) else {
            self.foreign += 1;
            return;
        };
        let Some(seen) = self.seen.get_mut(stamp.sequence as usize) else {
            self.foreign += 1;
            return;
        };
        if std::mem::replace(seen, true) {
            self.duplicated += 1;
            return;
        }
        self.reordered += u64::from(stamp.sequence < self.next);
        self.next = self.next.max(stamp.sequence + 1);
        let latency_ns = now.as_nanos().saturating_sub(stamp.intended.as_nanos());
        self.samples.push(Sample { intended: stamp.intended, latency_ns });
    }

    /// Messages that arrived.
    pub fn received(&self) -> u64 {
        self.samples.len() as u64
    }

    /// Messages that did not.
    pub fn lost(&self) -> u64 {
        self.sent - self.received()
    }

    /// Whether all arrived.
    pub fn complete(&self) -> bool {
        self.lost() == 0
    }

    /// Adds another round of the same transport.
    pub fn add(&mut self, other: Tally) {
        self.samples.extend(other.samples);
        self.sent += other.sent;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
        self.cut_off |= other.cut_off;
    }

    /// The figures of its latencies.
    pub fn figures(&self) -> Figures {
        Figures::of(self.samples.iter().map(|sample| sample.latency_ns).collect())
    }
}

/// Latency figures, exact, ms.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Mean.
    pub mean: f64,
    /// Standard deviation: what the paper calls jitter.
    pub sd: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// The longest.
    pub max: f64,
    /// Share over 60 ms, percent.
    pub over_60: f64,
    /// Share over 100 ms, percent.
    pub over_100: f64,
}

impl Figures {
    /// Of these latencies, ns. All zero if there are none.
    pub fn of(mut latencies: Vec<u64>) -> Figures {
        if latencies.is_empty() {
            return Figures::default();
        }
        latencies.sort_unstable();
        let count = latencies.len() as f64;
        let ms = |ns: u64| ns as f64 / 1e6;
        let mean = latencies.iter().map(|&ns| ms(ns)).sum::<f64>() / count;
        let variance = latencies.iter().map(|&ns| (ms(ns) - mean).powi(2)).sum::<f64>() / count;
        // Nearest rank: the least latency that at least this share does not exceed.
        let at = |share: f64| ms(latencies[((share * count).ceil() as usize).clamp(1, latencies.len()) - 1]);
        let over = |limit: u64| {
            let within = latencies.partition_point(|&ns| ns <= limit * 1_000_000);
            100.0 * (count - within as f64) / count
        };
        Figures {
            mean,
            sd: variance.sqrt(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
            over_60: over(60),
            over_100: over(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sequence: u64, intended_ms: u64) -> Vec<u8> {
        let mut message = vec![0; 40];
        Stamp { sequence, intended: Instant::from_millis(intended_ms) }.write(&mut message);
        message
    }

    #[test]
    fn loss_duplicates_and_reordering_are_counted() {
        let mut tally = Tally::new(5);
        for (sequence, at) in [(0, 50), (2, 52), (1, 53), (2, 54), (4, 60)] {
            tally.arrived(&message(sequence, sequence), Instant::from_millis(at));
        }
        tally.arrived(&message(5, 0), Instant::from_millis(61));
        tally.arrived(b"noise", Instant::from_millis(61));
        assert_eq!((tally.received(), tally.lost(), tally.duplicated, tally.reordered, tally.foreign), (4, 1, 1, 1, 2));
        assert_eq!(tally.samples[2].latency_ns, 52_000_000);
        let mut other = Tally::new(1);
        other.arrived(&message(0, 0), Instant::from_millis(1));
        tally.add(other);
        assert_eq!((tally.received(), tally.lost(), tally.sent), (5, 1, 6));
    }

    #[test]
    fn figures_are_exact() {
        let figures = Figures::of((1..=1000).map(|ms| ms * 1_000_000).rev().collect());
        assert_eq!((figures.p50, figures.p90, figures.p99, figures.p999, figures.max), (500., 900., 990., 999., 1000.));
        assert!((figures.mean - 500.5).abs() < 1e-9 && (figures.sd - 288.675).abs() < 1e-3, "{figures:?}");
        assert_eq!((figures.over_60, figures.over_100), (94.0, 90.0));
        assert_eq!(Figures::of(vec![]), Figures::default());
        assert_eq!(Figures::of(vec![7_000_000]).p999, 7.0);
    }
}

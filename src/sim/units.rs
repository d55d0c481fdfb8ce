//! Times in scenario files: numbers with a fraction, exact to the nanosecond.

/// A duration as milliseconds.
pub(super) mod millis {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(in crate::sim) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_nanos() as f64 / 1e6)
    }

    pub(in crate::sim) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let millis = f64::deserialize(deserializer)?;
        if !(0.0..1e12).contains(&millis) {
            return Err(serde::de::Error::custom("milliseconds from 0 to 10^12 are meant"));
        }
        Ok(Duration::from_nanos((millis * 1e6).round() as u64))
    }
}

/// A moment as seconds since the start.
pub(super) mod seconds {
    use crate::base::Instant;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::sim) fn serialize<S: Serializer>(at: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(at.as_nanos() as f64 / 1e9)
    }

    pub(in crate::sim) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Instant, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if !(0.0..1e6).contains(&seconds) {
            return Err(serde::de::Error::custom("seconds from 0 to 10^6 are meant"));
        }
        Ok(Instant::from_nanos((seconds * 1e9).round() as u64))
    }
}

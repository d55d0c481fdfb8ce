//! Statistics as readers of JSON want them.

use serde_json::Value;

/// Rewrites what JSON readers cannot use at once: durations as serde writes them (`{"secs", "nanos"}`) become
/// milliseconds, and their keys say so.
pub fn friendly(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(friendly).collect(),
        Value::Object(entries) => {
            let rename = |(key, value): (String, Value)| match milliseconds(&value) {
                Some(number) => (key + "_ms", number.into()),
                None => (key, friendly(value)),
            };
            Value::Object(entries.into_iter().map(rename).collect())
        }
        other => other,
    }
}

fn milliseconds(value: &Value) -> Option<f64> {
    let entries = value.as_object().filter(|entries| entries.len() == 2)?;
    let (secs, nanos) = (entries.get("secs")?.as_u64()?, entries.get("nanos")?.as_u64()?);
    Some(secs as f64 * 1e3 + nanos as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_become_milliseconds() {
        let value = json!([{"metrics": {"rtt": {"secs": 1, "nanos": 500_000}, "loss_ppm": 3}, "secs": 4}]);
        assert_eq!(friendly(value), json!([{"metrics": {"rtt_ms": 1000.5, "loss_ppm": 3}, "secs": 4}]));
    }
}

//! What a figure among a router's statistics is, by its name.

/// Figures that come and go.
const GAUGES: [&str; 30] = [
    "pool",
    "core",
    "in_use",
    "slots",
    "stranded",
    "waiting",
    "peak",
    "window",
    "in_flight",
    "pacing_rate",
    "queue",
    "unacknowledged",
    "pmtu",
    "up",
    "link",
    "since_ms",
    "reports_waiting",
    "clock_ahead_us",
    "clock_error_us",
    "sessions",
    "flows",
    "flows_known",
    "flows_told",
    "view_members",
    "sets_configured",
    "sets_covered",
    "sets_owned",
    "known",
    "processes",
    "local_processes",
];

/// Whether the figure at the end of this path (keys joined by dots) comes and goes; if not it only grows, and its change
/// is a rate.
pub fn is_gauge(path: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or(path);
    GAUGES.contains(&last)
        || path.starts_with("metrics")
        || ["_peak", "_us", "_ms", "_ppm"].iter().any(|end| last.ends_with(end))
}

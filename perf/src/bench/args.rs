//! What the measurements of a router take.

use clap::Args;
use sinew::config::settings::Congestion;
use std::path::PathBuf;

/// Options of every measurement.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Seconds of each cell, after a warm-up of 0.4 s
    #[arg(long, default_value_t = 1.5, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Rounds, each with all cells one after the other
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Messages between source and sink, at most; fewer where receive buffers are small
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) window: u32,
    /// System calls of the router's worker
    #[arg(long, default_value = "auto", value_parser = ["auto", "uring", "mmsg"])]
    pub(crate) io: String,
    /// Whether the router's datagrams pass the kernel in trains
    #[arg(long, default_value = "auto", value_parser = ["auto", "on", "off"])]
    pub(crate) offload: String,
    /// Congestion control of all links: cubic, or a rate such as 10gbit
    #[arg(long, default_value = "cubic", value_parser = congestion)]
    pub(crate) congestion: Written,
    /// Only the cells whose names contain this, and those they are compared with
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) only: String,
    /// Print JSON, with every round
    #[arg(long)]
    pub(crate) json: bool,
    /// Draw the figures too, into this file: SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) picture: Option<PathBuf>,
}

/// Congestion control as written and as meant.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) text: String,
    pub(crate) meant: Congestion,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is expected".to_owned())?;
    if (0.1..=600.0).contains(&seconds) { Ok(seconds) } else { Err("from 0.1 to 600".into()) }
}

fn congestion(text: &str) -> Result<Written, String> {
    let meant = match text {
        "cubic" => Congestion::Cubic,
        rate => Congestion::FixedKbps((sinew::config::units::rate(rate)? / 1000).max(8)),
    };
    Ok(Written { text: text.into(), meant })
}

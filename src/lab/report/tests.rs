//! What the charts of a sweep show.

use super::*;
use crate::lab::args::Experiment;
use crate::lab::ladder::Mode;

/// A sweep of losses and one of hops, both through five hops at 1 %.
fn outcome() -> Outcome {
    let mut outcome = Outcome::new(Experiment::Dsn03, Mode::User, 1, false);
    let mut add = |sweep, hops: usize, loss_percent, mean_ms, collapsed| {
        let (cell, rate_kbps, link_delay_ms) = (outcome.cells.len(), 500, 50.0 / hops as f64);
        outcome.runs.push(Run {
            transport: "tcp-cubic".into(),
            loss_percent,
            rate_kbps,
            hops,
            link_delay_ms,
            mean_ms,
            collapsed,
            cell,
            ..Run::default()
        });
        outcome.cells.push(Cell {
            sweep,
            loss_percent,
            rate_kbps,
            hops,
            link_delay_ms,
            noise: Noise::default(),
            links: vec![],
            overlay: crate::lab::outcome::OverlayTraffic::default(),
        });
    };
    for (step, collapsed) in [(0, false), (1, false), (2, true)] {
        add(Sweep::Loss, 5, f64::from(step), 61.0, collapsed);
    }
    for hops in [1, 5, 10] {
        add(Sweep::Hops, hops, 1.0, 70.0 + hops as f64, false);
    }
    outcome
}

fn chart<'a>(charts: &'a [Chart], title: &str) -> &'a Chart {
    charts.iter().find(|chart| chart.title.starts_with(title)).expect("is drawn")
}

#[test]
fn each_sweep_draws_its_own_points() {
    let charts = sweeps(&outcome());
    let hops = &chart(&charts, "Mean delay against hops").series;
    assert_eq!(hops[0].points, [(1.0, 71.0), (5.0, 75.0), (10.0, 80.0)]);
    assert_eq!(hops[1].points, paper::HOPS_MEAN);
    assert_eq!(chart(&charts, "Mean delay against loss, 500").series[0].points[..2], [(0.0, 61.0), (1.0, 61.0)]);
}

#[test]
fn a_collapse_is_drawn_off_the_chart_and_named() {
    let charts = sweeps(&outcome());
    let chart = chart(&charts, "Mean delay against loss, 500");
    assert_eq!(chart.series[0].points[2], (2.0, f64::INFINITY));
    let (text, note) = (chart.render(), &chart.note);
    assert!(text.contains("tcp-cubic: collapsed") && note.contains("off the chart"), "{text}");
    assert!(matches!(chart.y.0, Scale::Linear(_, to) if to <= 500.0));
}

//! Applying a new configuration to a running router.

use super::Control;
use super::links::{Link, free_id};
use super::resolved::{Resolved, metric};
use crate::base::{DownReason, Instant};
use crate::config::plan::{self, LinkStep};
use crate::config::settings::Config;
use crate::dataplane::messages::{Command, LinkSpec};
use crate::proto::routing;
use crate::wire::admin::Response;

impl Control {
    /// Applies what can be applied, or nothing at all if the configuration is not valid.
    pub(super) fn reload(&mut self, now: Instant, config: Result<Box<Config>, String>) -> Response {
        let config = match config {
            Ok(config) => config,
            Err(message) => return refused(&message),
        };
        let resolved = match Resolved::new(&config, &self.identity) {
            Ok(resolved) => resolved,
            Err(message) => return refused(&message),
        };
        let plan = plan::plan(&self.config, &config);
        if plan.members {
            let members = resolved.members.values().copied().collect();
            self.routing.handle(now, routing::Input::Members(members));
        }
        self.names = resolved.names;
        self.relink(now, &plan, resolved.links);
        if plan.metric {
            self.routing.handle(now, routing::Input::Metric(metric(config.routing.metric)));
        }
        self.config = plan::in_force(&self.config, *config);
        for line in &plan.applied {
            tracing::info!("reload: {line}");
        }
        for line in &plan.not_applied {
            tracing::warn!("reload: {line}");
        }
        if plan.applied.is_empty() && plan.not_applied.is_empty() {
            tracing::info!("reload: nothing has changed");
        }
        Response::Reloaded { applied: plan.applied, not_applied: plan.not_applied }
    }

    /// Takes links down and puts links up so that they are those of the new configuration, in its order.
    fn relink(&mut self, now: Instant, plan: &plan::Plan, specs: Vec<LinkSpec>) {
        let mut before: Vec<Option<Link>> = std::mem::take(&mut self.links).into_iter().map(Some).collect();
        let replaced = plan.links.iter().filter_map(|step| match step {
            LinkStep::Replace(place) => Some(*place),
            LinkStep::Keep(_) | LinkStep::Repath(_) | LinkStep::Add => None,
        });
        let mut dropped = Vec::new();
        for place in replaced.chain(plan.removed.iter().copied()) {
            let link = before[place].take().expect("a plan names every old link once");
            self.drop_link(now, &link);
            dropped.push(link);
        }
        let kept = plan.links.iter().map(|step| match step {
            LinkStep::Keep(place) | LinkStep::Repath(place) => before[*place].take(),
            LinkStep::Replace(_) | LinkStep::Add => None,
        });
        let kept: Vec<Option<Link>> = kept.collect();
        // New links get numbers that no kept link has, wherever in the order the kept ones are.
        let taken: Vec<_> = kept.iter().flatten().map(|link| link.id).collect();
        for ((link, spec), step) in kept.into_iter().zip(specs).zip(&plan.links) {
            match link {
                Some(mut link) => {
                    if matches!(step, LinkStep::Repath(_)) {
                        link.set_paths(spec.paths);
                        for worker in 0..self.config.workers.count {
                            self.command(worker, Command::SetPaths(link.id, link.lane_paths(worker)));
                        }
                    }
                    self.links.push(link);
                }
                None => {
                    let mut in_use = taken.clone();
                    in_use.extend(self.links.iter().map(|link| link.id));
                    let id = free_id(&in_use, &mut self.last_link).expect("links are at most MAX_LINKS");
                    self.add_link(now, id, spec);
                }
            }
        }
        for link in dropped.iter().filter(|link| link.is_up()) {
            self.lose_member(now, link.peer, DownReason::Removed, link.dead());
        }
    }

    fn drop_link(&mut self, now: Instant, link: &Link) {
        if link.is_up() {
            let reason = DownReason::Removed;
            self.routing.handle(now, routing::Input::LinkDown { link: link.id, reason });
        }
        self.routing.handle(now, routing::Input::RemoveLink(link.id));
        // What routing says about it goes out first, over the links that stay.
        self.pump_routing();
        self.command_all(&Command::RemoveLink(link.id));
    }
}

fn refused(message: &str) -> Response {
    tracing::error!("reload refused, nothing was changed: {message}");
    Response::Error { message: format!("the new configuration is not valid, nothing was changed: {message}") }
}

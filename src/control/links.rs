//! What control knows of this router's links.
//!
//! A link has one lane for each pair of workers, k here and k there: as many as the end with fewer has. Each end says with
//! every hello how many it has, so what one of them is configured to cannot contradict the other, and one that comes
//! back with another number says so in time: hellos go over lane 0, which every link has, and come before the link is up.
//! The other lanes are asked for then; until then, and where the neighbour has fewer workers, they only listen.
//!
//! A link is up while all its lanes are, because a flow's hash, not control, picks the lane; its measurements are the
//! worst of its lanes. Control messages go by lane 0.

use crate::base::limits::MAX_LINKS;
use crate::base::{DownReason, Instant, LinkId, LinkMetrics, NodeId, Obstacle};
use crate::dataplane::messages::{Command, LinkSpec, MoveReason, PathSpec};
use crate::proto::routing::Input;
use crate::wire::admin::{LinkEntry, NEVER_HEARD};
use std::net::SocketAddr;
use std::time::Duration;

/// What seems to keep a link down is said in the log no sooner after the last time, unless more is known.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// A link of this router.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) peer: NodeId,
    /// As configured: lane 0's.
    spec: LinkSpec,
    remote: Option<SocketAddr>,
    /// By worker.
    lanes: Vec<Option<LinkMetrics>>,
    /// Workers of the neighbour, as it said last.
    theirs: usize,
    /// Lanes that the neighbour was asked for: lane 0 always.
    asked: usize,
    up: bool,
    since: Instant,
    down_reason: Option<DownReason>,
    /// What seems to keep it down.
    obstacle: Option<Obstacle>,
    /// What the log said of that last, and when.
    said: Option<(Obstacle, Instant)>,
}

impl Link {
    /// A link that is down.
    pub(super) fn new(now: Instant, id: LinkId, spec: LinkSpec, workers: usize) -> Link {
        Link {
            id,
            peer: spec.peer.node_id(),
            remote: spec.paths.first().map(|path| path.pair.remote),
            spec,
            lanes: vec![None; workers],
            theirs: 1,
            asked: 1,
            up: false,
            since: now,
            down_reason: None,
            obstacle: None,
            said: None,
        }
    }

    pub(super) const fn is_up(&self) -> bool {
        self.up
    }

    /// After so long of silence it goes down.
    pub(super) const fn dead(&self) -> Duration {
        self.spec.settings.dead
    }

    /// Lanes it has.
    pub(super) fn lanes(&self) -> usize {
        self.lanes.len().min(self.theirs)
    }

    /// The link as this worker has it: its lane leads to the neighbour's ports of the same number, and listens for now
    /// unless it is lane 0.
    pub(super) fn lane_spec(&self, worker: usize) -> LinkSpec {
        let mut spec = LinkSpec { paths: self.lane_paths(worker), asks: worker == 0, ..self.spec.clone() };
        // Those that run, whatever the configuration says that was read since.
        spec.settings.workers = u8::try_from(self.lanes.len()).expect("workers are few");
        spec
    }

    /// The paths of this worker's lane.
    pub(super) fn lane_paths(&self, worker: usize) -> Vec<PathSpec> {
        let beside = |path: &PathSpec| {
            let port = usize::from(path.pair.remote.port()) + worker;
            let mut path = *path;
            path.pair.remote.set_port(u16::try_from(port).ok()?);
            Some(path)
        };
        self.spec.paths.iter().filter_map(beside).collect()
    }

    /// Uses these paths from now on.
    pub(super) fn set_paths(&mut self, paths: Vec<PathSpec>) {
        self.spec.paths = paths;
    }

    /// What workers must do so that the lanes the link has are asked for, and no others.
    pub(super) fn ask(&mut self) -> Vec<(usize, Command)> {
        let (before, lanes) = (self.asked, self.lanes());
        self.asked = lanes;
        let more = (before..lanes).map(|worker| (worker, Command::AskLink(self.id)));
        let fewer = (lanes..before).map(|worker| (worker, Command::AddLink(self.id, Box::new(self.lane_spec(worker)))));
        more.chain(fewer).collect()
    }

    /// A lane came up, and says how many workers the neighbour has; what routing must hear.
    pub(super) fn lane_up(
        &mut self,
        now: Instant,
        worker: usize,
        remote: SocketAddr,
        metrics: LinkMetrics,
        theirs: usize,
    ) -> Option<Input> {
        self.lanes[worker] = Some(metrics);
        self.lane_moved(worker, remote);
        if worker == 0 {
            self.theirs = theirs;
        }
        let Some(metrics) = self.metrics() else {
            // It has more lanes than it had.
            return self.take_down(now, DownReason::Restarted);
        };
        if !std::mem::replace(&mut self.up, true) {
            self.since = now;
        }
        (self.obstacle, self.said) = (None, None);
        Some(Input::LinkUp { link: self.id, metrics })
    }

    /// Something seems to keep a lane down, or nothing any more; what the log must say.
    pub(super) fn lane_obstructed(&mut self, now: Instant, obstacle: Option<Obstacle>) -> Option<Obstacle> {
        self.obstacle = obstacle;
        let news = obstacle.filter(|_| !self.up)?;
        let say = self.said.is_none_or(|(said, at)| news > said || now.since(at) >= SAY_AGAIN);
        say.then(|| self.said.insert((news, now)).0)
    }

    /// The other end of a lane goes on at another address. The link's is that of lane 0.
    pub(super) const fn lane_moved(&mut self, worker: usize, remote: SocketAddr) {
        if worker == 0 {
            self.remote = Some(remote);
        }
    }

    /// A lane went down; what routing must hear.
    pub(super) fn lane_down(&mut self, now: Instant, worker: usize, reason: DownReason) -> Option<Input> {
        self.lanes[worker] = None;
        if worker >= self.lanes() {
            return None;
        }
        self.down_reason = Some(reason);
        self.take_down(now, reason)
    }

    fn take_down(&mut self, now: Instant, reason: DownReason) -> Option<Input> {
        if !std::mem::replace(&mut self.up, false) {
            return None;
        }
        self.since = now;
        self.down_reason = Some(reason);
        Some(Input::LinkDown { link: self.id, reason })
    }

    /// A lane was measured; what routing must hear.
    pub(super) fn lane_measured(&mut self, worker: usize, metrics: LinkMetrics) -> Option<Input> {
        let lane = self.lanes[worker].as_mut()?;
        *lane = metrics;
        let metrics = self.metrics()?;
        Some(Input::LinkMeasured { link: self.id, metrics })
    }

    /// The worst of all lanes; `None` while one is down.
    fn metrics(&self) -> Option<LinkMetrics> {
        let worst = |a: LinkMetrics, b: LinkMetrics| LinkMetrics {
            rtt: a.rtt.max(b.rtt),
            jitter: a.jitter.max(b.jitter),
            loss_ppm: a.loss_ppm.max(b.loss_ppm),
        };
        self.lanes[..self.lanes()]
            .iter()
            .try_fold(LinkMetrics::default(), |sum, lane| lane.map(|lane| worst(sum, lane)))
    }

    /// What keeps a link down whose neighbour is heard: most likely a firewall that lets the first port pass alone.
    fn silent_lane(&self) -> Option<String> {
        let lanes = &self.lanes[..self.lanes()];
        let silent = lanes.iter().position(Option::is_none).filter(|_| lanes[0].is_some())?;
        let port = self.remote.map_or(0, |remote| usize::from(remote.port()) + silent);
        Some(format!("lane {silent} of {} is not up: does UDP pass to port {port}, and back?", lanes.len()))
    }

    /// As users see it.
    pub(super) fn entry(&self, now: Instant, peer: String) -> LinkEntry {
        LinkEntry {
            peer,
            node: self.peer,
            remote: self.remote,
            up: self.up,
            down_reason: self.silent_lane().or_else(|| match self.down_reason {
                Some(reason) => Some(describe(reason).to_owned()),
                None => (!self.up).then(|| NEVER_HEARD.to_owned()),
            }),
            obstacle: self.obstacle.filter(|_| !self.up),
            since_s: now.since(self.since).as_secs_f64(),
            metrics: self.metrics().unwrap_or_default(),
        }
    }
}

/// Why a link went down, for people.
pub(super) const fn describe(reason: DownReason) -> &'static str {
    match reason {
        DownReason::Silence => "nothing was heard for too long",
        DownReason::Refused => "nothing listens at the other end",
        DownReason::Closed => "the other end left",
        DownReason::Restarted => "the other end restarted",
        DownReason::Removed => "removed by configuration",
        DownReason::TooNarrow => "the path does not carry full datagrams",
    }
}

/// Why a link goes on by another path, for people.
pub(super) const fn why_moved(reason: MoveReason) -> &'static str {
    match reason {
        MoveReason::Dead(DownReason::Silence) => "nothing was heard on the path before for too long",
        MoveReason::Dead(DownReason::Refused) => "nothing listens at the other end of the path before",
        MoveReason::Dead(DownReason::TooNarrow) => "the path before does not carry full datagrams",
        MoveReason::Dead(_) => "the path before is dead",
        MoveReason::Better => "it is better than the path before",
        MoveReason::Roamed => "the other end speaks from there now",
        MoveReason::Unlisted => "the path before is not in the configuration any more",
    }
}

/// An id for a new link: not in use, and not used lately, so that what a worker still reports of a removed link is not
/// taken for the new one's. `last` is the id given out last.
pub(super) fn free_id(in_use: &[LinkId], last: &mut LinkId) -> Option<LinkId> {
    let after = last.index();
    let candidates = (1..=MAX_LINKS).map(|step| LinkId(((after + step) % MAX_LINKS) as u16));
    let id = candidates.into_iter().find(|id| !in_use.contains(id))?;
    *last = id;
    Some(id)
}

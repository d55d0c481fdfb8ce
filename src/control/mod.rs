//! Floor 4: control, the protocols that are not per packet, composed; also the answers to commands and applications.
//!
//! Sans-IO: the driver (runtime/ or sim/) carries [`Input`]s in and [`Action`]s out and calls back when
//! [`Control::poll_timeout`] says so. After every call the driver drains [`Control::poll_action`].
//!
//! # Flows
//! - *Links.* Workers report links up, down and measured; routing hears it, and its routes become an immutable
//!   [`Table`] that every worker installs. Control messages go out by worker 0 and are taken from any.
//!   A link has as many lanes as the end with fewer workers has (`links.rs`).
//! - *Sessions.* A request to open becomes a command to one worker; its answer becomes [`Action::Attach`] (the driver
//!   makes a socket pair, one end to the worker, one to the application) or, for a listener, a plain answer. A session
//!   with a descriptor lives by that descriptor; a listener lives by its connection.
//! - *Reload.* A new configuration is checked, compared with the one in force ([`crate::config::plan`]) and applied as
//!   far as a running router can, or refused as a whole.
//! - *Service addresses.* Links up and down tell membership who is together; its views and messages go to vip, whose
//!   commands go to the host side ([`Action::Host`]), whose reports come back (`cluster.rs`). What host sides tell each
//!   other of the flows that go with an address is carried, not read ([`Input::HostSays`], [`Action::HostHears`]).
//! - *Process groups.* Routes tell a membership of their own who is together; clients join groups on it, and are told views
//!   and messages by their connections ([`Action::Tell`], `groups/`).
//! - *Leaving.* Service addresses are handed over. Then routing withdraws all links; 20 ms later, when the network had
//!   time to route around, the workers say goodbye; the process may end when all links are down, or 50 ms after that.
//!
//! # Bounds
//! Connections, waiting requests and listeners: `clients.rs`. Sessions: workers refuse beyond their limit. Links and
//! members: the configuration. Actions: drained after every call, whose work its input bounds.

mod clients;
mod cluster;
mod door;
mod groups;
mod links;
mod processes;
mod reload;
mod resolved;
mod sessions;
mod show;
mod stats;
mod strangers;
#[cfg(test)]
mod tests;
mod vips;

pub use crate::proto::vip::{HostCommand, HostReport};
pub use door::{Action, ClientId, Input, Reason};

use crate::base::limits::MAX_LINKS;
use crate::base::time::sooner;
use crate::base::{
    AddressPair, DownReason, Identity, Instant, LinkId, LinkMetrics, NodeId, Obstacle, Port, PublicIdentity, Rng,
    SessionId, WallTime,
};
use crate::config::settings::{Config, Member};
use crate::dataplane::messages::{
    Command, LinkSpec, MoveReason, Report, SessionKind, SessionReport, ShardStats, Stranger,
};
use crate::forwarding::Table;
use crate::proto::membership::{Membership, Settings as Group};
use crate::proto::routing::{self, Routing};
use crate::proto::vip;
use crate::telemetry::hlog;
use crate::wire;
use crate::wire::admin::{Request, Response, VipOrder};
use crate::wire::client::Endpoint;
use clients::{Admission, Clients, Pending, Waiting};
pub use cluster::Witnessed;
use cluster::{Cluster, Wanted};
use groups::ProcessGroups;
use links::{Link, describe, free_id, why_moved};
use resolved::{Resolved, metric};
use serde_json::Value;
use sessions::{Attachment, Listener, Opening, Sessions};
use stats::Collector;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use strangers::Strangers;
use vips::NO_CLUSTER;

/// Between withdrawing the links from the map and taking them down: time for the network to route around.
const LEAVE_GRACE: Duration = Duration::from_millis(20);
/// Between telling the workers and ending, at most.
const EXIT_AFTER: Duration = Duration::from_millis(50);

/// Where a router is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// Service addresses are handed over.
    HandingOver,
    /// Links are withdrawn from the map; the workers are told at this moment.
    Withdrawn(Instant),
    /// The workers were told; the process ends at this moment at the latest.
    Told(Instant),
    Done,
}

/// The control plane of one router.
#[derive(Debug)]
pub struct Control {
    config: Config,
    identity: Identity,
    node: NodeId,
    io: String,
    names: BTreeMap<NodeId, String>,
    strangers: Strangers,
    links: Vec<Link>,
    last_link: LinkId,
    routing: Routing,
    table: Arc<Table>,
    /// The table has changed, and process groups were not told yet.
    rerouted: bool,
    clients: Clients,
    sessions: Sessions,
    collector: Collector,
    session_collector: Collector,
    /// Workers' histograms of the round under way, as they are shown.
    histograms: BTreeMap<usize, Value>,
    /// If this router shares service addresses with others.
    cluster: Option<Box<Cluster>>,
    /// If this router has process groups.
    groups: Option<Box<ProcessGroups>>,
    leaving: Leaving,
    /// Control messages of protocols that this version does not know, or over links that are gone.
    refused_messages: u64,
    actions: VecDeque<Action>,
}

impl Control {
    /// Control of the router that `config` describes and `identity` is. `epoch` is the wall clock at the start; `io`
    /// says which system calls the workers use, and why. Fails with all mistakes of the configuration, one a line.
    pub fn new(
        now: Instant,
        config: Config,
        identity: Identity,
        epoch: WallTime,
        io: String,
        mut rng: Rng,
    ) -> Result<Control, String> {
        let resolved = Resolved::new(&config, &identity)?;
        let workers = config.workers.count;
        if workers == 0 {
            return Err("at least one worker is needed".to_owned());
        }
        let node = identity.public().node_id();
        let members = resolved.members.values().copied().collect();
        let metric = metric(config.routing.metric);
        let cluster = resolved.cluster.map(|(group, settings)| {
            let group = Group { incarnation: epoch.as_nanos(), ..group };
            Box::new(Cluster::new(now, group, settings, &mut rng))
        });
        let groups = resolved.groups.map(|(group, members)| {
            let group = Group { incarnation: epoch.as_nanos(), ..group };
            Box::new(ProcessGroups::new(now, group, &members, &mut rng))
        });
        let mut control = Control {
            cluster,
            groups,
            routing: Routing::new(now, identity.clone(), members, metric, epoch, rng.fork()),
            config,
            identity,
            node,
            io,
            names: resolved.names,
            strangers: Strangers::default(),
            links: Vec::new(),
            last_link: LinkId(MAX_LINKS as u16 - 1),
            table: Arc::new(Table::empty(node).among(workers, [])),
            rerouted: false,
            clients: Clients::default(),
            sessions: Sessions::new(workers),
            collector: Collector::new(workers),
            session_collector: Collector::new(workers),
            histograms: BTreeMap::new(),
            leaving: Leaving::No,
            refused_messages: 0,
            actions: VecDeque::new(),
        };
        for spec in resolved.links {
            let in_use: Vec<_> = control.links.iter().map(|link| link.id).collect();
            let id = free_id(&in_use, &mut control.last_link).expect("links are at most MAX_LINKS");
            control.add_link(now, id, spec);
        }
        control.command_all(&Command::InstallTable(control.table.clone()));
        control.advance(now);
        Ok(control)
    }

    /// Takes in what happened. All that is due at `now` is done too.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Report { worker, report } => self.report(now, worker, report),
            Input::Request { client, request } => self.request(now, client, request),
            Input::ClientGone(client) => self.client_gone(now, client, false),
            Input::ClientSlow(client) => self.client_gone(now, client, true),
            Input::SessionAttachFailed(session) => self.attach_failed(session),
            Input::Reload(config) => self.reloaded(now, config),
            Input::Beat => {
                if let Some(cluster) = &mut self.cluster {
                    cluster.beat(now);
                }
            }
            Input::Ended(node) => self.suspect(node),
            Input::Host(report) => {
                if let HostReport::Carrier { up: false, addresses, .. } = &report {
                    // What members must hear of it takes another path, where there is one.
                    let addresses: Arc<[IpAddr]> = addresses.as_slice().into();
                    self.command_all(&Command::CarrierLost(addresses));
                }
                self.of_host(now, vip::Input::Host(report));
            }
            Input::Health { check, ok } => self.of_host(now, vip::Input::Health { check, ok }),
            Input::HostSays { to, bytes } => self.host_says(to, &bytes),
            Input::Shutdown => self.leave(now),
            Input::Timer => {}
        }
        self.advance(now);
    }

    /// The routers a route leads to.
    pub fn reachable(&self) -> BTreeSet<NodeId> {
        self.table.routes().iter().map(|route| route.0).collect()
    }

    /// A number that differs where link-state databases differ.
    pub const fn database_fingerprint(&self) -> u64 {
        self.routing.fingerprint()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// There is no room now for this action, which was polled last: it is the next thing to do, unless it is void by then.
    pub fn give_back(&mut self, action: Action) {
        self.actions.push_front(action);
    }

    /// When this router last found that it had stood still for longer than the lease of its service addresses: what the host
    /// side was told before is void, and what it holds since before is lost.
    pub fn woke(&self) -> Option<Instant> {
        self.cluster.as_ref()?.woke()
    }

    /// When [`Input::Timer`] is due, and for what. May be in the past.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        let routing = self.routing.poll_timeout().map(|(at, reason)| (at, Reason::Routing(reason)));
        let rounds = [&self.collector, &self.session_collector];
        let stats = rounds.into_iter().filter_map(Collector::deadline).min().map(|at| (at, Reason::Stats));
        let leave = match self.leaving {
            Leaving::Withdrawn(at) | Leaving::Told(at) => Some((at, Reason::Leave)),
            Leaving::No | Leaving::HandingOver | Leaving::Done => None,
        };
        let cluster = self.cluster.as_ref().and_then(|cluster| cluster.poll_timeout());
        let cluster = cluster.map(|at| (at, Reason::Cluster));
        let groups = self.groups.as_ref().and_then(|groups| groups.poll_timeout()).map(|at| (at, Reason::Groups));
        sooner(sooner(sooner(sooner(routing, stats), leave), cluster), groups)
    }

    /// The router's id.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// The link to this neighbour.
    pub fn link_to(&self, peer: NodeId) -> Option<LinkId> {
        self.links.iter().find(|link| link.peer == peer).map(|link| link.id)
    }

    /// Whether a link, and so every lane of it, is up.
    pub fn is_up(&self, link: LinkId) -> bool {
        self.links.iter().any(|known| known.id == link && known.is_up())
    }

    /// The neighbour at the other end of a link.
    pub fn neighbour(&self, link: LinkId) -> Option<NodeId> {
        self.links.iter().find(|known| known.id == link).map(|known| known.peer)
    }

    /// All links.
    pub fn link_ids(&self) -> Vec<LinkId> {
        self.links.iter().map(|link| link.id).collect()
    }

    /// Control messages of protocols that this version does not know, or over links that are gone.
    pub const fn refused_messages(&self) -> u64 {
        self.refused_messages
    }

    /// Routing's state, for views and checkers.
    pub const fn routing(&self) -> &Routing {
        &self.routing
    }

    /// The table that workers were given last.
    pub const fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Who is together with this router, if it shares service addresses with others.
    pub fn membership(&self) -> Option<&Membership> {
        Some(self.cluster.as_ref()?.membership())
    }

    /// The service addresses that it shares with others, if it does.
    pub fn service_addresses(&self) -> Option<&vip::Vip> {
        Some(self.cluster.as_ref()?.vip())
    }

    /// What passes between membership and service addresses is written down from now on: right after the start.
    pub fn witness(&mut self) {
        if let Some(cluster) = &mut self.cluster {
            cluster.witness();
        }
    }

    /// What was written down since this was asked last. Whoever lets it be written down takes it soon.
    pub fn take_witnessed(&mut self) -> Vec<Witnessed> {
        self.cluster.as_mut().map(|cluster| cluster.take_witnessed()).unwrap_or_default()
    }

    fn advance(&mut self, now: Instant) {
        if self.routing.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.routing.handle(now, routing::Input::Timer);
        }
        self.pump_routing();
        self.advance_cluster(now);
        self.advance_groups(now);
        let no_answer = |silent| {
            let message = format!("no answer from worker {silent:?} in {} ms: try again", stats::PATIENCE.as_millis());
            Response::Error { message }
        };
        if let Some((round, silent)) = self.collector.expire(now) {
            self.finish_round(now, round, &no_answer(silent));
        }
        if let Some((round, silent)) = self.session_collector.expire(now) {
            self.finish_session_round(now, round, &no_answer(silent));
        }
        self.advance_leaving(now);
    }

    fn command(&mut self, worker: usize, command: Command) {
        self.actions.push_back(Action::Command { worker, command });
    }

    fn command_all(&mut self, command: &Command) {
        for worker in 0..self.config.workers.count {
            self.command(worker, command.clone());
        }
    }

    // --- links and routing -------------------------------------------------------------------------------------------

    fn add_link(&mut self, now: Instant, id: LinkId, spec: LinkSpec) {
        let link = Link::new(now, id, spec, self.config.workers.count);
        self.routing.handle(now, routing::Input::AddLink { link: id, peer: link.peer });
        for worker in 0..self.config.workers.count {
            self.command(worker, Command::AddLink(id, Box::new(link.lane_spec(worker))));
        }
        self.links.push(link);
    }

    fn link(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.id == id)
    }

    /// Carries out what routing wants.
    fn pump_routing(&mut self) {
        while let Some(action) = self.routing.poll_action() {
            match action {
                routing::Action::Send { link, bytes } => {
                    self.command(0, Command::SendControl(link, bytes.into_boxed_slice()));
                }
                routing::Action::Routes(hops) => self.publish(hops),
            }
        }
    }

    /// Gives workers a table with these routes, if it says anything new.
    fn publish(&mut self, routes: impl IntoIterator<Item = (NodeId, LinkId)>) {
        let lanes = self.links.iter().map(|link| (link.id, link.lanes()));
        let table = Table::new(self.node, self.table.generation() + 1, routes).among(self.config.workers.count, lanes);
        if !table.agrees(&self.table) {
            self.table = Arc::new(table);
            self.command_all(&Command::InstallTable(self.table.clone()));
            self.rerouted = true;
        }
    }

    /// The neighbour has as many workers as before, or another number.
    fn lane_up(
        &mut self,
        now: Instant,
        worker: usize,
        report: (LinkId, SocketAddr, LinkMetrics),
        theirs: usize,
    ) -> Option<routing::Input> {
        let (id, remote, metrics) = report;
        let link = self.link(id)?;
        let heard = link.lane_up(now, worker, remote, metrics, theirs);
        for (worker, command) in link.ask() {
            self.command(worker, command);
        }
        // Before routes may use it.
        self.publish(self.table.routes().to_vec());
        heard
    }

    fn report(&mut self, now: Instant, worker: usize, report: Report) {
        assert!(worker < self.config.workers.count, "the driver numbers its workers from 0");
        let heard = match report {
            Report::LinkUp(id, remote, metrics, theirs) => {
                self.lane_up(now, worker, (id, remote, metrics), usize::from(theirs))
            }
            Report::LinkMoved(id, path, reason) => return self.link_moved(worker, id, path, reason),
            Report::LinkObstructed(id, obstacle) => return self.link_obstructed(now, id, obstacle),
            Report::Stranger(stranger) => return self.stranger(now, stranger),
            Report::LinkDown(id, reason) => self.link(id).and_then(|link| link.lane_down(now, worker, reason)),
            Report::LinkMeasured(id, metrics) => self.link(id).and_then(|link| link.lane_measured(worker, metrics)),
            Report::Control(id, bytes) => self.control_message(now, id, bytes),
            Report::Far(from, bytes) => return self.far_message(now, from, bytes),
            Report::SessionOpened(session, port) => return self.opened(now, worker, session, port),
            Report::SessionRefused(session, refusal) => {
                let message = refusal.to_string();
                return self.refused(now, session, message);
            }
            Report::SessionClosed(session) => return self.closed(worker, session),
            Report::Incoming { listener, session, peer } => return self.incoming(worker, listener, session, peer),
            Report::Stats(stats) => return self.stats(now, worker, *stats),
            Report::Sessions(sessions) => return self.sessions_of(now, worker, &sessions),
        };
        let Some(heard) = heard else { return };
        match &heard {
            routing::Input::LinkUp { link, .. } => tracing::info!("{} is up", self.link_name(*link)),
            // This router closes it: the other end is not to be blamed for that.
            routing::Input::LinkDown { link, .. } if !matches!(self.leaving, Leaving::No) => {
                tracing::info!("{} is closed", self.link_name(*link));
            }
            routing::Input::LinkDown { link, reason } => {
                tracing::warn!("{} is down: {}", self.link_name(*link), describe(*reason));
            }
            _ => {}
        }
        self.tell_cluster(now, &heard);
        self.routing.handle(now, heard);
    }

    /// Routes are not the poorer for it, so routing hears nothing of it.
    fn link_moved(&mut self, worker: usize, id: LinkId, path: AddressPair, reason: MoveReason) {
        if let Some(link) = self.link(id) {
            link.lane_moved(worker, path.remote);
            tracing::info!("{} goes on by {path}: {}", self.link_name(id), why_moved(reason));
        }
    }

    fn link_obstructed(&mut self, now: Instant, id: LinkId, obstacle: Option<Obstacle>) {
        if let Some(obstacle) = self.link(id).and_then(|link| link.lane_obstructed(now, obstacle)) {
            tracing::warn!(help = obstacle.help(), "{} does not come up: {}", self.link_name(id), obstacle.what());
        }
    }

    /// Somebody asks for a link that this configuration does not have. One that it has, its worker is about to hear of.
    fn stranger(&mut self, now: Instant, Stranger { from, key }: Stranger) {
        let public = |member: &Member| member.public.parse::<PublicIdentity>().ok();
        let asks = |member: &&Member| public(member).is_some_and(|public| public.exchange == key);
        let member = self.config.members.iter().find(asks);
        let node = member.and_then(public).map(|public| public.node_id());
        if self.links.iter().any(|link| Some(link.peer) == node) || !self.strangers.is_news(now, key) {
            return;
        }
        match member {
            Some(Member { name, .. }) => {
                let help = "add a [[link]] to it here, or remove the one to this router there";
                tracing::warn!(%from, help, "`{name}` asks for a link, and there is none to it in this configuration");
            }
            None => {
                let help = "if it is one of yours, compare the `public` of all [[member]]s with `sinew key show` there";
                tracing::warn!(%from, help, "a router asks for a link whose key is no [[member]]'s");
            }
        }
    }

    /// A link as people know it: by its neighbour's name, and which of several to it in the configuration's order.
    fn link_name(&self, id: LinkId) -> String {
        let Some(link) = self.links.iter().find(|link| link.id == id) else { return id.to_string() };
        let name = format!("link to `{}`", self.name_of(link.peer));
        let same = self.links.iter().filter(|other| other.peer == link.peer).map(|other| other.id);
        match same.clone().count() {
            1 => name,
            count => {
                let place = same.take_while(|&other| other != id).count() + 1;
                format!("{name} ({place} of {count})")
            }
        }
    }

    /// The first byte of a control message names its protocol.
    fn control_message(&mut self, now: Instant, link: LinkId, bytes: Box<[u8]>) -> Option<routing::Input> {
        let peer = self.link(link).map(|link| link.peer);
        let taken = match (peer, bytes.first(), &mut self.cluster) {
            (Some(_), Some(&wire::routing::PROTOCOL), _) => {
                return Some(routing::Input::Message { link, bytes: bytes.into_vec() });
            }
            (Some(peer), Some(&wire::membership::PROTOCOL), Some(cluster)) => {
                cluster.message(now, peer, bytes.into_vec())
            }
            (Some(peer), Some(&wire::flows::PROTOCOL), Some(cluster)) if cluster.members().contains(&peer) => {
                let holds = cluster.vip().held_by(peer).collect();
                self.actions.push_back(Action::HostHears { from: peer, holds, bytes });
                true
            }
            _ => false,
        };
        self.refused_messages += u64::from(!taken);
        None
    }

    // --- service addresses -------------------------------------------------------------------------------------------

    /// A link came up or went down. Of several to one neighbour, the first that comes and the last that goes count.
    fn tell_cluster(&mut self, now: Instant, heard: &routing::Input) {
        let (id, down) = match heard {
            routing::Input::LinkUp { link, .. } => (*link, None),
            routing::Input::LinkDown { link, reason } => (*link, Some(*reason)),
            _ => return,
        };
        let Some(link) = self.links.iter().find(|link| link.id == id) else { return };
        let (peer, dead) = (link.peer, link.dead());
        match (&mut self.cluster, down) {
            (Some(cluster), None) => cluster.reachable(now, peer),
            (_, Some(why)) => self.lose_member(now, peer, why, dead),
            _ => {}
        }
    }

    /// A neighbour's process has ended, as it seems: the links to it find out. One lane is enough to take a link down.
    fn suspect(&mut self, node: NodeId) {
        let links = self.links.iter().filter(|link| link.peer == node && link.is_up());
        let links: Vec<LinkId> = links.map(|link| link.id).collect();
        links.into_iter().for_each(|link| self.command(0, Command::Suspect(link)));
    }

    /// A link to this router is down or was removed: unless there is another, it cannot be reached.
    fn lose_member(&mut self, now: Instant, peer: NodeId, why: DownReason, dead: Duration) {
        let another = self.links.iter().any(|other| other.peer == peer && other.is_up());
        if let Some(cluster) = self.cluster.as_mut().filter(|_| !another) {
            cluster.unreachable(now, peer, why, dead);
        }
    }

    /// To members that can be reached; the others will hear of it when it is said again.
    fn host_says(&mut self, to: Option<NodeId>, bytes: &[u8]) {
        let Some(cluster) = &self.cluster else { return };
        let wanted = cluster.members().iter().filter(|&&member| to.is_none_or(|to| to == member));
        let link = |member: &NodeId| self.links.iter().find(|link| link.peer == *member && link.is_up());
        let links: Vec<LinkId> = wanted.filter_map(link).map(|link| link.id).collect();
        links.into_iter().for_each(|link| self.command(0, Command::SendControl(link, bytes.into())));
    }

    fn of_host(&mut self, now: Instant, input: vip::Input) {
        if let Some(cluster) = &mut self.cluster {
            cluster.host(now, input);
        }
    }

    /// Does what membership and vip want, and what is due there.
    fn advance_cluster(&mut self, now: Instant) {
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.poll_timeout().is_some_and(|at| at <= now) {
            cluster.handle_timeout(now);
        }
        while let Some(wanted) = self.cluster.as_mut().and_then(|cluster| cluster.poll()) {
            match wanted {
                Wanted::Send(to, bytes) => {
                    let link = self.links.iter().find(|link| link.peer == to && link.is_up()).map(|link| link.id);
                    if let Some(link) = link {
                        self.command(0, Command::SendControl(link, bytes.into_boxed_slice()));
                    }
                }
                Wanted::Host(command) => self.actions.push_back(Action::Host(command)),
                // Also what waits for a ring that has no room.
                Wanted::Void => {
                    self.actions.retain(|action| !matches!(action, Action::Host(HostCommand::Acquire { .. })));
                }
                Wanted::Answer(client, Ok(())) => self.ordered(now, client, Response::Ordered),
                Wanted::Answer(client, Err(message)) => self.ordered(now, client, Response::Error { message }),
                Wanted::Say(event) => self.say(&event),
            }
        }
    }

    /// An order was carried out, or not.
    fn ordered(&mut self, now: Instant, client: ClientId, response: Response) {
        self.reply(client, response);
        self.finish(now, client);
    }

    fn order(&mut self, now: Instant, client: ClientId, order: &VipOrder) -> bool {
        let command = self.command_of(order);
        match (command, &mut self.cluster) {
            (Ok(command), Some(cluster)) => {
                self.clients.set_pending(client, Pending::Order);
                cluster.order(now, client, command);
                false
            }
            (Err(message), _) => {
                self.reply_error(client, message);
                true
            }
            (_, None) => {
                self.reply_error(client, NO_CLUSTER);
                true
            }
        }
    }

    // --- requests ----------------------------------------------------------------------------------------------------

    fn request(&mut self, now: Instant, client: ClientId, request: Request) {
        match self.clients.admit(client, request) {
            Admission::Start(request) => {
                self.start(now, client, request);
            }
            Admission::Queued => {}
            Admission::Refused => self.reply_error(client, "the router serves too many connections: try again later"),
        }
    }

    fn reply(&mut self, client: ClientId, response: Response) {
        self.actions.push_back(Action::Reply { client, response });
    }

    fn reply_error(&mut self, client: ClientId, message: impl Into<String>) {
        self.reply(client, Response::Error { message: message.into() });
    }

    /// Begins to answer; true if the answer is given already.
    fn start(&mut self, now: Instant, client: ClientId, request: Request) -> bool {
        if self.leaving != Leaving::No {
            self.reply_error(client, "the router is shutting down");
            return true;
        }
        let response = match request {
            Request::Whoami => self.whoami(),
            Request::Nodes => self.nodes(),
            Request::Links => self.links(now),
            Request::Routes => self.routes(),
            Request::Sessions => {
                self.clients.set_pending(client, Pending::Sessions(self.session_collector.joining()));
                self.begin_session_round(now);
                return false;
            }
            Request::Stats => {
                self.clients.set_pending(client, Pending::Stats(self.collector.joining()));
                self.begin_round(now);
                return false;
            }
            Request::Histograms => {
                self.clients.set_pending(client, Pending::Histograms(self.collector.joining()));
                self.begin_round(now);
                return false;
            }
            Request::OpenDatagram { port } => return self.open(client, SessionKind::Datagram { port }),
            Request::OpenListener { port } => return self.open(client, SessionKind::Listener { port }),
            Request::OpenStream { to } => return self.open(client, SessionKind::Stream { to }),
            Request::ShareMemory { wanted } => {
                let wanted = wanted && self.config.clients.shared_memory > 0;
                self.actions.push_back(Action::ShareMemory { client, wanted });
                Response::SharesMemory { granted: wanted }
            }
            Request::Vips => self.vips(now),
            Request::Journal => self.journal(now),
            Request::Vip { order } => return self.order(now, client, &order),
            Request::Groups => self.show_groups(now),
            Request::JoinGroup { group } => return self.join_group(now, client, &group),
            Request::SendGroup { bytes } => return self.send_group(now, client, bytes),
            Request::Reload => {
                self.clients.set_pending(client, Pending::Reload);
                self.actions.push_back(Action::ReadConfig);
                return false;
            }
        };
        self.reply(client, response);
        true
    }

    /// The client's request was answered: take the next that waits.
    fn finish(&mut self, now: Instant, client: ClientId) {
        while let Some(waiting) = self.clients.next(client) {
            match waiting {
                Waiting::Request(request) => {
                    if !self.start(now, client, request) {
                        return;
                    }
                }
                Waiting::TooMany(count) => {
                    for _ in 0..count {
                        self.reply_error(client, "too many requests at once: wait for answers");
                    }
                }
            }
        }
    }

    fn client_gone(&mut self, now: Instant, client: ClientId, slow: bool) {
        let (pending, listeners) = self.clients.gone(client);
        let process = self.groups.as_mut().and_then(|groups| groups.client_gone(now, client, slow));
        if let (Some(process), true) = (process, slow) {
            let member = self.process_name(process);
            tracing::warn!(%member, "a member of a process group does not read what it is told, and was disconnected");
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.client_gone(client);
        }
        if let Some(Pending::Open(session)) = pending
            && let Some(Opening { worker, .. }) = self.sessions.opening.remove(&session)
        {
            self.command(worker, Command::CloseSession(session));
        }
        for session in listeners {
            if let Some(Listener { worker, .. }) = self.sessions.listeners.remove(&session) {
                self.command(worker, Command::CloseSession(session));
            }
        }
    }

    // --- sessions ----------------------------------------------------------------------------------------------------

    fn open(&mut self, client: ClientId, kind: SessionKind) -> bool {
        let (port, listener) = match kind {
            SessionKind::Datagram { port } => (port, false),
            SessionKind::Listener { port } => (port, true),
            SessionKind::Stream { .. } => (0, false),
        };
        if listener && !self.clients.may_listen(client) {
            self.reply_error(client, format!("a connection has at most {} listeners", clients::LISTENERS));
            return true;
        }
        let (session, worker) = self.sessions.open(client, port, listener);
        self.clients.set_pending(client, Pending::Open(session));
        self.command(worker, Command::OpenSession(session, kind));
        false
    }

    fn opened(&mut self, now: Instant, worker: usize, session: SessionId, port: Port) {
        // Unknown: its client went, and the command to close it is on its way.
        let Some(Opening { client, listener, .. }) = self.sessions.opening.remove(&session) else { return };
        let response = Response::Opened { session, port, memory: false };
        if listener {
            self.sessions.listeners.insert(session, Listener { client, worker });
            self.clients.add_listener(client, session);
            self.reply(client, response);
        } else {
            self.sessions.attached(Attachment { session, worker, waits: Some(client) });
            self.actions.push_back(Action::Attach { worker, session, client, response });
        }
        self.finish(now, client);
    }

    fn refused(&mut self, now: Instant, session: SessionId, message: String) {
        let Some(Opening { client, .. }) = self.sessions.opening.remove(&session) else { return };
        self.reply_error(client, message);
        self.finish(now, client);
    }

    fn closed(&mut self, worker: usize, session: SessionId) {
        if let Some(Listener { client, .. }) = self.sessions.listeners.remove(&session) {
            self.clients.remove_listener(client, session);
        } else {
            self.actions.push_back(Action::Detach { worker, session });
        }
    }

    fn incoming(&mut self, worker: usize, listener: SessionId, session: SessionId, peer: Endpoint) {
        let Some(&Listener { client, .. }) = self.sessions.listeners.get(&listener) else {
            self.command(worker, Command::CloseSession(session));
            return;
        };
        self.sessions.attached(Attachment { session, worker, waits: None });
        let response = Response::Incoming { listener, session, peer, memory: false };
        self.actions.push_back(Action::Attach { worker, session, client, response });
        self.command(worker, Command::AcceptStream(session));
    }

    fn attach_failed(&mut self, session: SessionId) {
        let Some(attachment) = self.sessions.failed(session) else { return };
        self.command(attachment.worker, Command::CloseSession(session));
        if let Some(client) = attachment.waits {
            self.reply_error(
                client,
                "no descriptor could be made for the session: is the limit of open files reached?",
            );
        }
    }

    // --- figures -----------------------------------------------------------------------------------------------------

    fn begin_round(&mut self, now: Instant) {
        if self.collector.is_idle() {
            for worker in self.collector.begin(now) {
                self.command(worker, Command::QueryStats);
            }
        }
    }

    fn stats(&mut self, now: Instant, worker: usize, mut stats: ShardStats) {
        if self.clients.any_waiting_for_histograms(self.collector.current()) {
            let histograms = self.histograms(&stats);
            self.histograms.insert(worker, histograms);
        }
        // Here and not there: a worker's packets would wait for it.
        stats.summarise();
        let value = serde_json::to_value(&stats).unwrap_or_else(|error| Value::String(error.to_string()));
        if let Some((round, mut workers)) = self.collector.answered(worker, value) {
            self.add_own_figures(&mut workers);
            self.finish_round(now, round, &Response::Stats { workers });
        }
    }

    /// A worker's histograms that are not empty.
    fn histograms(&self, stats: &ShardStats) -> Value {
        let counted = stats.counted().filter(|(_, _, counts)| !counts.is_empty());
        let named = counted.map(|(of, name, counts)| {
            let (peer, link) = (of.map(|link| self.name_of(link.peer)), of.map(|link| link.link));
            let hdr = hlog::encode(counts.histogram().inner());
            serde_json::json!({ "name": name, "peer": peer, "link": link, "hdr": hdr })
        });
        named.collect()
    }

    /// The answer to who asked for histograms as well.
    fn with_histograms(&mut self, response: &Response) -> Response {
        let mut response = response.clone();
        if let Response::Stats { workers } = &mut response {
            for (worker, value) in workers.iter_mut().enumerate() {
                if let (Some(list), Value::Object(entries)) = (self.histograms.get(&worker), value) {
                    entries.insert("histograms".to_owned(), list.clone());
                }
            }
        }
        response
    }

    /// Control's own counters travel with worker 0's: under `control`, and the group's as
    /// [`Control::cluster_figures`] names them.
    fn add_own_figures(&self, workers: &mut [Value]) {
        if let Some(Value::Object(first)) = workers.first_mut() {
            let routing = serde_json::to_value(self.routing.stats()).expect("a struct of numbers");
            let own = serde_json::json!({ "routing": routing, "refused_messages": self.refused_messages });
            first.insert("control".to_owned(), own);
            first.extend(self.cluster_figures());
            first.extend(self.group_figures().map(|figures| ("groups".to_owned(), figures)));
        }
    }

    fn finish_round(&mut self, now: Instant, round: u64, response: &Response) {
        for client in self.clients.waiting_for(Pending::Stats(round)) {
            self.reply(client, response.clone());
            self.finish(now, client);
        }
        for client in self.clients.waiting_for(Pending::Histograms(round)) {
            let response = self.with_histograms(response);
            self.reply(client, response);
            self.finish(now, client);
        }
        self.histograms.clear();
        if self.clients.any_waiting_for(self.collector.joining()) {
            self.begin_round(now);
        }
    }

    fn begin_session_round(&mut self, now: Instant) {
        if self.session_collector.is_idle() {
            for worker in self.session_collector.begin(now) {
                self.command(worker, Command::QuerySessions);
            }
        }
    }

    fn sessions_of(&mut self, now: Instant, worker: usize, sessions: &[SessionReport]) {
        let value = serde_json::json!({ "sessions": sessions });
        if let Some((round, workers)) = self.session_collector.answered(worker, value) {
            self.finish_session_round(now, round, &Response::Stats { workers });
        }
    }

    fn finish_session_round(&mut self, now: Instant, round: u64, response: &Response) {
        for client in self.clients.waiting_for(Pending::Sessions(round)) {
            self.reply(client, response.clone());
            self.finish(now, client);
        }
        if self.clients.anybody_waits_for(Pending::Sessions(self.session_collector.joining())) {
            self.begin_session_round(now);
        }
    }

    // --- reload and shutdown -----------------------------------------------------------------------------------------

    fn reloaded(&mut self, now: Instant, config: Result<Box<Config>, String>) {
        let response = if self.leaving == Leaving::No {
            self.reload(now, config)
        } else {
            Response::Error { message: "the router is shutting down".to_owned() }
        };
        for client in self.clients.waiting_for(Pending::Reload) {
            self.reply(client, response.clone());
            self.finish(now, client);
        }
    }

    fn leave(&mut self, now: Instant) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::HandingOver;
            if let Some(cluster) = &mut self.cluster {
                cluster.leave(now);
                self.advance_cluster(now);
            }
            if let Some(groups) = &mut self.groups {
                groups.leave(now);
            }
        }
    }

    fn advance_leaving(&mut self, now: Instant) {
        if self.leaving == Leaving::HandingOver && self.cluster.as_ref().is_none_or(|cluster| cluster.has_left()) {
            self.routing.handle(now, routing::Input::Shutdown);
            self.pump_routing();
            let grace = if self.links.iter().any(Link::is_up) { LEAVE_GRACE } else { Duration::ZERO };
            self.leaving = Leaving::Withdrawn(now + grace);
        }
        if matches!(self.leaving, Leaving::Withdrawn(at) if at <= now) {
            self.command_all(&Command::Shutdown);
            self.leaving = Leaving::Told(now + EXIT_AFTER);
        }
        let all_down = !self.links.iter().any(Link::is_up);
        if matches!(self.leaving, Leaving::Told(at) if at <= now || all_down) {
            self.actions.push_back(Action::Exit);
            self.leaving = Leaving::Done;
        }
    }
}

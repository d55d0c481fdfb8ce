//! The control loop: one thread, one [`Control`], everything that is not a packet.
//!
//! Waits for reports of workers, requests of clients, signals and timers; hands them to control; performs what it answers.

use super::RunError;
use super::carrier::{Budget, Carrier};
use super::clock::Clock;
use super::control_socket::{Client, ControlSocket, Heard, Lost, line};
use super::doorbell::Doorbell;
use super::memory;
use super::metrics::{self, Metrics};
use super::notify::notify;
use super::ring::{RETRY, Receiver, Sender, ToWorker};
use super::scribe::{Job, Scribe};
use super::signals::{self, Signals};
use super::vip::lifelines::{self, Lifelines};
use super::vip::{Host, Pulse, Said, Verdict};
use crate::base::{Instant, SessionId};
use crate::config::settings::Telemetry;
use crate::control::{Action, ClientId, Control, Input};
use crate::dataplane::messages::Report;
use crate::telemetry::prometheus;
use crate::wire::admin::{Request, Response};
use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const LISTENER: Token = Token(0);
const BELL: Token = Token(1);
const STOP: Token = Token(2);
const RELOAD: Token = Token(3);
const DUMP: Token = Token(4);
/// The metrics' port and its connections have the tokens from here on.
const METRICS: usize = 8;
/// Lifelines have the tokens from here on.
const LIFELINES: usize = METRICS + 1 + metrics::MOST;
/// Clients have the tokens from here on.
const CLIENTS: usize = LIFELINES + lifelines::TOKENS;

/// Questions of the loop's own are asked in the name of clients from here on: for the interval log, for SIGUSR1, and for
/// the metrics' port, by the request's number.
const OWN: u64 = 1 << 63;
const OWN_INTERVAL: u64 = OWN;
const OWN_DUMP: u64 = OWN + 1;
const OWN_METRICS: u64 = OWN + 2;

/// Most connections at a time; further ones are told so and closed.
const MAX_CLIENTS: usize = 1024;
/// Most reports taken from a worker, and requests from a client, before others have their turn.
const REPORTS: usize = 1024;
const REQUESTS: usize = 16;
/// After this long a shutdown that does not end by itself is ended.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// Pause before connections are accepted again after the system had no descriptor or memory for one: events are edges,
/// and for those that wait already no other comes.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Longest time that the end of the process waits for histograms to be written.
const WRITING: Duration = Duration::from_secs(1);

/// A worker as control sees it.
#[derive(Debug)]
pub(super) struct WorkerHandle {
    pub(super) commands: Sender<ToWorker>,
    pub(super) reports: Receiver<Report>,
    pub(super) thread: Option<JoinHandle<()>>,
}

/// Ends the loop as SIGTERM does.
#[derive(Clone, Debug)]
pub(super) struct Stop {
    pub(super) asked: Arc<AtomicBool>,
    pub(super) bell: Arc<Doorbell>,
}

/// How long after a start or a reload the links have what memory they need.
const SETTLED: Duration = Duration::from_secs(2);

/// What the loop is made from.
pub(super) struct Parts {
    pub(super) clock: Clock,
    pub(super) control: Control,
    pub(super) config_path: PathBuf,
    pub(super) workers: Vec<WorkerHandle>,
    pub(super) socket: ControlSocket,
    pub(super) signals: Option<Signals>,
    pub(super) stop: Stop,
    pub(super) telemetry: Telemetry,
    /// Listens for who asks for metrics.
    pub(super) metrics: Option<TcpListener>,
    /// Memory that sessions may share with applications.
    pub(super) memory: Budget,
    /// Service addresses on this host, and what keeps them.
    pub(super) host: Option<(Host, Pulse)>,
    /// What tells of the end of other members' processes.
    pub(super) lifelines: Option<Lifelines>,
}

/// The loop.
pub(super) struct ControlLoop {
    parts: Parts,
    poll: Poll,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    /// When connections that could not be accepted are tried again, and how often that has failed in a row.
    accept_at: Option<Instant>,
    accept_failures: u64,
    /// The next action's ring is full: until it is performed, no other is taken, and no request.
    blocked: bool,
    blocked_count: u64,
    /// When shutdown was asked for, plus patience.
    deadline: Option<Instant>,
    exit: bool,
    /// When everything allocated by then is made resident.
    resident_at: Option<Instant>,
    metrics: Option<Metrics>,
    scribe: Scribe,
    /// When the interval of the interval log ends.
    interval_at: Option<Instant>,
}

impl ControlLoop {
    /// Registers everything with a poll.
    pub(super) fn new(mut parts: Parts) -> io::Result<ControlLoop> {
        let poll = Poll::new()?;
        let registry = poll.registry();
        registry.register(&mut parts.socket.listener, LISTENER, Interest::READABLE)?;
        registry.register(&mut SourceFd(&parts.stop.bell.as_raw_fd()), BELL, Interest::READABLE)?;
        if let Some(signals) = &mut parts.signals {
            registry.register(&mut signals.stop, STOP, Interest::READABLE)?;
            registry.register(&mut signals.reload, RELOAD, Interest::READABLE)?;
            registry.register(&mut signals.dump, DUMP, Interest::READABLE)?;
        }
        let metrics = parts.metrics.take();
        let metrics = metrics.map(|listener| Metrics::new(listener, registry, Token(METRICS))).transpose()?;
        if let Some(lifelines) = &mut parts.lifelines {
            lifelines.register(registry, Token(LIFELINES))?;
        }
        let now = parts.clock.now();
        let interval_at = parts.telemetry.interval_log.is_some().then(|| now + parts.telemetry.interval);
        let scribe = Scribe::new(&parts.telemetry, now);
        // A program that runs a router in the background has its own idea of its memory.
        let resident_at = parts.signals.is_some().then(|| parts.clock.now() + SETTLED);
        Ok(ControlLoop {
            parts,
            poll,
            clients: BTreeMap::new(),
            next_client: 0,
            accept_at: None,
            accept_failures: 0,
            blocked: false,
            blocked_count: 0,
            deadline: None,
            exit: false,
            resident_at,
            metrics,
            scribe,
            interval_at,
        })
    }

    /// Runs until control says to exit, then ends the workers.
    pub(super) fn run(mut self) -> Result<(), RunError> {
        let mut events = Events::with_capacity(256);
        let mut result = Ok(());
        self.perform_actions();
        while !self.exit {
            let timeout = self.timeout();
            let bell = Arc::clone(&self.parts.stop.bell);
            let asked = Arc::clone(&self.parts.stop.asked);
            let quiet = || self.parts.host.as_ref().is_none_or(|(host, _)| host.is_quiet());
            let nothing =
                || self.parts.workers.iter().all(|w| w.reports.is_empty()) && quiet() && !asked.load(Ordering::Acquire);
            let timeout = if bell.prepare_sleep(nothing) { timeout } else { Some(Duration::ZERO) };
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                result = Err(RunError::Setup(error));
                break;
            }
            bell.awake();
            self.turn(&events);
            if let Some(worker) = self.parts.workers.iter().position(|worker| worker.commands.is_abandoned()) {
                result = Err(RunError::WorkerDied(worker));
                break;
            }
        }
        stop_workers(self.parts.clock, &mut self.parts.workers);
        let (clock, patience) = (self.parts.clock, self.parts.clock.now() + WRITING);
        self.scribe.finish(|| clock.now() < patience);
        self.clients.values_mut().for_each(|client| {
            // The process ends; a client that does not take its answer now never will.
            let _ = client.flush();
        });
        result
    }

    fn turn(&mut self, events: &Events) {
        let now = self.parts.clock.now();
        // First of all: who slept through its lease must know before it hears what others did meanwhile.
        self.tend_host(now);
        for event in events {
            match event.token() {
                LISTENER => self.accept(now),
                BELL => self.parts.stop.bell.silence(),
                STOP | RELOAD | DUMP => {}
                token @ Token(LIFELINES..CLIENTS) => {
                    let Parts { lifelines, control, .. } = &mut self.parts;
                    let ended = lifelines.as_mut().and_then(|it| it.handle(now, self.poll.registry(), token));
                    ended.into_iter().for_each(|node| control.handle(now, Input::Ended(node)));
                }
                token @ Token(METRICS..LIFELINES) => {
                    let asked = self.metrics.as_mut().and_then(|it| it.handle(now, self.poll.registry(), token));
                    asked.into_iter().for_each(|number| self.ask(now, OWN_METRICS + number));
                }
                Token(token) => self.client_event((token - CLIENTS) as u64, event.is_writable()),
            }
        }
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept(now);
        }
        self.take_signals(now);
        self.observe(now);
        self.tend_lifelines(now);
        self.take_reports(now);
        self.perform_actions();
        self.hear_clients();
        let now = self.parts.clock.now();
        if self.parts.control.poll_timeout().is_some_and(|(when, _)| when <= now) {
            self.parts.control.handle(now, Input::Timer);
        }
        self.perform_actions();
        if self.resident_at.is_some_and(|at| at <= now) {
            self.resident_at = None;
            memory::make_resident();
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            tracing::warn!("shutdown takes too long; leaving without it");
            self.exit = true;
        }
    }

    /// How long to wait for events: not at all if some work was left over.
    fn timeout(&mut self) -> Option<Duration> {
        let now = self.parts.clock.now();
        if self.blocked {
            return Some(RETRY);
        }
        if self.clients.values().any(|client| client.readable && !client.waiting && !client.closing) {
            return Some(Duration::ZERO);
        }
        let timer = self.parts.control.poll_timeout().map(|(when, _)| when);
        let metrics = self.metrics.as_ref().and_then(Metrics::poll_timeout);
        let beat = self.parts.host.as_ref().map(|(_, pulse)| pulse.poll_timeout());
        let lifelines = self.parts.lifelines.as_ref().and_then(Lifelines::poll_timeout);
        let own = [lifelines, self.deadline, self.accept_at, self.resident_at, self.interval_at, metrics, beat];
        let until = timer.into_iter().chain(own.into_iter().flatten()).min()?;
        Some(until.since(now))
    }

    fn take_signals(&mut self, now: Instant) {
        let mut stops = usize::from(self.parts.stop.asked.swap(false, Ordering::AcqRel));
        let (mut reloads, mut dumps) = (0, 0);
        if let Some(signals) = &mut self.parts.signals {
            stops += signals::taken(&mut signals.stop);
            reloads = signals::taken(&mut signals.reload);
            dumps = signals::taken(&mut signals.dump);
        }
        if dumps > 0 {
            self.ask(now, OWN_DUMP);
        }
        if reloads > 0 {
            tracing::info!("reload asked for by SIGHUP");
            self.resident_at = Some(now + SETTLED);
            self.read_config(now);
        }
        if stops > 0 && self.deadline.is_none() {
            tracing::info!("stopping");
            notify("STOPPING=1");
            self.deadline = Some(now + SHUTDOWN);
            self.parts.control.handle(now, Input::Shutdown);
        } else if stops > 0 {
            tracing::warn!("asked to stop once more: leaving at once");
            self.exit = true;
        }
    }

    /// Ends the interval of the interval log, and whoever takes too long at the metrics' port.
    fn observe(&mut self, now: Instant) {
        if self.interval_at.is_some_and(|at| at <= now) {
            // Of intervals that were slept through there is but one.
            self.interval_at = Some(now + self.parts.telemetry.interval);
            self.ask(now, OWN_INTERVAL);
        }
        if let Some(metrics) = &mut self.metrics {
            metrics.handle_timeout(now, self.poll.registry());
        }
    }

    /// Connects to members that are not connected to.
    fn tend_lifelines(&mut self, now: Instant) {
        let Parts { lifelines: Some(lifelines), control, .. } = &mut self.parts else { return };
        while let Some(node) = lifelines.handle_timeout(now, self.poll.registry()) {
            control.handle(now, Input::Ended(node));
        }
    }

    /// Asks the workers for everything, as a client does; [`ControlLoop::answered`] has the answer.
    fn ask(&mut self, now: Instant, client: u64) {
        self.parts.control.handle(now, Input::Request { client: ClientId(client), request: Request::Histograms });
    }

    fn answered(&mut self, client: u64, response: Response) {
        let now = self.parts.clock.now();
        let workers = match response {
            Response::Stats { workers } => Ok(workers),
            Response::Error { message } => Err(message),
            other => unreachable!("histograms were asked for, not {other:?}"),
        };
        match (client, workers) {
            (OWN_INTERVAL, Ok(workers)) => self.scribe.write(Job::Interval(now, workers)),
            (OWN_DUMP, Ok(workers)) => self.scribe.write(Job::Files(workers)),
            (OWN_INTERVAL | OWN_DUMP, Err(why)) => tracing::warn!(why, "no histograms to write"),
            (client, workers) => {
                let control = &self.parts.control;
                let name = |id: &str| id.parse().map_or_else(|_| id.to_owned(), |node| control.name_of(node));
                let text = workers.and_then(|workers| prometheus::render(&workers, name));
                let text = text.as_deref().map_err(String::as_str);
                let next = self.metrics.as_mut().and_then(|it| it.answer(now, client - OWN_METRICS, text));
                next.into_iter().for_each(|number| self.ask(now, OWN_METRICS + number));
            }
        }
    }

    fn take_reports(&mut self, now: Instant) {
        for worker in 0..self.parts.workers.len() {
            for _ in 0..REPORTS {
                let Some(report) = self.parts.workers[worker].reports.pop() else { break };
                self.parts.control.handle(now, Input::Report { worker, report });
            }
        }
    }

    /// Keeps the host's service addresses alive, and takes what became of them.
    fn tend_host(&mut self, now: Instant) {
        let Parts { host, workers, control, .. } = &mut self.parts;
        let Some((host, pulse)) = host else { return };
        if pulse.is_due(now) {
            // Whether it stood still is found, and said, before that it lives again.
            control.handle(now, Input::Beat);
            control.woke().into_iter().for_each(|at| host.woke(at));
            pulse.beat(now, host, workers.iter_mut().map(|worker| &mut worker.commands));
        }
        while let Some(report) = host.report() {
            control.handle(now, Input::Host(report));
        }
        while let Some(Verdict { check, ok }) = host.verdict() {
            control.handle(now, Input::Health { check, ok });
        }
        while let Some(Said { to, bytes }) = host.said() {
            control.handle(now, Input::HostSays { to, bytes });
        }
    }

    fn read_config(&mut self, now: Instant) {
        let read = crate::config::load(&self.parts.config_path);
        let read = read.map(Box::new).map_err(|errors| errors.to_string());
        self.parts.control.handle(now, Input::Reload(read));
    }

    fn accept(&mut self, now: Instant) {
        self.accept_at = None;
        loop {
            let mut stream = match self.parts.socket.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                    continue;
                }
                Err(error) => return self.accept_later(now, &error),
            };
            let token = Token(CLIENTS + self.next_client as usize);
            let interest = Interest::READABLE | Interest::WRITABLE;
            if let Err(error) = self.poll.registry().register(&mut stream, token, interest) {
                tracing::warn!(%error, "a client could not connect");
                continue;
            }
            let mut client = Client::new(stream);
            if self.clients.len() >= MAX_CLIENTS {
                let message = format!("this router serves {MAX_CLIENTS} connections already");
                // Best effort: it is closed either way.
                let _ = client.say(line(&Response::Error { message }), Vec::new());
                continue;
            }
            self.clients.insert(self.next_client, client);
            self.next_client += 1;
        }
        if self.accept_failures > 0 {
            tracing::info!(tries = self.accept_failures, "clients can connect again");
            self.accept_failures = 0;
        }
    }

    /// The system has no descriptor or no memory for a connection: it waits in the socket's backlog.
    fn accept_later(&mut self, now: Instant, error: &io::Error) {
        if self.accept_failures == 0 {
            tracing::warn!(%error, "clients that connect must wait; raise the limit of open files if this lasts");
        }
        self.accept_failures += 1;
        self.accept_at = Some(now + ACCEPT_AGAIN);
    }

    fn client_event(&mut self, id: u64, writable: bool) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.readable = true;
        if writable && (client.flush().is_err() || (client.closing && client.is_flushed())) {
            self.drop_client(id);
        }
    }

    fn drop_client(&mut self, id: u64) {
        self.lose_client(id, Input::ClientGone(ClientId(id)));
    }

    fn lose_client(&mut self, id: u64, how: Input) {
        if self.clients.remove(&id).is_some() {
            self.parts.control.handle(self.parts.clock.now(), how);
        }
    }

    fn hear_clients(&mut self) {
        let ids: Vec<u64> = self.clients.keys().copied().collect();
        for id in ids {
            for _ in 0..REQUESTS {
                if self.blocked || !self.hear_client(id) {
                    break;
                }
            }
        }
    }

    /// Takes one request. False when there is none to take for now.
    fn hear_client(&mut self, id: u64) -> bool {
        let Some(client) = self.clients.get_mut(&id) else { return false };
        if client.waiting || client.closing {
            return false;
        }
        let error = |message| Response::Error { message };
        let heard = client.hear();
        match heard {
            Heard::Nothing => return false,
            Heard::Gone => self.drop_client(id),
            Heard::Garbage(why) => {
                self.say(id, &error(why), Vec::new());
            }
            Heard::TooLong => {
                client.closing = true;
                self.say(id, &error("a request is one line of at most 64 KiB".into()), Vec::new());
                if self.clients.get(&id).is_some_and(Client::is_flushed) {
                    self.drop_client(id);
                }
            }
            Heard::Request(request) => {
                client.waiting = true;
                let client = ClientId(id);
                self.parts.control.handle(self.parts.clock.now(), Input::Request { client, request });
                self.perform_actions();
            }
        }
        true
    }

    /// Sends a line to a client; one that cannot take it is gone.
    fn say(&mut self, id: u64, response: &Response, descriptors: Vec<OwnedFd>) -> bool {
        self.say_line(id, line(response), descriptors)
    }

    fn say_line(&mut self, id: u64, line: Arc<[u8]>, descriptors: Vec<OwnedFd>) -> bool {
        let Some(client) = self.clients.get_mut(&id) else { return false };
        match client.say(line, descriptors) {
            Ok(()) => return true,
            Err(Lost::Slow) => self.lose_client(id, Input::ClientSlow(ClientId(id))),
            Err(Lost::Gone) => self.drop_client(id),
        }
        false
    }

    fn answer(&mut self, id: u64, response: &Response) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.waiting = false;
        }
        self.say(id, response, Vec::new());
    }

    fn perform_actions(&mut self) {
        self.blocked = false;
        while let Some(action) = self.parts.control.poll_action() {
            if let Err(action) = self.perform(action) {
                self.blocked_count += 1;
                if self.blocked_count.is_power_of_two() {
                    tracing::warn!(times = self.blocked_count, "a worker's ring is full; requests wait");
                }
                // There, for what is void by the time that there is room goes with all else that is.
                self.parts.control.give_back(action);
                self.blocked = true;
                return;
            }
        }
    }

    /// Performs an action; gives it back if its worker's ring is full.
    #[allow(clippy::result_large_err, reason = "it is given back as it came, once in a while")]
    fn perform(&mut self, action: Action) -> Result<(), Action> {
        let full = |worker: usize| self.parts.workers[worker].commands.is_full();
        match action {
            Action::Command { worker, .. } | Action::Attach { worker, .. } | Action::Detach { worker, .. }
                if full(worker) =>
            {
                return Err(action);
            }
            Action::Command { worker, command } => self.push(worker, ToWorker::Command(command)),
            Action::Detach { worker, session } => self.push(worker, ToWorker::Detach(session)),
            Action::Attach { worker, session, client, response } => {
                self.attach(worker, session, client, response);
            }
            Action::ShareMemory { client, wanted } => {
                if let Some(client) = self.clients.get_mut(&client.0) {
                    client.shares_memory = wanted;
                }
            }
            Action::Reply { client, mut response } => {
                self.complete(&mut response);
                match client.0 {
                    OWN.. => self.answered(client.0, response),
                    client => self.answer(client, &response),
                }
            }
            Action::Tell { clients, response } => {
                let line = line(&response);
                for client in clients {
                    self.say_line(client.0, Arc::clone(&line), Vec::new());
                }
            }
            Action::Host(command) => {
                let refused = self.parts.host.as_mut().and_then(|(host, _)| host.command(command).err());
                if let Some(command) = refused {
                    return Err(Action::Host(command));
                }
            }
            Action::HostHears { from, holds, bytes } => {
                if let Some((host, _)) = &mut self.parts.host {
                    host.hear(from, holds, bytes);
                }
            }
            Action::ReadConfig => self.read_config(self.parts.clock.now()),
            Action::Exit => self.exit = true,
        }
        Ok(())
    }

    /// Adds to an answer what this machine knows of its service addresses.
    fn complete(&self, response: &mut Response) {
        let Some((host, _)) = &self.parts.host else { return };
        match response {
            Response::Vips { degraded, .. } => degraded.extend(host.degraded()),
            Response::Stats { workers } => {
                // Answers about sessions have the same form, and nothing of this.
                let first = workers.first_mut().and_then(Value::as_object_mut);
                if let Some(first) = first.filter(|first| first.contains_key("vip")) {
                    first.insert("vip_host".to_owned(), host.figures());
                }
            }
            _ => {}
        }
    }

    fn push(&mut self, worker: usize, message: ToWorker) {
        let pushed = self.parts.workers[worker].commands.push(message);
        assert!(pushed.is_ok(), "only this thread pushes, and there was room");
    }

    /// Makes what carries a session: one side goes to the client with the answer, the other to the worker. If that fails
    /// nothing was said to the client: control answers it.
    fn attach(&mut self, worker: usize, session: SessionId, client: ClientId, mut response: Response) {
        let shares = self.clients.get(&client.0).is_some_and(|client| client.shares_memory);
        let said = match Carrier::new(shares.then_some(&self.parts.memory)) {
            Ok((carrier, offer)) => {
                match &mut response {
                    Response::Incoming { memory, .. } => *memory = offer.memory.is_some(),
                    Response::Opened { memory, .. } => {
                        *memory = offer.memory.is_some();
                        self.clients.get_mut(&client.0).into_iter().for_each(|client| client.waiting = false);
                    }
                    other => unreachable!("no session goes with {other:?}"),
                }
                let descriptors = std::iter::once(offer.socket).chain(offer.memory).collect();
                self.say(client.0, &response, descriptors).then_some(carrier)
            }
            Err(error) => {
                tracing::error!(%error, "no descriptor for a session");
                None
            }
        };
        match said {
            Some(carrier) => self.push(worker, ToWorker::Attach(session, carrier)),
            None => self.parts.control.handle(self.parts.clock.now(), Input::SessionAttachFailed(session)),
        }
    }
}

/// Tells workers to stop and waits for their threads, with patience.
pub(super) fn stop_workers(clock: Clock, workers: &mut [WorkerHandle]) {
    let deadline = clock.now() + SHUTDOWN;
    for worker in workers.iter_mut() {
        let mut message = ToWorker::Stop;
        while let Err(full) = worker.commands.push(message) {
            message = full;
            if worker.commands.is_abandoned() || clock.now() >= deadline {
                break;
            }
            std::thread::sleep(RETRY);
        }
    }
    for (index, worker) in workers.iter_mut().enumerate() {
        let Some(thread) = worker.thread.take() else { continue };
        while !thread.is_finished() && clock.now() < deadline {
            std::thread::sleep(RETRY);
        }
        if !thread.is_finished() {
            tracing::error!(worker = index, "does not stop; it is abandoned");
        } else if thread.join().is_err() {
            tracing::error!(worker = index, "panicked");
        }
    }
}

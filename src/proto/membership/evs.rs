//! What extended virtual synchrony promises, checked on traces.
//!
//! A trace is what every life of every router saw: what it sent and delivered, the signals and the views. [`check`] goes
//! through the seventeen properties of extended virtual synchrony (Moser, Amir, Melliar-Smith, Agarwal, ICDCS 1994, as
//! Schultz's thesis numbers them), each of them one function here. It knows nothing of how membership works, so the same
//! checks serve this room's model network, the simulator, and traces written by hand.
//!
//! What a router sends while it has no view, or while its view ends, goes out in its next view: a message belongs to the
//! view in which it is delivered, which may be later than the one in which it was given.

use super::Service;
use crate::base::{NodeId, View, ViewId};
use std::collections::{BTreeMap, BTreeSet};

/// One life of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// The router.
    pub node: NodeId,
    /// Which of its lives, ascending.
    pub life: u64,
}

/// What a process saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It sent a message, and that was taken. No other message of the trace has the number.
    Send(u64),
    /// It delivered a message.
    Deliver(u64, Service),
    /// Its view ends.
    Signal(Vec<NodeId>),
    /// A view began: which, and who came from the same.
    Install(View, Vec<NodeId>),
    /// It crashed, or left.
    End,
}

/// What all saw.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    events: BTreeMap<Process, Vec<Event>>,
}

impl Trace {
    /// Adds what `process` saw next.
    pub fn add(&mut self, process: Process, event: Event) {
        self.events.entry(process).or_default().push(event);
    }

    /// Adds what `process` saw before the event that is now at `place`.
    pub fn insert(&mut self, process: Process, place: usize, event: Event) {
        self.events.entry(process).or_default().insert(place, event);
    }

    /// What `process` saw.
    pub fn of(&self, process: Process) -> &[Event] {
        self.events.get(&process).map_or(&[], Vec::as_slice)
    }

    /// How many messages were delivered between a signal and the next view.
    pub fn delivered_after_signals(&self) -> usize {
        let stays = History::of(self, false).stays;
        stays.iter().map(|stay| stay.delivered.len() - stay.before_signal()).sum()
    }
}

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its number.
    pub property: usize,
    /// What it says.
    pub says: &'static str,
    /// What happened instead.
    pub why: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EVS {} ({}): {}", self.property, self.says, self.why)
    }
}

type Check = fn(&History<'_>) -> Result<(), String>;

/// The properties: number one first.
const PROPERTIES: [(&str, Check); 17] = [
    ("initial view event: every event happens in a view", initial_view),
    ("self inclusion: a process is a member of its views", self_inclusion),
    ("membership agreement: the same view id, the same members", membership_agreement),
    ("local monotonicity: view ids ascend", local_monotonicity),
    ("no duplication: a message is delivered once", no_duplication),
    ("delivery integrity: what is delivered was sent by a member", delivery_integrity),
    ("self delivery: a process delivers its own messages, unless it crashes", self_delivery),
    ("same view delivery: a message is delivered in one view", same_view),
    (
        "sane view delivery: not before the view it was sent in, and not after a crash what was sent before it",
        sane_view,
    ),
    ("virtual synchrony: those who move together have delivered the same", virtual_synchrony),
    ("reliable delivery: what those who stay together send, all of them deliver", reliable),
    ("fifo delivery: a sender's messages in order, without holes", fifo),
    ("causal delivery: after all that their senders had delivered, without holes", causal),
    ("agreed delivery: one total order, no holes before the signal, later only of those who do not move on", agreed),
    ("safe delivery: before the signal, every member delivers it; after it, all who move on do", safe),
    ("transitional signal: at most one in a view, in the same place for those who move together", one_signal),
    ("transitional set: exactly those who come from the same view", transitional_set),
];

/// Checks all properties. `quiet`: nothing is under way at the trace's end, so that who has not ended has delivered all
/// that it will.
pub fn check(trace: &Trace, quiet: bool) -> Result<(), Broken> {
    let history = History::of(trace, quiet);
    for (index, (says, holds)) in PROPERTIES.iter().enumerate() {
        holds(&history).map_err(|why| Broken { property: index + 1, says, why })?;
    }
    Ok(())
}

/// A message as it was sent.
#[derive(Debug)]
struct Sent {
    by: Process,
    /// Which of its sender's messages.
    place: usize,
    /// In which of its sender's stays, and after how many deliveries there.
    stay: Option<usize>,
    after: usize,
}

/// A process in a view.
#[derive(Debug)]
struct Stay<'t> {
    process: Process,
    view: &'t View,
    together: &'t [NodeId],
    delivered: Vec<(u64, Service)>,
    /// The signals: after how many deliveries, and who moves on.
    signals: Vec<(usize, &'t [NodeId])>,
    previous: Option<ViewId>,
    next: Option<ViewId>,
    /// The process ended here.
    ended: bool,
}

impl Stay<'_> {
    fn place_of(&self, message: u64) -> Option<usize> {
        self.delivered.iter().position(|delivered| delivered.0 == message)
    }

    /// How many were delivered before the signal.
    fn before_signal(&self) -> usize {
        self.signals.first().map_or(self.delivered.len(), |signal| signal.0)
    }

    /// All that it will deliver in this view is in the trace.
    const fn is_over(&self, quiet: bool) -> bool {
        self.next.is_some() || (quiet && !self.ended)
    }
}

impl std::fmt::Display for Stay<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}.{} in {}", self.process.node, self.process.life, self.view.id)
    }
}

/// A trace by views.
#[derive(Debug)]
struct History<'t> {
    trace: &'t Trace,
    quiet: bool,
    stays: Vec<Stay<'t>>,
    by_view: BTreeMap<ViewId, Vec<usize>>,
    sent: BTreeMap<u64, Sent>,
}

impl<'t> History<'t> {
    fn of(trace: &'t Trace, quiet: bool) -> History<'t> {
        let mut history = History { trace, quiet, stays: Vec::new(), by_view: BTreeMap::new(), sent: BTreeMap::new() };
        for (&process, events) in &trace.events {
            history.read(process, events);
        }
        for (index, stay) in history.stays.iter().enumerate() {
            history.by_view.entry(stay.view.id).or_default().push(index);
        }
        history
    }

    fn read(&mut self, process: Process, events: &'t [Event]) {
        let (mut current, mut place) = (None::<usize>, 0);
        for event in events {
            match event {
                Event::Send(message) => {
                    let after = current.map_or(0, |stay| self.stays[stay].delivered.len());
                    self.sent.insert(*message, Sent { by: process, place, stay: current, after });
                    place += 1;
                }
                Event::Install(view, together) => {
                    let previous = current.map(|stay| self.stays[stay].view.id);
                    if let Some(stay) = current {
                        self.stays[stay].next = Some(view.id);
                    }
                    current = Some(self.stays.len());
                    let (delivered, signals) = (Vec::new(), Vec::new());
                    let (next, ended) = (None, false);
                    self.stays.push(Stay { process, view, together, delivered, signals, previous, next, ended });
                }
                // What happens in no view is the first property's matter.
                _ => {
                    let Some(stay) = current.map(|stay| &mut self.stays[stay]) else { continue };
                    match event {
                        Event::Deliver(message, service) => stay.delivered.push((*message, *service)),
                        Event::Signal(together) => stay.signals.push((stay.delivered.len(), together)),
                        _ => stay.ended = true,
                    }
                }
            }
        }
    }

    fn in_view(&self, view: ViewId) -> impl Iterator<Item = &Stay<'t>> + Clone {
        self.by_view.get(&view).into_iter().flatten().map(|&stay| &self.stays[stay])
    }

    /// Pairs of different stays in one view.
    fn pairs(&self) -> impl Iterator<Item = (&Stay<'t>, &Stay<'t>)> {
        let pairs = |stay: &'_ Stay<'t>| stay.process;
        let others = move |one: &'_ Stay<'t>, other: &'_ Stay<'t>| pairs(one) != pairs(other);
        self.stays
            .iter()
            .flat_map(move |one| self.in_view(one.view.id).map(move |other| (one, other)))
            .filter(move |(one, other)| others(one, other))
    }

    /// Pairs that move to the next view together.
    fn moving_pairs(&self) -> impl Iterator<Item = (&Stay<'t>, &Stay<'t>)> {
        self.pairs().filter(|(one, other)| one.next.is_some() && one.next == other.next)
    }

    fn sender(&self, message: u64) -> Option<Process> {
        self.sent.get(&message).map(|sent| sent.by)
    }
}

/// Property 1. Every event happens in a view.
fn initial_view(history: &History<'_>) -> Result<(), String> {
    for (process, events) in &history.trace.events {
        if let Some(first) = events.first().filter(|event| !matches!(event, Event::Install(..) | Event::End)) {
            return Err(format!("{process:?} begins with {first:?}"));
        }
    }
    Ok(())
}

/// Property 2. A process is a member of its views, and of its own transitional sets.
fn self_inclusion(history: &History<'_>) -> Result<(), String> {
    let included =
        |stay: &&Stay<'_>| stay.view.contains(stay.process.node) && stay.together.contains(&stay.process.node);
    match history.stays.iter().find(|stay| !included(stay)) {
        Some(stay) => Err(format!("{stay} is not in it: {:?}, together {:?}", stay.view, stay.together)),
        None => Ok(()),
    }
}

/// Property 3. The same view id, the same members.
fn membership_agreement(history: &History<'_>) -> Result<(), String> {
    match history.pairs().find(|(one, other)| one.view.members != other.view.members) {
        Some((one, other)) => Err(format!("{one}: {:?}, but {other}: {:?}", one.view.members, other.view.members)),
        None => Ok(()),
    }
}

/// Property 4. View ids of a process ascend.
fn local_monotonicity(history: &History<'_>) -> Result<(), String> {
    match history.stays.iter().find(|stay| stay.previous.is_some_and(|previous| previous.number >= stay.view.id.number))
    {
        Some(stay) => Err(format!("{stay} comes from {:?}", stay.previous)),
        None => Ok(()),
    }
}

/// Property 5. A message is delivered at most once by a process.
fn no_duplication(history: &History<'_>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for stay in &history.stays {
        for &(message, _) in &stay.delivered {
            if !seen.insert((stay.process, message)) {
                return Err(format!("{stay} delivers {message} again"));
            }
        }
    }
    Ok(())
}

/// Property 6. What is delivered was sent, by a process that was in the view.
fn delivery_integrity(history: &History<'_>) -> Result<(), String> {
    for stay in &history.stays {
        for &(message, _) in &stay.delivered {
            let Some(sender) = history.sender(message) else {
                return Err(format!("{stay} delivers {message}, which nobody sent"));
            };
            if !history.in_view(stay.view.id).any(|other| other.process == sender) {
                return Err(format!("{stay} delivers {message} of {sender:?}, which was never there"));
            }
        }
    }
    Ok(())
}

/// Property 7. A process delivers what it sent, unless it ends.
fn self_delivery(history: &History<'_>) -> Result<(), String> {
    let delivered = |stay: &Stay<'_>| stay.delivered.iter().map(|it| (stay.process, it.0)).collect::<Vec<_>>();
    let delivered: BTreeSet<_> = history.stays.iter().flat_map(delivered).collect();
    let ended: BTreeSet<Process> = history.stays.iter().filter(|stay| stay.ended).map(|stay| stay.process).collect();
    for (&message, sent) in &history.sent {
        if history.quiet && !ended.contains(&sent.by) && !delivered.contains(&(sent.by, message)) {
            return Err(format!("{:?} did not deliver its own {message}", sent.by));
        }
    }
    Ok(())
}

/// Property 8. All deliver a message in the same view.
fn same_view(history: &History<'_>) -> Result<(), String> {
    let mut views = BTreeMap::new();
    for stay in &history.stays {
        for &(message, _) in &stay.delivered {
            let first = *views.entry(message).or_insert(stay.view.id);
            if first != stay.view.id {
                return Err(format!("{stay} delivers {message}, which others deliver in {first}"));
            }
        }
    }
    Ok(())
}

/// Property 9. No message is delivered in a view before that in which it was sent, and none by a later life of its sender.
fn sane_view(history: &History<'_>) -> Result<(), String> {
    for stay in &history.stays {
        for &(message, _) in &stay.delivered {
            let Some(sent) = history.sent.get(&message) else { continue };
            let earlier = sent.stay.is_some_and(|sent| history.stays[sent].view.id.number > stay.view.id.number);
            let later_life = sent.by.node == stay.process.node && sent.by.life < stay.process.life;
            if earlier || later_life {
                return Err(format!("{stay} delivers {message}, sent by {:?} in {:?}", sent.by, sent.stay));
            }
        }
    }
    Ok(())
}

/// Property 10. Two processes that move from one view to the next together have delivered the same messages.
fn virtual_synchrony(history: &History<'_>) -> Result<(), String> {
    for (one, other) in history.moving_pairs() {
        if let Some((message, _)) = one.delivered.iter().find(|delivered| other.place_of(delivered.0).is_none()) {
            return Err(format!("{one} delivered {message}, {other} did not, and both move to {:?}", one.next));
        }
    }
    Ok(())
}

/// Property 11. What is sent by one of those who move together, or stay together to the end, is delivered by all of them.
fn reliable(history: &History<'_>) -> Result<(), String> {
    let stay_together = |one: &Stay<'_>, other: &Stay<'_>| {
        one.next == other.next && one.is_over(history.quiet) && other.is_over(history.quiet)
    };
    for (one, other) in history.pairs().filter(|(one, other)| stay_together(one, other)) {
        let own = one.delivered.iter().filter(|delivered| history.sender(delivered.0) == Some(one.process));
        for &(message, _) in own {
            if other.place_of(message).is_none() {
                return Err(format!("{other} did not deliver {message} of {one}"));
            }
        }
    }
    Ok(())
}

/// Property 12. A sender's messages are delivered in the order in which they were sent, without holes.
fn fifo(history: &History<'_>) -> Result<(), String> {
    // The first message of each sender that anybody delivers in a view.
    let mut first: BTreeMap<(ViewId, Process), usize> = BTreeMap::new();
    let places = |stay: &Stay<'_>| -> Vec<(Process, usize, u64)> {
        let sent = |message| history.sent.get(&message).map(|sent| (sent.by, sent.place, message));
        stay.delivered.iter().filter_map(|delivered| sent(delivered.0)).collect()
    };
    for stay in &history.stays {
        for (sender, place, _) in places(stay) {
            let first = first.entry((stay.view.id, sender)).or_insert(place);
            *first = place.min(*first);
        }
    }
    for stay in &history.stays {
        let mut next: BTreeMap<Process, usize> = BTreeMap::new();
        for (sender, place, message) in places(stay) {
            let next = next.entry(sender).or_insert(first[&(stay.view.id, sender)]);
            if place != *next {
                return Err(format!("{stay} delivers {message}, number {place} of {sender:?}, where {next} is next"));
            }
            *next += 1;
        }
    }
    Ok(())
}

/// Property 13. A message is delivered after all that its sender had delivered in that view when it sent it.
fn causal(history: &History<'_>) -> Result<(), String> {
    for stay in &history.stays {
        let places: BTreeMap<u64, usize> = stay.delivered.iter().enumerate().map(|(at, it)| (it.0, at)).collect();
        for (at, &(message, _)) in stay.delivered.iter().enumerate() {
            let Some(sent) = history.sent.get(&message) else { continue };
            let Some(origin) = sent.stay.map(|stay| &history.stays[stay]) else { continue };
            if origin.view.id != stay.view.id {
                continue;
            }
            for (before, _) in &origin.delivered[..sent.after] {
                if places.get(before).is_none_or(|&place| place > at) {
                    return Err(format!("{stay} delivers {message} and not before it {before}, which {origin} had"));
                }
            }
        }
    }
    Ok(())
}

/// Property 14. There is one order in which all deliver. Nothing is left out of it before the signal; after it only what comes from
/// those who do not move on.
fn agreed(history: &History<'_>) -> Result<(), String> {
    for &view in history.by_view.keys() {
        let order = Order::of(history, view);
        order.has_no_circle().map_err(|why| format!("in {view} {why}"))?;
        for stay in history.in_view(view) {
            let own: BTreeSet<u64> = stay.delivered.iter().map(|it| it.0).collect();
            let goes = |message: u64| {
                let sender = history.sender(message).map(|sender| sender.node);
                stay.signals.first().is_some_and(|signal| sender.is_some_and(|sender| signal.1.contains(&sender)))
            };
            let (before, after) = stay.delivered.split_at(stay.before_signal());
            let hole = order.up_to(before).into_iter().find(|message| !own.contains(message));
            let later = || order.up_to(after).into_iter().find(|&message| !own.contains(&message) && goes(message));
            if let Some(hole) = hole.or_else(later) {
                return Err(format!("{stay} leaves out {hole}: {:?}", stay.delivered));
            }
        }
    }
    Ok(())
}

/// What is delivered before what in one view.
#[derive(Debug, Default)]
struct Order {
    /// What somebody delivers right before it.
    before: BTreeMap<u64, BTreeSet<u64>>,
}

impl Order {
    fn of(history: &History<'_>, view: ViewId) -> Order {
        let mut order = Order::default();
        for stay in history.in_view(view) {
            for pair in stay.delivered.windows(2) {
                order.before.entry(pair[1].0).or_default().insert(pair[0].0);
            }
            for &(message, _) in &stay.delivered {
                order.before.entry(message).or_default();
            }
        }
        order
    }

    /// These, and all that comes before one of them in any order with which everybody agrees.
    fn up_to(&self, messages: &[(u64, Service)]) -> BTreeSet<u64> {
        let mut open: Vec<u64> = messages.iter().map(|it| it.0).collect();
        let mut found = BTreeSet::new();
        while let Some(message) = open.pop() {
            if found.insert(message) {
                open.extend(self.before.get(&message).into_iter().flatten());
            }
        }
        found
    }

    fn has_no_circle(&self) -> Result<(), String> {
        let mut left = self.before.clone();
        while !left.is_empty() {
            let free: Vec<u64> =
                left.iter().filter(|(_, before)| before.is_empty()).map(|(&message, _)| message).collect();
            if free.is_empty() {
                return Err(format!("{:?} are delivered in different orders", left.keys()));
            }
            left.retain(|message, _| free.binary_search(message).is_err());
            left.values_mut().for_each(|before| before.retain(|message| free.binary_search(message).is_err()));
        }
        Ok(())
    }
}

/// Property 15. A safe message that a process delivers before the signal is delivered by every member of the view that does not
/// end; one delivered after it by all who were to move on.
fn safe(history: &History<'_>) -> Result<(), String> {
    for stay in &history.stays {
        let safe = stay.delivered.iter().enumerate().filter(|(_, it)| it.1 == Service::Safe);
        for (at, &(message, _)) in safe {
            let before = at < stay.before_signal();
            let owed = if before { &stay.view.members[..] } else { stay.signals[0].1 };
            for &node in owed {
                let mut there = history.in_view(stay.view.id).filter(|other| other.process.node == node);
                let excused = |other: &Stay<'_>| other.ended || !other.is_over(history.quiet);
                let fine = match there.next() {
                    Some(other) => other.place_of(message).is_some() || excused(other),
                    // It never came: then it must have ended.
                    None => history.stays.iter().any(|other| other.process.node == node && other.ended),
                };
                if !fine {
                    return Err(format!("{stay} delivers {message} as safe, and {node:?} does not deliver it"));
                }
            }
        }
    }
    Ok(())
}

/// Property 16. At most one signal ends a view, and those who move on together have delivered the same before it.
fn one_signal(history: &History<'_>) -> Result<(), String> {
    let wrong = |stay: &&Stay<'_>| stay.signals.len() > 1 || (stay.next.is_some() && stay.signals.is_empty());
    if let Some(stay) = history.stays.iter().find(wrong) {
        return Err(format!("{stay} has {} signals and then {:?}", stay.signals.len(), stay.next));
    }
    for (one, other) in history.moving_pairs() {
        let before =
            |stay: &Stay<'_>| stay.delivered[..stay.before_signal()].iter().map(|it| it.0).collect::<BTreeSet<_>>();
        if before(one) != before(other) {
            return Err(format!("{one} and {other} are told at different places that it ends"));
        }
    }
    Ok(())
}

/// Property 17. A process's transitional set is exactly those members that come from the view it comes from itself.
fn transitional_set(history: &History<'_>) -> Result<(), String> {
    for stay in &history.stays {
        if let Some(stranger) = stay.together.iter().find(|node| !stay.view.contains(**node)) {
            return Err(format!("{stay} has {stranger:?} in its transitional set, who is no member"));
        }
        for other in history.in_view(stay.view.id) {
            let same = other.process == stay.process || (stay.previous.is_some() && other.previous == stay.previous);
            if same != stay.together.contains(&other.process.node) {
                return Err(format!(
                    "{stay} comes from {:?} with {:?}, {other} from {:?}",
                    stay.previous, stay.together, other.previous
                ));
            }
        }
        let told = history.stays.iter().find(|it| it.process == stay.process && it.next == Some(stay.view.id));
        if told.is_some_and(|told| told.signals.first().is_some_and(|signal| signal.1 != stay.together)) {
            return Err(format!("{stay} was told of others before than with its view"));
        }
    }
    Ok(())
}

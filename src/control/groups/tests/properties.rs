//! What clients are promised, checked on what they saw. It knows nothing of how it is brought about.

use super::super::ClientId;
use crate::proto::groups::{Event, GroupViewId, Process};
use std::collections::{BTreeMap, BTreeSet};

/// What a client sees, or what becomes of it.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    Event(Event),
    /// It said something.
    Said(u64),
    /// It died.
    Left,
    /// Its router did.
    RouterGone,
}

/// What one client saw and said.
#[derive(Debug, Default)]
struct Story {
    group: String,
    /// What it is called, and whether it knows.
    process: Option<Process>,
    joined: bool,
    seen: Vec<Seen>,
    /// What it said, in this order, and what of that its router took.
    said: Vec<u64>,
    taken: Vec<u64>,
}

/// What all saw.
#[derive(Debug, Default)]
pub(super) struct Trace(BTreeMap<ClientId, Story>);

impl Trace {
    pub(super) fn open(&mut self, client: ClientId, group: &str, process: Process) {
        let story = Story { group: group.to_owned(), process: Some(process), ..Story::default() };
        self.0.insert(client, story);
    }

    fn story(&mut self, client: ClientId) -> &mut Story {
        self.0.get_mut(&client).expect("a client that joins is noted")
    }

    pub(super) fn joined(&mut self, client: ClientId, process: Process) {
        let story = self.story(client);
        assert_eq!(
            (story.process, std::mem::replace(&mut story.joined, true)),
            (Some(process), false),
            "it joins once"
        );
    }

    pub(super) fn has_joined(&self, client: ClientId) -> bool {
        self.0.get(&client).is_some_and(|story| story.joined)
    }

    pub(super) fn add(&mut self, client: ClientId, seen: Seen) {
        self.story(client).seen.push(seen);
    }

    pub(super) fn said(&mut self, client: ClientId, message: u64) {
        let story = self.story(client);
        story.said.push(message);
        story.seen.push(Seen::Said(message));
    }

    /// The number of its process.
    pub(super) fn number(&mut self, client: ClientId) -> u32 {
        self.story(client).process.expect("every client has a name").number
    }

    pub(super) fn taken(&mut self, client: ClientId, message: u64) {
        self.story(client).taken.push(message);
    }
}

/// What a client heard in a view, and the signals it was given.
type Before = (GroupViewId, Vec<(Process, u64)>, Vec<usize>);

/// A client in a view.
#[derive(Debug)]
struct Stay<'t> {
    client: ClientId,
    story: &'t Story,
    id: GroupViewId,
    members: BTreeSet<Process>,
    together: BTreeSet<Process>,
    heard: Vec<(Process, u64)>,
    /// What it said, each after so many messages.
    said: Vec<(u64, usize)>,
    /// The signals: each after so many messages.
    signals: Vec<usize>,
    /// The view before, what was heard there, and its signals.
    previous: Option<Before>,
    /// The view that follows, and who comes along.
    next: Option<(GroupViewId, BTreeSet<Process>)>,
}

impl Stay<'_> {
    fn process(&self) -> Process {
        self.story.process.expect("every client has a name")
    }

    /// What it heard before it was told that others may not.
    fn before_signal(&self) -> &[(Process, u64)] {
        &self.heard[..self.signals.first().copied().unwrap_or(self.heard.len())]
    }

    /// The same view of the same group.
    fn shares(&self, other: &Stay<'_>) -> bool {
        (&self.story.group, self.id) == (&other.story.group, other.id)
    }
}

impl std::fmt::Display for Stay<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} ({:?}) in {} of {}", self.client, self.process(), self.id, self.story.group)
    }
}

/// Checks everything. Nothing is under way at the trace's end, and all routers are in one view.
pub(super) fn check(trace: &Trace) -> Result<(), String> {
    let mut stays = Vec::new();
    for (&client, story) in &trace.0 {
        stays.extend(read(client, story).map_err(|why| format!("{client:?}: {why}"))?);
    }
    let mut views: BTreeMap<(&str, GroupViewId), Vec<usize>> = BTreeMap::new();
    for (place, stay) in stays.iter().enumerate() {
        views.entry((&stay.story.group, stay.id)).or_default().push(place);
    }
    for stay in &stays {
        own_view(stay)?;
        messages(trace, stay)?;
        signal(trace, stay)?;
    }
    for places in views.values() {
        for (&one, &other) in places.iter().flat_map(|one| places.iter().map(move |other| (one, other))) {
            pair(&stays[one], &stays[other])?;
        }
    }
    self_delivery(trace, &stays)?;
    final_views(trace, &stays)
}

/// A client's stays. Nothing comes before the first view.
fn read(client: ClientId, story: &Story) -> Result<Vec<Stay<'_>>, String> {
    let mut stays: Vec<Stay<'_>> = Vec::new();
    for (place, seen) in story.seen.iter().enumerate() {
        match (seen, stays.last_mut()) {
            (Seen::Event(Event::View { id, members, together }), last) => {
                let together: BTreeSet<Process> = together.iter().copied().collect();
                let previous = last.map(|last| {
                    last.next = Some((*id, together.clone()));
                    (last.id, last.heard.clone(), last.signals.clone())
                });
                if let Some((before, ..)) = previous.as_ref().filter(|previous| previous.0 >= *id) {
                    return Err(format!("after {before} comes {id}: ids ascend"));
                }
                let members = members.iter().copied().collect();
                let (heard, said, signals, next) = (Vec::new(), Vec::new(), Vec::new(), None);
                stays.push(Stay { client, story, id: *id, members, together, heard, said, signals, previous, next });
            }
            (Seen::Event(Event::Transitional), Some(stay)) => stay.signals.push(stay.heard.len()),
            (Seen::Event(Event::Message { from, bytes }), Some(stay)) => {
                let number = bytes.first_chunk().map_or(0, |number| u64::from_be_bytes(*number));
                if bytes[8..].iter().any(|&byte| byte != 7) {
                    return Err(format!("{number} is torn"));
                }
                stay.heard.push((*from, number));
            }
            (Seen::Said(message), Some(stay)) => stay.said.push((*message, stay.heard.len())),
            (Seen::Said(message), None) => return Err(format!("it says {message} before it is in a view")),
            (Seen::Event(event), None) => return Err(format!("{event:?} comes before the first view")),
            (Seen::Left | Seen::RouterGone, _) if place + 1 < story.seen.len() => {
                return Err("something comes after its end".to_owned());
            }
            (Seen::Left | Seen::RouterGone, _) => {}
        }
    }
    Ok(stays)
}

/// A process is in its view and comes with itself; who comes from no view comes alone.
fn own_view(stay: &Stay<'_>) -> Result<(), String> {
    let me = stay.process();
    if !stay.members.contains(&me) || !stay.together.contains(&me) || !stay.together.is_subset(&stay.members) {
        return Err(format!("{stay}: members {:?}, together {:?}", stay.members, stay.together));
    }
    if stay.previous.is_none() && stay.together.len() > 1 {
        return Err(format!("{stay} comes from no view with {:?}", stay.together));
    }
    Ok(())
}

/// What is heard was said by a member of the view, once, in its sender's order, without holes.
fn messages(trace: &Trace, stay: &Stay<'_>) -> Result<(), String> {
    let mut by_sender: BTreeMap<ClientId, Vec<u64>> = BTreeMap::new();
    for &(from, number) in &stay.heard {
        let sender = trace.0.iter().find(|(_, story)| story.said.contains(&number));
        let Some((&client, story)) = sender else { return Err(format!("{stay} hears {number}, which nobody said")) };
        if story.process != Some(from) || story.group != stay.story.group || !stay.members.contains(&from) {
            return Err(format!("{stay} hears {number} of {from:?}, who is no member, or did not say it"));
        }
        by_sender.entry(client).or_default().push(number);
    }
    for (client, heard) in by_sender {
        let said = &trace.0[&client].said;
        let first = said.iter().position(|&number| number == heard[0]).expect("it was found there");
        if said.get(first..first + heard.len()) != Some(&heard) {
            return Err(format!("{stay} hears {heard:?} of {client:?}, who said {said:?}"));
        }
    }
    let again = stay.story.seen.iter().filter_map(|seen| match seen {
        Seen::Event(Event::Message { bytes, .. }) => bytes.first_chunk().map(|number| u64::from_be_bytes(*number)),
        _ => None,
    });
    let mut all = BTreeSet::new();
    match again.into_iter().find(|number| !all.insert(*number)) {
        Some(number) => Err(format!("{stay} hears {number} again")),
        None => Ok(()),
    }
}

/// At most one signal; and one, if somebody is lost who did not leave.
fn signal(trace: &Trace, stay: &Stay<'_>) -> Result<(), String> {
    if stay.signals.len() > 1 {
        return Err(format!("{stay} is told {} times that it ends", stay.signals.len()));
    }
    let Some((_, along)) = &stay.next else { return Ok(()) };
    let left = |process: &Process| {
        let mut stories = trace.0.values().filter(|story| story.process == Some(*process));
        stories.any(|story| matches!(story.seen.last(), Some(Seen::Left)))
    };
    match stay.members.iter().find(|member| !along.contains(member) && !left(member)) {
        Some(lost) if stay.signals.is_empty() => Err(format!("{stay} loses {lost:?}, and no signal says so")),
        _ => Ok(()),
    }
}

/// Two in one view: it has the same members for both, who come together come from the same view and have heard the same
/// there, what both hear comes in one order, and of that order nothing is left out before a signal.
fn pair(one: &Stay<'_>, other: &Stay<'_>) -> Result<(), String> {
    assert!(one.shares(other), "only views of one id are compared");
    if one.members != other.members {
        return Err(format!("{one}: {:?}, but {other}: {:?}", one.members, other.members));
    }
    let with = [one.together.contains(&other.process()), other.together.contains(&one.process())];
    if with[0] != with[1] {
        return Err(format!("{one} comes with {:?}, {other} with {:?}", one.together, other.together));
    }
    if with[0] && one.client != other.client && (one.previous.is_none() || one.previous != other.previous) {
        return Err(format!("{one} and {other} come together, from {:?} and {:?}", one.previous, other.previous));
    }
    let common = |stay: &Stay<'_>, of: &Stay<'_>| {
        let heard: BTreeSet<_> = of.heard.iter().copied().collect();
        stay.heard.iter().copied().filter(|message| heard.contains(message)).collect::<Vec<_>>()
    };
    if common(one, other) != common(other, one) {
        return Err(format!("{one} hears {:?}, {other} {:?}: two orders", one.heard, other.heard));
    }
    let shorter = one.before_signal().len().min(other.before_signal().len());
    if one.before_signal()[..shorter] != other.before_signal()[..shorter] {
        return Err(format!("{one} hears {:?}, {other} {:?}: one left something out", one.heard, other.heard));
    }
    causal(one, other)
}

/// Who hears what the other said there has heard before it what the other had.
fn causal(speaker: &Stay<'_>, hearer: &Stay<'_>) -> Result<(), String> {
    let places: BTreeMap<u64, usize> = hearer.heard.iter().enumerate().map(|(place, heard)| (heard.1, place)).collect();
    for (message, count) in &speaker.said {
        let Some(place) = places.get(message) else { continue };
        let cause = |heard: &&(Process, u64)| places.get(&heard.1).is_none_or(|before| before >= place);
        if let Some((_, cause)) = speaker.heard[..*count].iter().find(cause) {
            return Err(format!("{hearer} hears {message}, which follows {cause}, and not {cause} before it"));
        }
    }
    Ok(())
}

/// Who lives hears all that it said and its router took.
fn self_delivery(trace: &Trace, stays: &[Stay<'_>]) -> Result<(), String> {
    for (client, story) in trace.0.iter().filter(|(_, story)| is_alive(story)) {
        let own = stays.iter().filter(|stay| stay.client == *client).flat_map(|stay| &stay.heard);
        let heard: BTreeSet<u64> = own.map(|message| message.1).collect();
        if let Some(lost) = story.taken.iter().find(|number| !heard.contains(number)) {
            return Err(format!("{client:?} does not hear {lost}, which it said"));
        }
    }
    Ok(())
}

/// In the end all who live are in one view of their group, and nobody else is.
fn final_views(trace: &Trace, stays: &[Stay<'_>]) -> Result<(), String> {
    let mut alive: BTreeMap<&str, BTreeSet<Process>> = BTreeMap::new();
    for (client, story) in trace.0.iter().filter(|(_, story)| is_alive(story)) {
        if !story.joined {
            return Err(format!("{client:?} does not get into its group"));
        }
        alive.entry(&story.group).or_default().extend(story.process);
    }
    let mut ids: BTreeMap<&str, GroupViewId> = BTreeMap::new();
    for stay in stays.iter().filter(|stay| stay.next.is_none() && is_alive(stay.story)) {
        let group = stay.story.group.as_str();
        let id = *ids.entry(group).or_insert(stay.id);
        if stay.members != alive[group] || stay.id != id {
            return Err(format!("{stay} ends with {:?}, where {:?} live in {id}", stay.members, alive[group]));
        }
    }
    Ok(())
}

fn is_alive(story: &Story) -> bool {
    !matches!(story.seen.last(), Some(Seen::Left | Seen::RouterGone))
}

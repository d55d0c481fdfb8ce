//! What this router does about one set: the machine whose states and transitions are drawn at the room's head.
//!
//! [`Post::follow`] brings the stage to what was agreed; what the host side reports and what time does are the other
//! methods. Each gives the command for the host side that belongs to the transition.

use super::door::HostCommand;
use crate::base::Instant;
use crate::base::sabotage::{Rule, broken};
use crate::wire::vip::{Seat, Slot};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long the host side may take to acquire a set before it counts as failed.
pub(super) const ACQUIRE_PATIENCE: Duration = Duration::from_secs(2);

/// What this router does about one set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Nothing.
    Idle,
    /// The host side has the addresses ready, silent until the lease of a member that is gone has run out.
    Waiting {
        /// When that is.
        until: Instant,
    },
    /// The host side was told to answer.
    Acquiring {
        /// When it counts as failed.
        deadline: Instant,
    },
    /// It answers.
    Owning,
    /// It accepts what comes, and answers no question for the addresses.
    Muted {
        /// When it is released; none until the new owner has the set.
        release_at: Option<Instant>,
    },
    /// The host side was told to have the addresses no more.
    Releasing,
    /// The lease ran out while this router was not running: the kernel is silent, and stays so until the others have
    /// said that they count on this router still.
    Lapsed,
}

/// What was agreed that this router does about a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Hold it.
    Own,
    /// Hold it until the new owner does.
    Give,
    /// Another holds it.
    Gone,
    /// Nothing.
    None,
}

impl Duty {
    pub(super) fn of(slot: &Slot, me: Option<Seat>) -> Duty {
        match me {
            None => Duty::None,
            _ if slot.owner == me => Duty::Own,
            _ if slot.from == me => Duty::Give,
            _ if slot.acquired => Duty::Gone,
            _ => Duty::None,
        }
    }
}

/// This router's side of one set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Post {
    pub(super) stage: Stage,
    /// When the lease of everybody who may have answered for it, and is gone, has run out.
    pub(super) free_at: Instant,
    /// Since when it belongs to this router, and how much of that was waiting.
    pub(super) given: Option<(Instant, Duration)>,
    /// The turn in which "acquired" was said last, and when.
    pub(super) told: Option<(u32, Instant)>,
    /// Why it cannot be held, and until when.
    pub(super) failed: Option<(Instant, String)>,
    pub(super) lost_at: Option<Instant>,
    pub(super) rival_at: Option<Instant>,
    /// A merge found the host side about to answer: whoever heard another owner before must hear this one after.
    pub(super) owes_announcement: bool,
}

impl Post {
    /// Idle. Nobody can know what answered before this router started, so it waits a lease at first.
    pub(super) fn new(free_at: Instant) -> Post {
        Post {
            stage: Stage::Idle,
            free_at,
            given: None,
            told: None,
            failed: None,
            lost_at: None,
            rival_at: None,
            owes_announcement: false,
        }
    }

    /// Brings the stage to what was agreed; `silent`: the others' word on this router is awaited.
    pub(super) fn follow(
        &mut self,
        now: Instant,
        set: usize,
        (duty, silent): (Duty, bool),
        linger: Duration,
    ) -> Option<HostCommand> {
        if duty != Duty::Own {
            self.given = None;
        }
        match (self.stage, duty) {
            (Stage::Idle | Stage::Muted { .. } | Stage::Releasing, Duty::Own) if self.failed.is_some() => None,
            (Stage::Idle | Stage::Muted { .. } | Stage::Releasing, Duty::Own) if silent => {
                self.stage = Stage::Lapsed;
                None
            }
            (Stage::Idle | Stage::Muted { .. } | Stage::Releasing, Duty::Own) => Some(self.acquire(now, set)),
            (Stage::Owning, Duty::Give) => {
                self.stage = Stage::Muted { release_at: None };
                (!broken(Rule::Mute)).then_some(HostCommand::Mute { set })
            }
            (Stage::Muted { release_at: None }, Duty::Gone) => {
                self.stage = Stage::Muted { release_at: Some(now + linger) };
                None
            }
            (Stage::Muted { release_at: Some(_) }, Duty::Gone) => None,
            (Stage::Owning, Duty::Gone) if broken(Rule::LoserReleases) => None,
            (Stage::Muted { .. }, Duty::None) | (Stage::Owning, Duty::Gone | Duty::None) => Some(self.release(set)),
            // Silent already, so there is nothing to hold for the new owner.
            (Stage::Waiting { .. } | Stage::Acquiring { .. } | Stage::Lapsed, Duty::Give | Duty::Gone | Duty::None) => {
                Some(self.release(set))
            }
            (Stage::Waiting { .. } | Stage::Acquiring { .. } | Stage::Owning | Stage::Lapsed, Duty::Own) => None,
            (Stage::Idle | Stage::Releasing, _) | (Stage::Muted { .. }, Duty::Give) => None,
        }
    }

    /// The set is this router's, and the host side can have it: it answers when the leases of the dead have run out.
    pub(super) fn acquire(&mut self, now: Instant, set: usize) -> HostCommand {
        let wait = if broken(Rule::Lease) { Duration::ZERO } else { self.free_at.since(now) };
        self.given = Some((now, wait));
        self.stage = if wait.is_zero() {
            Stage::Acquiring { deadline: now + ACQUIRE_PATIENCE }
        } else {
            Stage::Waiting { until: now + wait }
        };
        HostCommand::Acquire { set, wait, from: None }
    }

    /// A member is gone that may answer still, maybe without having heard that it was to give the set up: who does not
    /// answer yet waits for it too.
    pub(super) fn wait_longer(&mut self, now: Instant, set: usize) -> Option<HostCommand> {
        let longer = match self.stage {
            Stage::Waiting { until } => until < self.free_at,
            Stage::Acquiring { .. } => now < self.free_at,
            _ => false,
        };
        longer.then(|| self.acquire(now, set))
    }

    pub(super) const fn release(&mut self, set: usize) -> HostCommand {
        self.stage = Stage::Releasing;
        HostCommand::Release { set }
    }

    /// Does what is due. Says whether the host side took too long.
    pub(super) fn tick(&mut self, now: Instant, set: usize) -> (Option<HostCommand>, bool) {
        match self.stage {
            Stage::Waiting { until } if until <= now => {
                self.stage = Stage::Acquiring { deadline: now + ACQUIRE_PATIENCE };
                (None, false)
            }
            Stage::Acquiring { deadline } if deadline <= now => (None, true),
            Stage::Muted { release_at: Some(at) } if at <= now => (Some(self.release(set)), false),
            _ => (None, false),
        }
    }

    /// The host side answers for it. True if that was awaited.
    pub(super) const fn acquired(&mut self) -> bool {
        let awaited = matches!(self.stage, Stage::Waiting { .. } | Stage::Acquiring { .. });
        if awaited {
            self.stage = Stage::Owning;
        }
        awaited
    }

    /// The host side has nothing of it. True if that was awaited.
    pub(super) const fn released(&mut self) -> bool {
        let awaited = matches!(self.stage, Stage::Releasing);
        if awaited {
            self.stage = Stage::Idle;
        }
        awaited
    }

    /// The lease ran out. What was silent already is let go, and so is what the host side may not even have begun: the end
    /// of a lease takes what was under it, not what is ordered still.
    pub(super) const fn lapse(&mut self, set: usize) -> Option<HostCommand> {
        match self.stage {
            Stage::Waiting { .. } | Stage::Acquiring { .. } => {
                self.stage = Stage::Lapsed;
                Some(HostCommand::Release { set })
            }
            Stage::Owning => {
                self.stage = Stage::Lapsed;
                None
            }
            Stage::Muted { .. } => Some(self.release(set)),
            Stage::Idle | Stage::Releasing | Stage::Lapsed => None,
        }
    }
}

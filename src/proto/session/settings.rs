//! The session room's numbers, each with its reason.

use crate::base::limits::MAX_SESSIONS;
use crate::wire::client::MAX_RECORD;
use std::time::Duration;

/// Segments a sender may send before it has heard of the receiver's limit, and the least window a receiver ever offers.
/// One application message of the largest size (57 segments) always fits, so a flow can always complete one.
pub(super) const FIRST_WINDOW: u64 = 64;

/// Windows, buffers and timers of the sessions of one shard.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Sessions at most; more are refused.
    pub max_sessions: usize,
    /// Reliable flows at most, in each direction. A sender beyond it waits, a stranger's flow is refused.
    pub max_flows: usize,
    /// Outgoing flows of one session. One more ends the longest idle one.
    pub flows_per_session: usize,
    /// Segments a receiver offers to hold for one flow: 1024 are 1.1 MiB, 95 Mbit/s over a round trip of 100 ms.
    pub receive_window: u64,
    /// Largest sending window, segments.
    pub send_window: u32,
    /// Segments of one flow, sent or not, beyond which its application is asked to wait.
    pub send_queue: usize,
    /// Records that found no room and are held, of all sessions together, bytes. When no further record of the largest
    /// size fits, no session is read until one does, and that is counted. A caller that does not ask before it reads
    /// ([`Sessions::may_read`](super::Sessions::may_read)) adds a record for each session at most.
    pub held_bytes: usize,
    /// Share of the packet pool that all receivers may hold, percent. Each flow is offered at most half of what is left
    /// of it (so n greedy flows settle at fair shares and leave room for one more), though never less than 64 segments.
    pub receive_percent: usize,
    /// Further share of the pool that is open only to the first 64 segments of each flow, percent, so that messages
    /// half received can be completed when the share above is used up.
    pub complete_percent: usize,
    /// Share of the pool that all senders may hold, percent. Each flow may hold at most a quarter of what is left of it.
    pub send_percent: usize,
    /// Best-effort packets and notices that wait for one application; more are dropped.
    pub inbox: usize,
    /// Messages to the network that wait to be fetched; best effort beyond it is dropped.
    pub outbox: usize,
    /// Best-effort datagrams being put together at one time; for one more the oldest is given up.
    pub reassemblies: usize,
    /// How long the fragments of a best-effort datagram are waited for. Hops do not recover them: what is missing after
    /// the spread of the path's delay will not come.
    pub reassembly_timeout: Duration,
    /// Streams that wait to be accepted at one listener; more are refused.
    pub backlog: usize,
    /// Segments per acknowledgement: a thirty-second of the traffic comes back.
    pub ack_every: u32,
    /// An acknowledgement is delayed by this to twice this: the hops have the segment already, nobody waits for it.
    pub ack_delay: Duration,
    /// A gap that lasts this long is reported: longer than a hop takes to recover a loss at once.
    pub gap_delay: Duration,
    /// Least time before an end-to-end repeat: hops recover first, some of them twice.
    pub rto_min: Duration,
    /// Added to the measured round trip before an end-to-end repeat.
    pub rto_margin: Duration,
    /// Longest pause between two repeats, and so the longest a healed path stays unused.
    pub rto_max: Duration,
    /// A flow whose peer does not answer for so long, though asked every 2 s or oftener, is reset. So the death of a
    /// stream's peer is noticed after this and a pause between questions: 35 s while something waits for the peer, else
    /// 45 s, as a silent stream asks only after `keepalive`.
    pub give_up: Duration,
    /// A datagram flow whose peer answers but takes nothing of what is under way is reset after this. That is so while many
    /// flows wait for readers that do not read; it would be so for ever if the receivers' share of the pool were full of
    /// halves of messages.
    pub refused: Duration,
    /// After a change of routes, unacknowledged flows ask for an acknowledgement after each of these: the first finds
    /// what the old path lost, the second what was still on its way to it.
    pub probe_after: [Duration; 2],
    /// An idle datagram flow is ended by its sender after this.
    pub idle: Duration,
    /// An idle stream asks whether the peer still lives after this.
    pub keepalive: Duration,
    /// A datagram flow that is not heard of for so long is forgotten: its sender has ended or given up long before.
    pub silence: Duration,
    /// A stream that is not heard of for so long is reset: its sender would have asked.
    pub stream_silence: Duration,
    /// How long a closed datagram session tries to get its last data acknowledged. A stream that has finished goes on as
    /// long as its peer answers: its reader may be slow.
    pub linger: Duration,
    /// Closed streams that may go on for longer than `linger`. For one more, and when the senders' share of the pool is
    /// used up, the one that has done so longest is reset and counted.
    pub overdue: usize,
    /// How long an ended flow is remembered, so that a late repeat never opens it again: longer than any sender repeats.
    pub tombstone: Duration,
    /// Incoming flows that live or are remembered. For one more no flow opens, and that is counted (its sender repeats its
    /// first segment until there is room or it gives up): a flow that could not be remembered could be delivered twice.
    /// So flows may end at a rate of `tombstones / tombstone`, 1,092 a second, and bursts up to the bound at any rate.
    /// One router's flows may take as many of these places as they leave free. An entry takes about 100 bytes.
    pub tombstones: usize,
    /// Resets and expiry notes sent per second: answers to what may be garbage.
    pub notices_per_second: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_sessions: MAX_SESSIONS,
            max_flows: 4096,
            flows_per_session: 256,
            receive_window: 1024,
            send_window: 1024,
            send_queue: 1024,
            held_bytes: 64 << 20,
            receive_percent: 40,
            complete_percent: 15,
            send_percent: 25,
            inbox: 512,
            outbox: 2048,
            reassemblies: 64,
            reassembly_timeout: Duration::from_secs(2),
            backlog: 128,
            ack_every: 32,
            ack_delay: Duration::from_millis(25),
            gap_delay: Duration::from_millis(100),
            rto_min: Duration::from_millis(300),
            rto_margin: Duration::from_millis(200),
            rto_max: Duration::from_secs(5),
            give_up: Duration::from_secs(30),
            refused: Duration::from_secs(600),
            probe_after: [Duration::from_millis(20), Duration::from_millis(100)],
            idle: Duration::from_secs(60),
            keepalive: Duration::from_secs(15),
            silence: Duration::from_secs(180),
            stream_silence: Duration::from_secs(60),
            linger: Duration::from_secs(60),
            overdue: 256,
            tombstone: Duration::from_secs(60),
            tombstones: 65_536,
            notices_per_second: 200,
        }
    }
}

impl Settings {
    /// The relations that the rules rest on.
    pub(super) fn check(&self) {
        assert!(self.give_up < self.tombstone, "a flow is remembered longer than its sender repeats");
        assert!(self.keepalive + self.give_up < self.stream_silence, "a living stream is heard of in time");
        assert!(self.idle + self.give_up < self.silence, "a living datagram flow ends before it is forgotten");
        assert!(self.receive_window >= FIRST_WINDOW, "a receiver offers what every sender assumes");
        assert!(self.held_bytes >= MAX_RECORD, "a record can be held");
        let shares = self.receive_percent + self.complete_percent + self.send_percent;
        assert!(shares <= 80, "a fifth of the pool is left to packets on their way");
        assert!(self.max_sessions > 0 && self.max_flows > 0 && self.reassemblies > 0 && self.tombstones > 0);
    }
}

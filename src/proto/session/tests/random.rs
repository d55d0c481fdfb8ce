//! Random scripts against a model: a list for ordered datagrams and streams, a multiset for unordered ones.

use super::harness::*;
use crate::base::{Class, SessionId};
use crate::wire::client::Record;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    /// Node 0 or 1 sends a message of this size.
    Message {
        from: usize,
        ordered: bool,
        len: usize,
    },
    /// Node 0 or 1 writes this many bytes to the stream.
    Bytes {
        from: usize,
        len: usize,
    },
    Run(u64),
    Weather {
        jitter: u64,
        loss: f64,
        duplicate: f64,
        mark: f64,
    },
    LoseFlight,
    Reads {
        node: usize,
        reads: bool,
    },
    TableChange,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![0usize..100, 0usize..5000, 60_000usize..65_537];
    prop_oneof![
        6 => (0usize..2, any::<bool>(), len.clone()).prop_map(|(from, ordered, len)| Step::Message { from, ordered, len }),
        4 => (0usize..2, len).prop_map(|(from, len)| Step::Bytes { from, len }),
        4 => prop_oneof![0u64..40, 0u64..2000].prop_map(Step::Run),
        1 => (0u64..150, 0.0..0.4, 0.0..0.2, 0.0..0.2)
            .prop_map(|(jitter, loss, duplicate, mark)| Step::Weather { jitter, loss, duplicate, mark }),
        1 => Just(Step::LoseFlight),
        1 => (0usize..2, any::<bool>()).prop_map(|(node, reads)| Step::Reads { node, reads }),
        1 => Just(Step::TableChange),
    ]
}

#[derive(Default)]
struct Model {
    ordered: [Vec<Vec<u8>>; 2],
    unordered: [Vec<Vec<u8>>; 2],
    streams: [Vec<u8>; 2],
}

const CHAT: SessionId = SessionId(2);

fn play(steps: Vec<Step>, seed: u64) {
    let mut world = World::new(seed, 2);
    let ends = [SessionId(1), world.connect()];
    world.datagram(0, 2, 9);
    world.datagram(1, 2, 9);
    let mut model = Model::default();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Message { from, ordered, len } => {
                let mut bytes = pattern(number as u64, len + 3);
                bytes[0] = u8::from(ordered);
                bytes[1..3].copy_from_slice(&(number as u16).to_be_bytes());
                bytes.truncate(len.max(3));
                world.send(from, CHAT.0, Class::Reliable, ordered, endpoint(1 - from, 9), &bytes);
                let model = if ordered { &mut model.ordered } else { &mut model.unordered };
                model[1 - from].push(bytes);
            }
            Step::Bytes { from, len } => {
                let bytes = pattern(number as u64, len);
                world.write(from, ends[from], &Record::Data(&bytes));
                model.streams[1 - from].extend(bytes);
            }
            Step::Run(time) => world.run(ms(time)),
            Step::Weather { jitter, loss, duplicate, mark } => {
                world.wire = Wire { jitter: ms(jitter), loss, duplicate, mark, ..Wire::default() };
            }
            Step::LoseFlight => {
                world.lose_flight();
            }
            Step::Reads { node, reads } => {
                world.set_reads(node, CHAT, reads);
                world.set_reads(node, ends[node], reads);
            }
            Step::TableChange => world.table_change(0),
        }
        assert!(world.nodes.iter().all(|node| node.pool.in_use() < POOL * 4 / 5));
    }
    world.wire = Wire::default();
    for (node, end) in ends.into_iter().enumerate() {
        world.set_reads(node, CHAT, true);
        world.set_reads(node, end, true);
        world.write(node, end, &Record::Finish);
    }
    world.run(ms(60_000));
    for (node, end) in ends.into_iter().enumerate() {
        let app = world.app(node, CHAT.0);
        let (ordered, mut unordered): (Vec<_>, Vec<_>) = app.datagrams().into_iter().partition(|bytes| bytes[0] == 1);
        unordered.sort();
        model.unordered[node].sort();
        assert!(ordered == model.ordered[node], "ordered datagrams at {node}");
        assert!(unordered == model.unordered[node], "unordered datagrams at {node}");
        let stream = &world.nodes[node].apps[&end];
        assert!(stream.stream() == model.streams[node], "stream at {node}");
        assert!(!stream.was_reset() && !app.was_reset());
        assert!(world.nodes[node].closed.contains(&end));
    }
    world.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_wire_does_applications_see_the_model(
        steps in proptest::collection::vec(step(), 1..60),
        seed in any::<u64>(),
    ) {
        play(steps, seed);
    }
}

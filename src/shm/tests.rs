//! Rings between two threads, and against memory that holds anything.

use super::memory::SIZE;
use super::{Consumer, Memory, Nonsense, Producer, RING, Way};
use crate::base::Rng;
use crate::wire::client::MAX_RECORD;
use proptest::prelude::*;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;

fn memory() -> Arc<Memory> {
    Arc::new(Memory::create().expect("memory").0)
}

fn ends(memory: &Arc<Memory>, way: Way) -> (Producer, Consumer) {
    (Producer::new(Arc::clone(memory), way), Consumer::new(Arc::clone(memory), way))
}

fn push(producer: &mut Producer, record: &[u8]) -> bool {
    producer.push(std::iter::once(record)).expect("the consumer is honest")
}

#[test]
fn records_of_every_length_come_out_as_they_went_in() {
    let memory = memory();
    for way in [Way::Up, Way::Down] {
        let (mut producer, mut consumer) = ends(&memory, way);
        let (mut rng, mut buffer) = (Rng::from_u64(7), vec![0; MAX_RECORD]);
        for round in 0..3000usize {
            let len = if round.is_multiple_of(50) { MAX_RECORD } else { rng.below(3000) as usize };
            let record: Vec<u8> = (0..len).map(|at| (at + round) as u8).collect();
            let (head, tail) = record.split_at(len / 3);
            assert_eq!(producer.push([head, &[][..], tail].into_iter()), Ok(true));
            assert_eq!(consumer.take(&mut buffer), Ok(Some(len)));
            assert!(buffer[..len] == record, "record {round} of {len} bytes");
        }
        assert!(consumer.is_empty() && consumer.take(&mut buffer) == Ok(None));
    }
}

#[test]
fn a_full_ring_takes_no_more_and_what_is_taken_makes_room() {
    let memory = memory();
    let (mut producer, mut consumer) = ends(&memory, Way::Up);
    let large = vec![1; MAX_RECORD];
    let count = (0..).take_while(|_| push(&mut producer, &large)).count();
    assert_eq!(count, RING / (MAX_RECORD + 8));
    while push(&mut producer, b"") {}
    assert!(!consumer.is_half_empty() || consumer.front() == Ok(Some(MAX_RECORD)));
    assert_eq!(consumer.take(&mut [0; 4]), Ok(Some(MAX_RECORD)), "what does not fit is lost");
    assert!(push(&mut producer, &large) && !push(&mut producer, &large));
    let mut left = 0;
    while consumer.take(&mut []).expect("records").is_some() {
        left += 1;
    }
    assert!(left > count && consumer.is_half_empty());
}

#[test]
fn a_record_is_read_in_pieces_and_the_last_one_is_seen_from_afar() {
    let memory = memory();
    let (mut producer, mut consumer) = ends(&memory, Way::Down);
    assert_eq!(consumer.copy_last(&mut [0; 8]), Ok(None));
    for record in [&b"hello"[..], b"world", b"!"] {
        push(&mut producer, record);
    }
    let mut piece = [0; 3];
    assert_eq!((consumer.copy_front(3, &mut piece), piece), (Ok(2), *b"lo\0"));
    assert_eq!((consumer.copy_last(&mut piece), piece), (Ok(Some(1)), *b"!or"));
    consumer.pop();
    assert_eq!((consumer.take(&mut piece), piece), (Ok(Some(5)), *b"wor"));
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the other process is played by a thread")]
fn another_thread_gets_everything_in_order() {
    const RECORDS: u64 = 200_000;
    let memory = memory();
    let (mut producer, mut consumer) = ends(&memory, Way::Up);
    let writer = std::thread::spawn(move || {
        for number in 0..RECORDS {
            let (number, len) = (number.to_ne_bytes(), number as usize % 100);
            while !producer.push([&number[..], &[7; 100][..len]].into_iter()).expect("honest") {
                std::thread::yield_now();
            }
        }
    });
    let mut record = [0; 200];
    for number in 0..RECORDS {
        let len = loop {
            match consumer.take(&mut record).expect("honest") {
                Some(len) => break len,
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(len, 8 + number as usize % 100);
        assert_eq!(record.first_chunk(), Some(&number.to_ne_bytes()));
        assert!(record[8..len].iter().all(|&byte| byte == 7));
    }
    writer.join().expect("writes");
}

#[test]
fn only_a_session_s_memory_is_mapped_and_its_size_stays() {
    let (memory, descriptor) = Memory::create().expect("memory");
    let other = Memory::map(descriptor.as_fd()).expect("the same memory");
    memory.end();
    assert!(other.is_over());
    for size in [0, SIZE as libc::off_t / 2, 2 * SIZE as libc::off_t] {
        // SAFETY: takes no pointers.
        assert_eq!(unsafe { libc::ftruncate(descriptor.as_raw_fd(), size) }, -1, "{size}");
    }
    let file = tempfile::tempfile().expect("a file");
    file.set_len(SIZE as u64).expect("its size");
    assert!(Memory::map(file.as_fd()).is_err(), "it could shrink, and then a look at it would end the process");
}

#[test]
fn a_consumer_that_says_it_read_what_was_not_written_is_noticed() {
    for lie in [1, u64::MAX, 1 << 40] {
        let memory = memory();
        let (mut producer, _) = ends(&memory, Way::Down);
        assert!(push(&mut producer, b""));
        memory.words(Way::Down).tail().store(8u64.wrapping_add(lie), Ordering::Release);
        let told = (0..RING).find_map(|_| producer.push(std::iter::once(&[0; 1000][..])).err());
        assert_eq!(told, Some(Nonsense), "{lie}");
    }
}

/// Whatever the other side writes, records come out whole or it is told; nothing else is touched.
fn read_all(memory: &Arc<Memory>, heads: impl Iterator<Item = u64>) {
    let mut consumer = Consumer::new(Arc::clone(memory), Way::Up);
    let mut record = vec![0; MAX_RECORD];
    for head in heads {
        memory.words(Way::Up).head().store(head, Ordering::Release);
        loop {
            let _ = consumer.copy_last(&mut record[..16]);
            match consumer.take(&mut record) {
                Ok(Some(len)) => assert!(len <= MAX_RECORD),
                Ok(None) => break,
                Err(Nonsense) => return,
            }
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_memory_is_read_or_refused(
        words in proptest::collection::vec(prop_oneof![0u64..300, any::<u64>()], 1..400),
        heads in proptest::collection::vec(prop_oneof![0..2 * RING as u64, any::<u64>()], 1..8),
    ) {
        let memory = memory();
        for (place, word) in words.iter().enumerate() {
            memory.copy_in(Way::Up, 8 * place as u64, &word.to_ne_bytes());
        }
        read_all(&memory, heads.into_iter());
    }

    #[test]
    fn a_length_that_changes_while_it_is_read_reaches_no_further(lens in proptest::collection::vec(any::<u64>(), 2..20)) {
        let memory = memory();
        let (mut producer, mut consumer) = ends(&memory, Way::Up);
        push(&mut producer, &[5; 100]);
        let mut record = [0; 200];
        assert_eq!(consumer.front(), Ok(Some(100)));
        for len in lens {
            memory.word(Way::Up, 0).store(len, Ordering::Relaxed);
            prop_assert_eq!(consumer.copy_front(0, &mut record), Ok(100));
        }
        prop_assert_eq!(consumer.take(&mut record), Ok(Some(100)));
        prop_assert_eq!(consumer.take(&mut record), Ok(None));
    }
}

//! Replays the committed fuzz corpus, and cheap mutations of it, through every target.

#[path = "fuzz/targets.rs"]
mod targets;

use sinew::base::Rng;
use std::fs;
use std::path::Path;

/// Mutations of each corpus entry.
const MUTATIONS: usize = 200;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let Ok(entries) = fs::read_dir(&folder) else { panic!("{} is missing", folder.display()) };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a corpus entry can be read").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a corpus file can be read")).collect()
}

/// Flips, removes, repeats and splices bytes.
fn mutate(input: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        match rng.below(4) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            1 if at < bytes.len() => drop(bytes.drain(at..)),
            2 => bytes.insert(at, rng.next_u32() as u8),
            _ => bytes.extend_from_slice(&input[..at.min(input.len())]),
        }
    }
    bytes
}

#[test]
fn every_target_survives_its_corpus() {
    for &(name, target) in targets::TARGETS {
        let inputs = corpus(name);
        assert!(!inputs.is_empty(), "target {name} has no corpus");
        let mut rng = Rng::from_u64(0x5e11);
        for input in &inputs {
            target(input);
            for _ in 0..MUTATIONS.div_ceil(1 + inputs.len() / 10) {
                target(&mutate(input, &mut rng));
            }
        }
    }
}

#[test]
fn every_target_is_fuzzed() {
    let manifest = include_str!("fuzz/Cargo.toml");
    for (name, _) in targets::TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "tests/fuzz/Cargo.toml lacks {name}");
    }
}

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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/fuzz_targets");
    for (name, _) in targets::TARGETS {
        let (bin, path) = (format!("name = \"{name}\""), format!("path = \"fuzz_targets/{name}.rs\""));
        assert!(manifest.contains(&format!("[[bin]]\n{bin}\n{path}\n")), "tests/fuzz/Cargo.toml lacks {name}");
        let fuzzer = fs::read_to_string(folder.join(format!("{name}.rs"))).unwrap_or_default();
        assert!(fuzzer.contains(&format!("|data: &[u8]| targets::{name}(data)")), "{name}.rs fuzzes something else");
    }
    // Where one is not in the table, its corpus is not replayed.
    let fuzzers = fs::read_dir(&folder).expect("the fuzzers can be listed").count();
    assert_eq!(fuzzers, targets::TARGETS.len(), "a fuzzer is not in the table of targets");
    assert_eq!(manifest.matches("[[bin]]").count(), targets::TARGETS.len());
    let mut names: Vec<_> = targets::TARGETS.iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), targets::TARGETS.len(), "a target is there twice");
}

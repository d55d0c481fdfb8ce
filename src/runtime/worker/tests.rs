//! What a worker counts, and what it shares with others.

use super::*;

// Faults and single steps are told of in the registers of this processor.
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
mod lines;
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
mod trace;

#[test]
fn send_errors_are_counted_by_reason() {
    let mut told = Told::default();
    [libc::EMSGSIZE, libc::EPERM, libc::EMSGSIZE, libc::EIO].into_iter().for_each(|errno| told.count(errno));
    let named: Vec<(String, u64)> = told.named().collect();
    assert_eq!(named, [("too-long".to_owned(), 2), ("not-permitted".to_owned(), 1), ("other".to_owned(), 1)]);
}

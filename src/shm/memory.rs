//! The memory itself: made by the router, sealed, mapped by both.

use super::{RING, Sleeper};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// "sinew", and the version of the layout.
const MAGIC: u64 = 0x7369_6e65_7700_0001;
/// Bytes before the rings.
const HEAD: usize = 4096;
/// Bytes in all.
pub const SIZE: usize = HEAD + 2 * RING;
const SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// Which ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the application to the router.
    Up,
    /// From the router to the application.
    Down,
}

/// In a cache line of its own.
#[derive(Debug)]
#[repr(C, align(64))]
struct Line<T>(T);

/// The words of one ring.
#[derive(Debug)]
#[repr(C)]
pub struct Words {
    head: Line<AtomicU64>,
    tail: Line<AtomicU64>,
    asleep: Line<Sleeper>,
    plugged: Line<AtomicU32>,
}

impl Words {
    /// How far its producer has written.
    pub fn head(&self) -> &AtomicU64 {
        &self.head.0
    }

    /// How far its consumer has read.
    pub fn tail(&self) -> &AtomicU64 {
        &self.tail.0
    }

    /// Whether its consumer sleeps.
    pub fn sleeper(&self) -> &Sleeper {
        &self.asleep.0
    }

    /// Not zero if its producer put a plug into the socket. No more than a hint for a consumer that is not done yet: one
    /// that found its ring empty looks into the socket.
    pub fn plugged(&self) -> &AtomicU32 {
        &self.plugged.0
    }
}

#[derive(Debug)]
#[repr(C)]
struct Head {
    magic: Line<AtomicU64>,
    over: Line<AtomicU32>,
    up: Words,
    down: Words,
}

const _: () = assert!(size_of::<Head>() <= HEAD, "the words fit their page");

/// A mapping of the memory; unmapped when the last of its ends is dropped.
#[derive(Debug)]
pub struct Memory {
    base: NonNull<u8>,
}

// SAFETY: the mapping is not bound to a thread; its words are atomic, its bytes are reached by `copy_in` and `copy_out`
// alone, which claim nothing about who else writes.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// New memory: its mapping, and the descriptor that the application maps it by.
    pub fn create() -> io::Result<(Memory, OwnedFd)> {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: the name ends with a zero byte.
        let fd = check(unsafe { libc::memfd_create(c"sinew-session".as_ptr(), flags) })?;
        // SAFETY: the call succeeded, so `fd` is open and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: takes no pointers.
        check(unsafe { libc::ftruncate(fd.as_raw_fd(), SIZE as libc::off_t) })?;
        // SAFETY: takes no pointers.
        check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, SEALS) })?;
        let memory = Memory::map_sized(fd.as_fd())?;
        memory.head().magic.0.store(MAGIC, Ordering::Relaxed);
        // The application has not looked yet: whoever is first to write rings, so that it can begin with `poll`.
        memory.words(Way::Down).sleeper().announce();
        Ok((memory, fd))
    }

    /// Maps memory that a router made. An error if it is anything else.
    pub fn map(fd: BorrowedFd<'_>) -> io::Result<Memory> {
        // SAFETY: takes no pointers.
        let seals = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) })?;
        let size = size_of_file(fd)?;
        if seals & SEALS != SEALS || size != SIZE as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a descriptor of something else than a session's memory",
            ));
        }
        let memory = Memory::map_sized(fd)?;
        if memory.head().magic.0.load(Ordering::Relaxed) != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the memory of a router of another version"));
        }
        Ok(memory)
    }

    /// Maps what is known to have [`SIZE`] bytes for ever.
    fn map_sized(fd: BorrowedFd<'_>) -> io::Result<Memory> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, where the kernel likes.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("the kernel maps nothing at zero");
        Ok(Memory { base })
    }

    fn head(&self) -> &Head {
        // SAFETY: the mapping begins with a page that has room and alignment for `Head`, all of whose parts are atomic
        // integers, for which any bytes are a value; it lives as long as `self`.
        unsafe { self.base.cast::<Head>().as_ref() }
    }

    /// The words of a ring.
    pub fn words(&self, way: Way) -> &Words {
        match way {
            Way::Up => &self.head().up,
            Way::Down => &self.head().down,
        }
    }

    /// The router says that the session is over.
    pub fn end(&self) {
        self.head().over.0.store(1, Ordering::Release);
    }

    /// Whether the router has said so.
    pub fn is_over(&self) -> bool {
        self.head().over.0.load(Ordering::Acquire) != 0
    }

    /// Writes `bytes` at a position of a ring.
    pub fn copy_in(&self, way: Way, position: u64, bytes: &[u8]) {
        let (place, until_end) = self.place(way, position, bytes.len());
        // SAFETY: both pieces lie in the ring, which is mapped, writable and apart from `bytes`. The other process may
        // write at the same time: then what stands there is of no use to it, and no concern of ours.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), place.add(position as usize % RING), until_end);
            std::ptr::copy_nonoverlapping(bytes.as_ptr().add(until_end), place, bytes.len() - until_end);
        }
    }

    /// Copies what stands at a position of a ring.
    pub fn copy_out(&self, way: Way, position: u64, bytes: &mut [u8]) {
        let (place, until_end) = self.place(way, position, bytes.len());
        // SAFETY: both pieces lie in the ring, which is mapped, readable and apart from `bytes`. The other process may
        // write at the same time: any bytes may come of that, and are judged only once they are here.
        unsafe {
            std::ptr::copy_nonoverlapping(place.add(position as usize % RING), bytes.as_mut_ptr(), until_end);
            std::ptr::copy_nonoverlapping(place, bytes.as_mut_ptr().add(until_end), bytes.len() - until_end);
        }
    }

    /// The word at a position, which is a multiple of 8, of a ring.
    pub fn word(&self, way: Way, position: u64) -> &AtomicU64 {
        assert!(position.is_multiple_of(8), "words are aligned");
        let (place, _) = self.place(way, position, 8);
        // SAFETY: aligned, in the ring, and an atomic integer, for which any bytes are a value.
        unsafe { &*place.add(position as usize % RING).cast::<AtomicU64>() }
    }

    /// Where a ring begins, and how many of `len` bytes from a position on come before its end.
    fn place(&self, way: Way, position: u64, len: usize) -> (*mut u8, usize) {
        assert!(len <= RING, "nothing is larger than the ring");
        let ring = match way {
            Way::Up => HEAD,
            Way::Down => HEAD + RING,
        };
        // SAFETY: within the mapping.
        let place = unsafe { self.base.as_ptr().add(ring) };
        (place, len.min(RING - position as usize % RING))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody can reach it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), SIZE) };
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn size_of_file(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(std::fs::File::from(fd.try_clone_to_owned()?).metadata()?.len())
}

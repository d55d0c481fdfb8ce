//! Which worker touches which cache line of the memory that threads could share, read or write: instruction by instruction.
//!
//! While a worker is watched nobody may touch that memory (`mprotect`), and no other thread runs. Each access faults; the
//! handler notes whose it is and which line it goes to, opens the page, and has the processor stop after the one
//! instruction (the trap flag of x86); then the page is closed again. It needs no counters of the processor, sees what
//! compilers made of the code, and is as exact as the machine: two words on one line are one line.
//!
//! All that is private to the process and writable is watched (heaps, statics), but stacks, which belong to their threads.
//! Of an instruction that touches two lines of a page, the first is noted. What system calls are given must not be watched:
//! they would fail.

use std::cell::UnsafeCell;
use std::ops::Range;

/// Bytes of a cache line.
const LINE: usize = 64;
const PAGE: usize = 4096;
/// Most regions watched, pages open at a time, and lines noted.
const REGIONS: usize = 1024;
const OPEN: usize = 8;
const LINES: usize = 1 << 17;
/// Participants.
pub(super) const WATCHED: usize = 2;
/// What a participant did to a line.
const READ: u8 = 1;
const WROTE: u8 = 2;
/// From the processor's manual: a page fault that is a write, and the trap flag.
const FAULT_IS_WRITE: i64 = 2;
const TRAP_FLAG: i64 = 0x100;

/// A cache line, and what was done to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// Where it begins; 0: nothing is noted here.
    pub(super) address: usize,
    did: [u8; WATCHED],
    /// The instruction that did it last, of each participant.
    pub(super) by: [usize; WATCHED],
}

impl Line {
    /// Whether one participant wrote to it, and another touched it.
    pub(super) fn is_shared(&self) -> bool {
        let wrote = |who: usize| self.did[who] & WROTE != 0;
        (0..WATCHED).any(|who| wrote(who) && (0..WATCHED).any(|other| other != who && self.did[other] != 0))
    }

    /// Whether this participant wrote to it.
    pub(super) fn is_written_by(&self, who: usize) -> bool {
        self.did[who] & WROTE != 0
    }
}

/// What the handlers use, in pages of its own, which are not watched.
#[repr(C, align(4096))]
struct State {
    regions: [(usize, usize); REGIONS],
    region_count: usize,
    open: [usize; OPEN],
    open_count: usize,
    who: usize,
    lines: [Line; LINES],
    line_count: usize,
    /// Keeps what the linker puts next to it on another page.
    end: [u8; PAGE],
}

struct Static(UnsafeCell<State>);

// SAFETY: one thread at a time: that of the participant that is watched, whose handlers run on it.
unsafe impl Sync for Static {}

static STATE: Static = Static(UnsafeCell::new(State {
    regions: [(0, 0); REGIONS],
    region_count: 0,
    open: [0; OPEN],
    open_count: 0,
    who: 0,
    lines: [Line { address: 0, did: [0; WATCHED], by: [0; WATCHED] }; LINES],
    line_count: 0,
    end: [0; PAGE],
}));

/// The stack of the calling thread, and its thread-local memory.
pub(super) fn own_stack() -> Range<usize> {
    let (mut start, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: all three fill in what they are given, which lives long enough.
    let done = unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        let got = libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes);
        got | libc::pthread_attr_getstack(&raw const attributes, &raw mut start, &raw mut size)
            | libc::pthread_attr_destroy(&raw mut attributes)
    };
    assert_eq!(done, 0, "a thread knows its stack");
    start as usize..start as usize + size
}

/// Prepares to watch the memory that there is now, but these stacks. Once in a process, which must have no other threads
/// that run while somebody is watched.
pub(super) fn prepare(stacks: &[Range<usize>]) {
    let state = STATE.0.get();
    let own = state as usize..state as usize + size_of::<State>();
    let mut watched = writable_memory();
    for hole in stacks.iter().chain([&own]) {
        watched = watched.into_iter().flat_map(|region| without(&region, hole)).collect();
    }
    assert!(watched.len() <= REGIONS, "{} regions", watched.len());
    // SAFETY: nobody is watched yet, so nobody else uses the state; the handlers have the signature that the kernel calls.
    unsafe {
        for (place, region) in watched.iter().enumerate() {
            (*state).regions[place] = (region.start, region.end);
        }
        (*state).region_count = watched.len();
        for (signal, handler) in [(libc::SIGSEGV, touched as *const ()), (libc::SIGTRAP, stepped as *const ())] {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
        }
    }
}

/// Works as this participant, watched.
pub(super) fn watch<R>(who: usize, work: impl FnOnce() -> R) -> R {
    let state = STATE.0.get();
    // SAFETY: no other thread runs, and the handlers do so only while this one waits for them.
    unsafe { (*state).who = who };
    protect_all(libc::PROT_NONE);
    let done = work();
    protect_all(libc::PROT_READ | libc::PROT_WRITE);
    done
}

/// What was touched since it was asked last.
pub(super) fn take_lines() -> Vec<Line> {
    // SAFETY: nobody is watched.
    let state = unsafe { &mut *STATE.0.get() };
    assert!(state.line_count < LINES / 2, "more was touched than there is room for");
    let lines = state.lines.iter().filter(|line| line.address != 0).copied().collect();
    state.lines.iter_mut().for_each(|line| line.address = 0);
    state.line_count = 0;
    lines
}

/// Memory of this process that is private and writable, but that of libraries.
fn writable_memory() -> Vec<Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("this process has maps");
    let mut before = (0, String::new());
    let read = |line: &str| {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next()?, words.next()?);
        let name = words.nth(3).unwrap_or("");
        let (start, end) = range.split_once('-')?;
        let [start, end] = [start, end].map(|text| usize::from_str_radix(text, 16).expect("an address"));
        // What follows a library at once is its own, too: the C library's is needed to wait for others.
        let name = if name.is_empty() && before.0 == start { before.1.clone() } else { name.to_owned() };
        let watched = !name.contains(".so") && !name.starts_with("[stack");
        before = (end, name);
        (rights == "rw-p" && watched).then_some(start..end)
    };
    maps.lines().filter_map(read).collect()
}

/// What is left of a region without the pages of `hole`.
fn without(region: &Range<usize>, hole: &Range<usize>) -> Vec<Range<usize>> {
    let (start, end) = (hole.start / PAGE * PAGE, hole.end.next_multiple_of(PAGE));
    let before = region.start..region.end.min(start);
    let after = region.start.max(end)..region.end;
    [before, after].into_iter().filter(|part| !part.is_empty()).collect()
}

fn protect_all(protection: libc::c_int) {
    let state = STATE.0.get();
    // SAFETY: only this thread runs; the regions are mapped, and whoever touches them meanwhile comes to `touched`.
    unsafe {
        for place in 0..(*state).region_count {
            let (start, end) = (*state).regions[place];
            protect(start, end - start, protection);
        }
    }
}

/// Ends the process if the kernel refuses.
fn protect(start: usize, len: usize, protection: libc::c_int) {
    // SAFETY: the memory is mapped and will be open again when it is needed.
    let refused = unsafe { libc::mprotect(start as *mut libc::c_void, len, protection) } != 0;
    if refused {
        // SAFETY: ends the process, which is all that can be done without memory.
        unsafe { libc::_exit(97) };
    }
}

/// SIGSEGV: somebody touched what is watched.
extern "C" fn touched(_: libc::c_int, info: *const libc::siginfo_t, context: *mut libc::ucontext_t) {
    let state = STATE.0.get();
    // SAFETY: the kernel gives both; the state is used by this thread alone.
    unsafe {
        let address = (*info).si_addr() as usize;
        let registers = &mut (*context).uc_mcontext.gregs;
        let watched = (0..(*state).region_count).any(|place| {
            let (start, end) = (*state).regions[place];
            (start..end).contains(&address)
        });
        if !watched || (*state).open_count == OPEN {
            // A fault of the program's own.
            libc::_exit(98);
        }
        let did = if registers[libc::REG_ERR as usize] & FAULT_IS_WRITE != 0 { WROTE } else { READ };
        note(state, address / LINE * LINE, did, registers[libc::REG_RIP as usize] as usize);
        let page = address / PAGE * PAGE;
        protect(page, PAGE, libc::PROT_READ | libc::PROT_WRITE);
        (*state).open[(*state).open_count] = page;
        (*state).open_count += 1;
        registers[libc::REG_EFL as usize] |= TRAP_FLAG;
    }
}

/// SIGTRAP: the instruction is done.
extern "C" fn stepped(_: libc::c_int, _: *const libc::siginfo_t, context: *mut libc::ucontext_t) {
    let state = STATE.0.get();
    // SAFETY: as above.
    unsafe {
        for place in 0..(*state).open_count {
            protect((*state).open[place], PAGE, libc::PROT_NONE);
        }
        (*state).open_count = 0;
        (*context).uc_mcontext.gregs[libc::REG_EFL as usize] &= !TRAP_FLAG;
    }
}

/// Notes an access in the table of lines: open addressing.
///
/// # Safety
/// Nobody else may use the state.
unsafe fn note(state: *mut State, address: usize, did: u8, by: usize) {
    let mut place = (address / LINE).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (usize::BITS - LINES.ilog2());
    // SAFETY: the caller's promise; places are within the table.
    unsafe {
        let lines = &raw mut (*state).lines;
        loop {
            let line = &mut (*lines)[place];
            if line.address == 0 {
                (*state).line_count += 1;
                if (*state).line_count >= LINES / 2 {
                    return;
                }
                *line = Line { address, did: [0; WATCHED], by: [0; WATCHED] };
            }
            if line.address == address {
                let who = (*state).who;
                line.did[who] |= did;
                line.by[who] = by;
                return;
            }
            place = (place + 1) % LINES;
        }
    }
}

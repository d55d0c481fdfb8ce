//! The buffers lent to the kernel for multishot receives (io_uring_register_buf_ring(3)).

use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// Page-aligned zeroed memory that the kernel writes to.
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

impl Memory {
    fn new(len: usize) -> Memory {
        let layout = Layout::from_size_align(len, 4096).expect("sizes are small constants");
        assert!(len > 0, "there are buffers");
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(layout) };
        Memory { start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout)), layout }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// A fixed number of equal buffers and the ring that hands them to the kernel.
pub(super) struct BufferRing {
    entries: Memory,
    bytes: Memory,
    count: u16,
    size: usize,
    /// Next ring slot to fill, not yet published.
    tail: u16,
    /// Buffers the kernel filled that were not given back.
    taken: usize,
}

impl BufferRing {
    /// `count` (a power of two) buffers of `size` bytes, registered with `ring` as `group`.
    pub(super) fn new(ring: &IoUring, group: u16, count: u16, size: usize) -> io::Result<BufferRing> {
        assert!(count.is_power_of_two(), "the kernel masks indices");
        let entries = Memory::new(usize::from(count) * size_of::<BufRingEntry>());
        let bytes = Memory::new(usize::from(count) * size);
        let mut buffers = BufferRing { entries, bytes, count, size, tail: 0, taken: usize::from(count) };
        let address = buffers.entries.start.as_ptr() as u64;
        // SAFETY: the entries are `count` page-aligned slots; this value owns them and lives as long as the ring, whose
        // requests are cancelled before either is dropped.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, count, group, 0) }?;
        (0..count).for_each(|id| buffers.give_back(id));
        buffers.publish();
        Ok(buffers)
    }

    /// The first `len` bytes of a buffer that the kernel filled.
    pub(super) fn get(&mut self, id: u16, len: usize) -> &mut [u8] {
        assert!(id < self.count, "the kernel names buffers it was given");
        let len = len.min(self.size);
        // SAFETY: in bounds; the kernel gave the buffer to us until `give_back`, and `&mut self` keeps others away.
        unsafe {
            let start = self.bytes.start.as_ptr().add(usize::from(id) * self.size);
            std::slice::from_raw_parts_mut(start, len)
        }
    }

    /// Counts a buffer that the kernel filled.
    pub(super) fn count_taken(&mut self) {
        self.taken += 1;
    }

    /// Puts a buffer back; the kernel sees it after [`BufferRing::publish`].
    pub(super) fn give_back(&mut self, id: u16) {
        assert!(id < self.count && self.taken > 0, "a buffer is given back once");
        self.taken -= 1;
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: both in bounds. The kernel does not read slots beyond the published tail, and there are as many slots as
        // buffers, so the slot is not in use.
        unsafe {
            let entry = self.entries.start.as_ptr().cast::<BufRingEntry>().add(slot);
            (*entry).set_addr(self.bytes.start.as_ptr().add(usize::from(id) * self.size) as u64);
            (*entry).set_len(self.size as u32);
            (*entry).set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel all buffers put back.
    pub(super) fn publish(&mut self) {
        // SAFETY: the address of the first entry's tail field, inside `entries`, aligned, shared with the kernel as an
        // atomic.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.start.as_ptr().cast());
            AtomicU16::from_ptr(tail.cast_mut()).store(self.tail, Ordering::Release);
        }
    }

    /// Whether at least a quarter of the buffers is with the kernel: arming a receive with fewer only ends it again.
    pub(super) fn enough_free(&self) -> bool {
        self.taken * 4 <= usize::from(self.count) * 3
    }
}

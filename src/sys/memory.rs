//! Where memory comes from: a small heap of our own, then the C library's, and a reserve when the system gives no more.
//! A failed allocation aborts a Rust program, and with PID 1 its container: the reserve serves it instead, and the init
//! looks whether that has happened.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::UnsafeCell,
    ptr::{NonNull, null_mut},
    sync::atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use linked_list_allocator::Heap;

/// Enough for an init with its hundred remembered jobs, for a keeper and for most clients.
const SMALL: usize = 128 * 1024;
/// What is larger goes back to the system when it is freed.
const LARGEST: usize = 32 * 1024;

/// What is small or short-lived lies close together here: a forked keeper copies and a client touches few pages, and no
/// system call gets or returns memory.
static HEAP: Small = Small {
    memory: Memory(UnsafeCell::new([0; SMALL])),
    heap: UnsafeCell::new(Heap::empty()),
    busy: AtomicBool::new(false),
};

#[repr(align(16))]
struct Memory(UnsafeCell<[u8; SMALL]>);

struct Small {
    memory: Memory,
    heap: UnsafeCell<Heap>,
    busy: AtomicBool,
}
// SAFETY: `with` lets one thread at a time in.
unsafe impl Sync for Small {}

impl Small {
    /// Almost always there is one thread, so it never waits.
    fn with<T>(&self, body: impl FnOnce(&mut Heap) -> T) -> T {
        self.lock();
        // SAFETY: nobody else is in, and nobody takes it out.
        let heap = unsafe { &mut *self.heap.get() };
        if heap.size() == 0 {
            // SAFETY: the memory is nobody else's, for ever.
            unsafe { heap.init(self.memory.0.get().cast(), SMALL) };
        }
        let answer = body(heap);
        self.unlock();
        answer
    }

    fn lock(&self) {
        while self.busy.swap(true, Acquire) {
            std::hint::spin_loop();
        }
    }

    fn unlock(&self) {
        self.busy.store(false, Release);
    }

    fn has(&self, pointer: *mut u8) -> bool {
        pointer.addr().wrapping_sub(self.memory.0.get().addr()) < SMALL
    }

    /// Memory, or null if it has none that would do.
    fn take(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST {
            return null_mut();
        }
        self.with(|heap| heap.allocate_first_fit(as_malloc(layout)).map_or(null_mut(), NonNull::as_ptr))
    }
}

/// On every 64-bit machine.
const ALIGN: usize = 16;

/// Before a fork: its child is not to find the heap as another thread is changing it. No memory may be had until
/// [`after_fork`].
pub(super) fn before_fork() {
    HEAP.lock();
}

/// After it, in parent and child.
pub(super) fn after_fork() {
    HEAP.unlock();
}

/// What `malloc(3)` would give: memory that is aligned for everything. The unwinder relies on that, whatever it says
/// of its exceptions: with less, a panic is a SIGSEGV.
fn as_malloc(layout: Layout) -> Layout {
    layout.align_to(ALIGN).map_or(layout, |layout| layout.pad_to_align())
}

/// Enough for one turn of the loop; a quarter of it was not always enough for a keeper with musl, whose allocator has little
/// that is free at hand. Pages that nobody has touched cost nothing.
const SIZE: usize = 1024 * 1024;

struct Reserve(UnsafeCell<[u8; SIZE]>);
// SAFETY: `take` hands out every byte once, until it is given back.
unsafe impl Sync for Reserve {}

static RESERVE: Reserve = Reserve(UnsafeCell::new([0; SIZE]));
static USED: AtomicUsize = AtomicUsize::new(0);
static SHORT: AtomicBool = AtomicBool::new(false);

/// Whether the system has refused memory to this process, ever.
pub fn is_short() -> bool {
    SHORT.load(Relaxed)
}

/// For an init, at its start. The standard library keeps the list of what a thread drops at its end in the C library's
/// memory, not in ours: has it made while there is some, with room for what is yet to come (a logger's buffer).
pub fn make_ready() {
    struct Dropped;
    impl Drop for Dropped {
        fn drop(&mut self) {}
    }
    thread_local!(static FIRST: Dropped = const { Dropped });
    FIRST.with(|_| ());
}

fn base() -> *mut u8 {
    RESERVE.0.get().cast()
}

/// Where in the reserve this is, if it is from there.
fn offset(pointer: *mut u8) -> Option<usize> {
    pointer.addr().checked_sub(base().addr()).filter(|offset| *offset < SIZE)
}

fn take(layout: Layout) -> *mut u8 {
    SHORT.store(true, Relaxed);
    let start = |used: usize| (base().addr() + used).next_multiple_of(layout.align().max(ALIGN)) - base().addr();
    let end = |used| start(used).checked_add(layout.size()).filter(|end| *end <= SIZE);
    USED.fetch_update(Relaxed, Relaxed, end).map_or(std::ptr::null_mut(), |used| base().wrapping_add(start(used)))
}

/// Our heap, the system's allocator, and the reserve behind it.
struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

// SAFETY: memory comes from `HEAP` or `System`, which keep the contract, or from `take`, whose ranges are aligned, do not
// overlap, and live as long as the program. Nothing here unwinds.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let new = HEAP.take(layout);
        if !new.is_null() {
            return new;
        }
        // SAFETY: the caller's promise about `layout` is the one that `System` asks for.
        let new = unsafe { System.alloc(layout) };
        if new.is_null() { take(layout) } else { new }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let new = HEAP.take(layout);
        if !new.is_null() {
            // SAFETY: it has that size.
            unsafe { new.write_bytes(0, layout.size()) };
            return new;
        }
        // SAFETY: as in `alloc`.
        let mut new = unsafe { System.alloc_zeroed(layout) };
        if new.is_null() {
            new = take(layout);
            if !new.is_null() {
                // SAFETY: `take` gave that many bytes. They may have been used before.
                unsafe { new.write_bytes(0, layout.size()) };
            }
        }
        new
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        if HEAP.has(old)
            && let Some(old) = NonNull::new(old)
        {
            // SAFETY: the caller gives up what was taken with this layout.
            return HEAP.with(|heap| unsafe { heap.deallocate(old, as_malloc(layout)) });
        }
        match offset(old) {
            // Only the last one can be used again: enough for what a turn needs for a moment.
            Some(start) => drop(USED.compare_exchange(start + layout.size(), start, Relaxed, Relaxed)),
            // SAFETY: it is not from the reserve, so it is from `System`, with this layout.
            None => unsafe { System.dealloc(old, layout) },
        }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if let Some(start) = offset(old) {
            // What grows is mostly the last one.
            let end = Some(start + size).filter(|end| *end <= SIZE);
            let resize = |end| USED.compare_exchange(start + layout.size(), end, Relaxed, Relaxed).is_ok();
            if end.is_some_and(resize) {
                return old;
            }
        } else if !HEAP.has(old) {
            // SAFETY: it is from `System`, with this layout; the caller promises that `size` is not too large.
            let new = unsafe { System.realloc(old, layout, size) };
            if !new.is_null() {
                return new;
            }
        }
        // SAFETY: the caller promises that `size` fits the alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: the caller promises that `size` is not 0.
        let new = unsafe { self.alloc(wanted) };
        if !new.is_null() {
            // SAFETY: both are valid for as much, and a new range overlaps no live one.
            unsafe { new.copy_from_nonoverlapping(old, layout.size().min(size)) };
            // SAFETY: the caller promises that `old` was allocated with this layout, and gives it up.
            unsafe { self.dealloc(old, layout) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_asked_for_is_aligned_for_everything() {
        for (size, align) in [(1, 1), (8, 8), (24, 8), (33, 1), (4096, 16), (LARGEST + 1, 1)] {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: the size is not 0.
            let memory = unsafe { ALLOCATOR.alloc(layout) };
            assert_eq!(memory.addr() % ALIGN, 0, "{size} {align}");
            // SAFETY: it was taken with this layout.
            unsafe { ALLOCATOR.dealloc(memory, layout) };
        }
    }
}

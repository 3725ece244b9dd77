//! A small heap in one piece. What is short-lived or small lies close together in it: a forked keeper copies and a client
//! touches few pages, and no system call gets or returns memory.
//!
//! Holes are kept in the free memory itself, in the order of their addresses; the first that is large enough serves.
//! Rust tells the size of what it gives back, so what is taken needs no header.

use std::{alloc::Layout, cell::UnsafeCell, ptr::null_mut};

/// Sizes and addresses are multiples of this: a hole's own size.
const GRAIN: usize = 16;

/// Free memory. It begins with this.
struct Hole {
    size: usize,
    next: *mut Hole,
}

#[repr(align(16))]
struct Memory<const SIZE: usize>(UnsafeCell<[u8; SIZE]>);

/// Who uses it sees to it that only one thread does at a time.
pub(super) struct Heap<const SIZE: usize> {
    memory: Memory<SIZE>,
    /// The first hole; none before the first use.
    first: UnsafeCell<*mut Hole>,
    used: UnsafeCell<bool>,
}

fn rounded(size: usize) -> usize {
    size.next_multiple_of(GRAIN)
}

#[expect(clippy::multiple_unsafe_ops_per_block, reason = "one list: every hole lies in `memory` and is nobody else's")]
impl<const SIZE: usize> Heap<SIZE> {
    /// Without anything taken.
    pub(super) const fn new() -> Heap<SIZE> {
        let memory = Memory(UnsafeCell::new([0; SIZE]));
        Heap { memory, first: UnsafeCell::new(null_mut()), used: UnsafeCell::new(false) }
    }

    /// Whether this is from here.
    pub(super) fn has(&self, pointer: *mut u8) -> bool {
        pointer.addr().wrapping_sub(self.memory.0.get().addr()) < SIZE
    }

    /// Memory, or null if it has none that would do.
    ///
    /// # Safety
    ///
    /// One thread at a time; `layout` is of at least one and at most `isize::MAX - 16` bytes.
    pub(super) unsafe fn take(&self, layout: Layout) -> *mut u8 {
        if layout.align() > GRAIN {
            return null_mut();
        }
        let size = rounded(layout.size());
        // SAFETY: the caller's promise; holes are valid, and a part of one that is large enough lies in it.
        unsafe {
            if !self.used.get().replace(true) {
                let all: *mut Hole = self.memory.0.get().cast();
                all.write(Hole { size: SIZE / GRAIN * GRAIN, next: null_mut() });
                *self.first.get() = all;
            }
            let mut link = self.first.get();
            while let Some(hole) = (*link).as_mut() {
                if hole.size >= size {
                    let taken = *link;
                    *link = behind(hole, size);
                    return taken.cast();
                }
                link = &mut hole.next;
            }
        }
        null_mut()
    }

    /// Takes back what was taken.
    ///
    /// # Safety
    ///
    /// One thread at a time; `start` was taken with `size` bytes, and nobody uses it any more.
    pub(super) unsafe fn give_back(&self, start: *mut u8, size: usize) {
        let new: *mut Hole = start.cast();
        // SAFETY: the caller's promise.
        unsafe {
            let mut link = self.first.get();
            let mut before: *mut Hole = null_mut();
            while !(*link).is_null() && *link < new {
                before = *link;
                link = &mut (*before).next;
            }
            let after = *link;
            new.write(Hole { size: rounded(size), next: after });
            *link = new;
            join(new, after);
            join(before, new);
        }
    }

    /// Makes it larger or smaller where it is; answers whether that could be done.
    ///
    /// # Safety
    ///
    /// One thread at a time; `start` was taken with `old` bytes; `new` is at least 1.
    pub(super) unsafe fn resize(&self, start: *mut u8, old: usize, new: usize) -> bool {
        let (old, new) = (rounded(old), rounded(new));
        if new == old {
            return true;
        }
        // SAFETY: the caller's promise: what is cut off, and the hole behind it, are in the heap and not in use.
        unsafe {
            if new < old {
                self.give_back(start.add(new), old - new);
                return true;
            }
            let end: *mut Hole = start.add(old).cast();
            let mut link = self.first.get();
            while !(*link).is_null() && *link < end {
                link = &mut (**link).next;
            }
            if (*link).is_null() || *link != end || (*end).size < new - old {
                return false;
            }
            *link = behind(&mut *end, new - old);
        }
        true
    }
}

/// What follows in the list when the first `size` bytes of a hole, which has them, are taken.
///
/// # Safety
///
/// Nobody else uses the hole.
unsafe fn behind(hole: &mut Hole, size: usize) -> *mut Hole {
    let (left, next) = (hole.size - size, hole.next);
    if left == 0 {
        return next;
    }
    let rest: *mut Hole = std::ptr::from_mut(hole).wrapping_byte_add(size);
    // SAFETY: it is within the hole, whose size is a multiple of a hole's own.
    unsafe { rest.write(Hole { size: left, next }) };
    rest
}

/// Makes one hole of two if they adjoin. Either may be null.
///
/// # Safety
///
/// They follow each other in the list.
#[expect(clippy::multiple_unsafe_ops_per_block, reason = "as above")]
unsafe fn join(one: *mut Hole, other: *mut Hole) {
    // SAFETY: the caller's promise.
    unsafe {
        if !one.is_null() && !other.is_null() && one.wrapping_byte_add((*one).size) == other {
            (*one).size += (*other).size;
            (*one).next = (*other).next;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_taken_is_nobody_elses_and_all_comes_back(steps in prop::collection::vec((0..3u8, 1..900usize, any::<usize>()), 1..300)) {
            let heap = Box::new(Heap::<8192>::new());
            let mut live: Vec<(*mut u8, usize, u8)> = Vec::new();
            for (number, (what, size, which)) in steps.into_iter().enumerate() {
                let mark = number as u8;
                let at = which % live.len().max(1);
                if what == 0 || live.is_empty() {
                    // SAFETY: one thread.
                    let new = unsafe { heap.take(Layout::from_size_align(size, 8).unwrap()) };
                    if !new.is_null() {
                        prop_assert!(heap.has(new) && heap.has(new.wrapping_add(size - 1)));
                        // SAFETY: it has that size.
                        unsafe { new.write_bytes(mark, size) };
                        live.push((new, size, mark));
                    }
                } else if what == 1 {
                    let (old, size, _) = live.swap_remove(at);
                    // SAFETY: it was taken so.
                    unsafe { heap.give_back(old, size) };
                } else {
                    let (old, before, mark) = live[at];
                    // SAFETY: it was taken so.
                    if unsafe { heap.resize(old, before, size) } {
                        // SAFETY: it has that size now.
                        unsafe { old.write_bytes(mark, size) };
                        live[at].1 = size;
                    }
                }
                for (start, size, mark) in &live {
                    // SAFETY: it has that size.
                    let bytes = unsafe { std::slice::from_raw_parts(*start, *size) };
                    prop_assert!(bytes.iter().all(|byte| byte == mark));
                }
            }
            for (start, size, _) in live {
                // SAFETY: it was taken so.
                unsafe { heap.give_back(start, size) };
            }
            // SAFETY: one thread.
            let all = unsafe { heap.take(Layout::from_size_align(8192, 16).unwrap()) };
            prop_assert!(!all.is_null());
        }
    }
}

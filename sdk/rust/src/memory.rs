//! The guest's allocator: lists of small blocks that were freed, in front of the C library's.
//!
//! A turn allocates a dozen small blocks, for what the host hands over above all, and frees them
//! at its end. In the C library each of those costs some 200 instructions and a few to free;
//! from a list it is a few either way. What is larger, aligned more strictly, or more than is worth
//! keeping goes straight through.
//!
//! Invariant: a block in list `n` is one that [`System`] gave for `(n + 1) * STEP` bytes, and
//! nobody else knows it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::{self, NonNull};

/// The sizes of blocks on lists are multiples of it.
const STEP: usize = 16;
const LISTS: usize = 32;
/// The strictest alignment of a block on a list, which is what any block of the C library has.
const ALIGN: usize = 8;
/// How much the lists keep at most, in bytes.
const MOST_KEPT: usize = 64 << 10;

/// Lists of freed blocks, by size.
pub(crate) struct Lists {
    first: [Cell<Link>; LISTS],
    kept: Cell<usize>,
}

/// A freed block begins with the link to the next one of its list.
type Link = Option<NonNull<Freed>>;

struct Freed {
    next: Link,
}

// SAFETY: a guest has one thread: the targets it is compiled for have no other.
#[cfg(target_family = "wasm")]
unsafe impl Sync for Lists {}

#[cfg(all(target_family = "wasm", target_feature = "atomics"))]
compile_error!("the allocator of guests is made for one thread");

impl Lists {
    pub(crate) const fn new() -> Lists {
        Lists {
            first: [const { Cell::new(None) }; LISTS],
            kept: Cell::new(0),
        }
    }

    /// Which list blocks of this layout are on, if on any.
    fn list(layout: Layout) -> Option<usize> {
        // An empty layout wraps around, and is on none.
        let list = layout.size().wrapping_sub(1) / STEP;
        (list < LISTS && layout.align() <= ALIGN).then_some(list)
    }

    /// What the C library is asked for in the name of all layouts of a list.
    fn block(list: usize) -> Layout {
        // SAFETY: the alignment is a power of two, and a small multiple of STEP does not overflow.
        unsafe { Layout::from_size_align_unchecked((list + 1) * STEP, ALIGN) }
    }
}

// SAFETY: a block is on a list or with one owner, and is as large and as aligned as every layout
// of its list; all else is the C library's.
unsafe impl GlobalAlloc for Lists {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(list) = Lists::list(layout) else {
            // SAFETY: passed on as it came.
            return unsafe { System.alloc(layout) };
        };
        let first = &self.first[list];
        match first.get() {
            Some(freed) => {
                // SAFETY: blocks on lists are nobody else's, and hold a link.
                first.set(unsafe { freed.as_ref() }.next);
                self.kept.set(self.kept.get() - (list + 1) * STEP);
                freed.as_ptr().cast()
            }
            // SAFETY: the block's layout has a size.
            None => unsafe { System.alloc(Lists::block(list)) },
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let Some(list) = Lists::list(layout) else {
            // SAFETY: what has no list came from the C library in this layout.
            return unsafe { System.dealloc(at, layout) };
        };
        let block = Lists::block(list);
        let kept = self.kept.get() + block.size();
        if kept > MOST_KEPT {
            // SAFETY: it came from the C library in this layout.
            return unsafe { System.dealloc(at, block) };
        }
        let freed = at.cast::<Freed>();
        let first = &self.first[list];
        // SAFETY: its owner has given it up, and it has room and alignment for a link.
        unsafe {
            freed.write(Freed { next: first.get() });
            first.set(Some(NonNull::new_unchecked(freed)));
        }
        self.kept.set(kept);
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Lists::list(layout).is_none() {
            // SAFETY: passed on as it came.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: passed on as it came; what comes back is as large as the layout says.
        unsafe {
            let at = self.alloc(layout);
            if !at.is_null() {
                ptr::write_bytes(at, 0, layout.size());
            }
            at
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller vouches that the size does not overflow.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (Lists::list(layout), Lists::list(new)) {
            // SAFETY: what has no list came from the C library in this layout.
            (None, None) => unsafe { System.realloc(at, layout, size) },
            (old, new) if old == new => at,
            // SAFETY: both are as large as their layouts say, and apart.
            _ => unsafe {
                let to = self.alloc(new);
                if !to.is_null() {
                    ptr::copy_nonoverlapping(at, to, layout.size().min(size));
                    self.dealloc(at, layout);
                }
                to
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block that shows its own number in every byte.
    struct Block {
        at: *mut u8,
        layout: Layout,
        mark: u8,
    }

    impl Block {
        fn fill(&self) {
            unsafe { ptr::write_bytes(self.at, self.mark, self.layout.size()) };
        }

        fn check(&self, size: usize) {
            let bytes = unsafe { std::slice::from_raw_parts(self.at, size) };
            assert!(bytes.iter().all(|byte| *byte == self.mark));
            assert!(self.at.addr().is_multiple_of(self.layout.align()));
        }
    }

    #[test]
    fn blocks_keep_what_is_in_them() {
        let lists = Lists::new();
        let mut blocks = Vec::<Block>::new();
        let mut seed = 7_u64;
        let mut next = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % below
        };
        for round in 0..50_000 {
            let grown = blocks.len() > 300;
            if blocks.is_empty() || (!grown && next(2) == 0) {
                let (size, align) = (1 + next(700), 1 << next(6));
                let layout = Layout::from_size_align(size, align).unwrap();
                let zeroed = next(4) == 0;
                let at = match zeroed {
                    true => unsafe { lists.alloc_zeroed(layout) },
                    false => unsafe { lists.alloc(layout) },
                };
                let mut block = Block {
                    at,
                    layout,
                    mark: 0,
                };
                if zeroed {
                    block.check(size);
                }
                block.mark = round as u8;
                block.fill();
                blocks.push(block);
                continue;
            }
            let at = next(blocks.len());
            if next(2) == 0 {
                let block = &mut blocks[at];
                let (old, size) = (block.layout, 1 + next(700));
                block.at = unsafe { lists.realloc(block.at, old, size) };
                block.layout = Layout::from_size_align(size, old.align()).unwrap();
                block.check(size.min(old.size()));
                block.fill();
            } else {
                let block = blocks.swap_remove(at);
                block.check(block.layout.size());
                unsafe { lists.dealloc(block.at, block.layout) };
            }
            assert!(lists.kept.get() <= MOST_KEPT);
        }
        for block in blocks {
            block.check(block.layout.size());
            unsafe { lists.dealloc(block.at, block.layout) };
        }
        assert!(lists.kept.get() > 0);
    }

    #[test]
    fn a_freed_block_is_the_next_one_of_its_size() {
        let lists = Lists::new();
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        let first = unsafe { lists.alloc(layout(17)) };
        unsafe { lists.dealloc(first, layout(17)) };
        assert_eq!(lists.kept.get(), 32);
        let second = unsafe { lists.alloc(layout(32)) };
        assert_eq!(first, second);
        assert_eq!(unsafe { lists.realloc(second, layout(32), 20) }, second);
        assert_eq!(lists.kept.get(), 0);
        unsafe { lists.dealloc(second, layout(20)) };
    }

    #[test]
    fn no_more_is_kept_than_is_worth_it() {
        let lists = Lists::new();
        let layout = Layout::from_size_align(512, 8).unwrap();
        let blocks: Vec<_> = (0..1_000).map(|_| unsafe { lists.alloc(layout) }).collect();
        for block in blocks {
            unsafe { lists.dealloc(block, layout) };
        }
        assert_eq!(lists.kept.get(), MOST_KEPT);
    }
}

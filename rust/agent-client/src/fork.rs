//! What a forked child does first.
//!
//! The child inherits the mapping, which is right, and the writer, which is its parent's. One `pthread_atfork` handler
//! tells everybody on a list, for `os.fork` and for forks by C code alike. The list is made of nodes that are never freed
//! and changed only through atomics, so it can be walked whatever the parent's other threads were doing. A bare `clone`
//! system call runs no handlers; such a child must not use metrics.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::Once;

/// What the child does with a thing that is watched.
pub trait Forked {
    fn after_fork(&self);
}

struct Node<T> {
    watched: AtomicPtr<T>,
    next: *const Node<T>,
}

/// The things of one type that are watched.
pub struct Watch<T> {
    nodes: AtomicPtr<Node<T>>,
    handler: Once,
}

// SAFETY: the nodes are reached through atomics and never freed.
unsafe impl<T> Sync for Watch<T> {}

impl<T: Forked> Watch<T> {
    pub const fn new() -> Watch<T> {
        Watch { nodes: AtomicPtr::new(ptr::null_mut()), handler: Once::new() }
    }

    /// Puts a thing on the list until [`Watch::forget`]; `child` is a function that calls [`Watch::tell`] of this list.
    pub fn watch(&self, watched: *const T, child: extern "C" fn()) {
        self.handler.call_once(|| {
            // SAFETY: the handler is a function of this library, which nobody unloads. It fails only without memory;
            // then a child would share its parent's slot until it execs.
            let _ = unsafe { libc::pthread_atfork(None, None, Some(child)) };
        });
        let pointer = watched.cast_mut();
        let mut node = self.nodes.load(Ordering::Acquire).cast_const();
        // SAFETY: nodes are never freed.
        while let Some(free) = unsafe { node.as_ref() } {
            let taken = free.watched.compare_exchange(
                ptr::null_mut(),
                pointer,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            if taken.is_ok() {
                return;
            }
            node = free.next;
        }
        let watched = AtomicPtr::new(pointer);
        let node = Box::leak(Box::new(Node { watched, next: ptr::null() }));
        let mut next = self.nodes.load(Ordering::Acquire);
        loop {
            node.next = next;
            match self.nodes.compare_exchange(next, node, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => next = now,
            }
        }
    }

    /// Takes a thing off the list.
    pub fn forget(&self, watched: *const T) {
        self.each(|slot| {
            let _ = slot.compare_exchange(
                watched.cast_mut(),
                ptr::null_mut(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
        });
    }

    /// In the child: tells everything on the list.
    pub fn tell(&self) {
        self.each(|slot| {
            let watched = slot.load(Ordering::Acquire);
            // SAFETY: a thing takes itself off the list before it is gone.
            if let Some(watched) = unsafe { watched.as_ref() } {
                watched.after_fork();
            }
        });
    }

    fn each(&self, mut action: impl FnMut(&AtomicPtr<T>)) {
        let mut node = self.nodes.load(Ordering::Acquire).cast_const();
        // SAFETY: nodes are never freed.
        while let Some(here) = unsafe { node.as_ref() } {
            action(&here.watched);
            node = here.next;
        }
    }
}

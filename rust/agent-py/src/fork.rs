//! What a forked child does first.
//!
//! The child inherits the mapping, which is right, and the writer, which is its parent's. One
//! `pthread_atfork` handler takes the writer away from every store, for `os.fork` and for forks by
//! C code alike. The list of stores is made of nodes that are never freed and changed only through
//! atomics, so it can be walked whatever the parent's other threads were doing. A bare `clone`
//! system call runs no handlers; such a child must not use metrics.

use crate::store::Store;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Once};

struct Node {
    store: AtomicPtr<Store>,
    next: *const Node,
}

static NODES: AtomicPtr<Node> = AtomicPtr::new(ptr::null_mut());
static HANDLER: Once = Once::new();

/// Puts a store on the list until it is dropped.
pub fn watch(store: &Arc<Store>) {
    HANDLER.call_once(|| {
        // SAFETY: the handler is a function of this library, which Python never unloads.
        // It fails only without memory; then a child would share its parent's slot until it execs.
        let _ = unsafe { libc::pthread_atfork(None, None, Some(child)) };
    });
    let pointer = Arc::as_ptr(store).cast_mut();
    let mut node = NODES.load(Ordering::Acquire).cast_const();
    // SAFETY: nodes are never freed.
    while let Some(free) = unsafe { node.as_ref() } {
        let taken = free.store.compare_exchange(
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
    // Stores are made by attached threads only, so nobody else pushes meanwhile.
    let next = NODES.load(Ordering::Acquire);
    let node = Box::leak(Box::new(Node { store: AtomicPtr::new(pointer), next }));
    NODES.store(node, Ordering::Release);
}

/// Takes a store off the list.
pub fn forget(store: *const Store) {
    each(|slot| {
        let _ = slot.compare_exchange(
            store.cast_mut(),
            ptr::null_mut(),
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
    });
}

fn each(mut action: impl FnMut(&AtomicPtr<Store>)) {
    let mut node = NODES.load(Ordering::Acquire).cast_const();
    // SAFETY: nodes are never freed.
    while let Some(here) = unsafe { node.as_ref() } {
        action(&here.store);
        node = here.next;
    }
}

extern "C" fn child() {
    each(|slot| {
        let store = slot.load(Ordering::Acquire);
        // SAFETY: a store takes itself off the list before it is gone.
        if let Some(store) = unsafe { store.as_ref() } {
            store.after_fork();
        }
    });
}

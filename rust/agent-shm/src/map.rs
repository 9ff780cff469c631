//! The metric map: from `(metric, label text)` and from metric names to entries.
//!
//! A fixed array of chain heads, sized for chains of about two at the series limit. An entry goes in at the head of its
//! chain by one compare-and-swap, which succeeds only when nothing was inserted since the chain was searched: no key
//! gets in twice, nobody waits. Removal follows Harris, *A pragmatic implementation of non-blocking linked-lists*
//! (2001): the state word says dead, then the entry's own link is marked so that nothing can be hung behind it, then the
//! link before it is swung past; everybody who passes helps.
//!
//! All functions are called inside an epoch (`epoch.rs`): that is what keeps an entry from being reused while somebody
//! stands on it. The hash is SipHash-1-3 under a random key of the segment: label values come from outside.
//!
//! A link word is `tag (32) | unit of the next entry (31) | mark (1)`; the tag is the upper half of the owner's hash, so
//! most strangers in a chain are passed without looking at their keys.

use crate::block::{self, CLAIMED, DEAD, EXPIRING, LIMBO, LIVE};
use crate::entry::{self, Kind};
use crate::layout::*;
use crate::region::Region;
use crate::sync::Ordering;
use core::hash::Hasher;
use siphasher::sip::SipHasher13;

const LINK: u64 = 0xffff_ffff;
/// Longer chains do not occur; a corrupt one must end.
const CHAIN_MAX: usize = 1 << 16;

pub struct Map<'a> {
    pub region: &'a Region,
    pub places: &'a Places,
    /// Of the hash.
    pub hash_key: [u64; 2],
}

pub enum Lookup {
    Found(u64),
    /// Not there; the value of the head word when the search began.
    Missing(u64),
    Corrupt,
}

/// One key of the map with its hash.
#[derive(Clone, Copy)]
pub struct Key<'k> {
    pub kind: Kind,
    pub metric: u32,
    pub bytes: &'k [u8],
    hash: u64,
}

enum Step {
    Next,
    Again,
    Corrupt,
}

impl Map<'_> {
    pub fn key<'k>(&self, kind: Kind, metric: u32, bytes: &'k [u8]) -> Key<'k> {
        let mut hasher = SipHasher13::new_with_keys(self.hash_key[0], self.hash_key[1]);
        hasher.write_u64(u64::from(metric) << 16 | kind as u64);
        hasher.write(bytes);
        Key { kind, metric, bytes, hash: hasher.finish() }
    }

    /// Whether an entry still has the key under which it was hung into its chain: the link keeps half of the hash of it.
    pub fn has_key(&self, entry: u64, key: &Key<'_>) -> bool {
        let tag = || self.region.word(entry + ENTRY_NEXT).load(Ordering::Relaxed) & !LINK;
        // A model checker has enough to do with the links themselves.
        cfg!(model) || tag() == key.hash & !LINK
    }

    fn head(&self, key: &Key<'_>) -> u64 {
        self.places.heads + (key.hash & (self.places.heads_len - 1)) * 8
    }

    #[inline]
    fn is_of(&self, entry: u64, key: &Key<'_>) -> bool {
        let meta = entry::meta(self.region, entry);
        meta == entry::Meta::new(key.kind, key.metric, key.bytes)
            && entry::key_is(self.region, entry, key.bytes)
    }

    pub fn find(&self, key: &Key<'_>) -> Lookup {
        if key.bytes.len() > entry::KEY_BYTES_MAX {
            return Lookup::Missing(0);
        }
        self.walk(key, |entry| self.is_of(entry, key))
    }

    /// Visits every entry of this key: metrics of one name and several definitions. Gives the value of the head word when
    /// the search began, or nothing when the chain is corrupt. An entry may be visited twice.
    pub fn each(&self, key: &Key<'_>, mut each: impl FnMut(u64)) -> Option<u64> {
        if key.bytes.len() > entry::KEY_BYTES_MAX {
            return Some(0);
        }
        let found = self.walk(key, |entry| {
            if self.is_of(entry, key) {
                each(entry);
            }
            false
        });
        match found {
            Lookup::Missing(head) => Some(head),
            _ => None,
        }
    }

    /// Walks the whole chain of `key` looking for one block, unlinking the dead on the way.
    pub fn holds(&self, key: &Key<'_>, block: u64) -> bool {
        !matches!(self.walk(key, |entry| entry == block), Lookup::Missing(_))
    }

    /// Hangs `entry` into its chain unless something was inserted since the search that saw `head`.
    pub fn insert(&self, key: &Key<'_>, entry: u64, head: u64) -> bool {
        let link = (key.hash & !LINK) | (head & LINK);
        self.region.word(entry + ENTRY_NEXT).store(link, Ordering::Relaxed);
        let new = u64::from(entry::unit(entry)) << 1;
        // Release: whoever finds the entry finds its key and its zero cells.
        let word = self.region.word(self.head(key));
        word.compare_exchange(head, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn walk(&self, key: &Key<'_>, mut is_it: impl FnMut(u64) -> bool) -> Lookup {
        let head = self.head(key);
        let mut steps = 0;
        'again: loop {
            let first = self.region.word(head).load(Ordering::Acquire);
            let (mut before, mut link) = (head, first);
            loop {
                steps += 1;
                if steps > CHAIN_MAX {
                    return Lookup::Corrupt;
                }
                let current = link_target(link);
                if current == 0 {
                    return Lookup::Missing(first);
                }
                if current < self.places.blocks {
                    return Lookup::Corrupt;
                }
                let next = self.region.word(current + ENTRY_NEXT).load(Ordering::Acquire);
                match self.pass(before, link, current, next) {
                    Step::Again => continue 'again,
                    Step::Corrupt => return Lookup::Corrupt,
                    Step::Next => {}
                }
                let after = self.region.word(current + ENTRY_NEXT).load(Ordering::Acquire);
                if after & LINK_MARK != 0 {
                    continue 'again;
                }
                let same_tag = after & !LINK == key.hash & !LINK;
                if same_tag && is_it(current) {
                    return Lookup::Found(current);
                }
                (before, link) = (current + ENTRY_NEXT, after);
            }
        }
    }

    /// Looks at one entry of a chain and helps with what is half done there.
    fn pass(&self, before: u64, link: u64, current: u64, next: u64) -> Step {
        let next = if next & LINK_MARK != 0 {
            next
        } else {
            match block::state(self.region, current).state {
                LIVE | EXPIRING => return Step::Next,
                // In the chain, hence complete: its owner was interrupted right after hanging it in.
                CLAIMED => {
                    block::publish(self.region, current);
                    return Step::Next;
                }
                DEAD => {
                    let word = self.region.word(current + ENTRY_NEXT);
                    word.fetch_or(LINK_MARK, Ordering::AcqRel) | LINK_MARK
                }
                // Killed, taken out of the chain and retired since we read the link that led here.
                LIMBO => return Step::Again,
                _ => return Step::Corrupt,
            }
        };
        let past = (link & !LINK) | (next & LINK & !LINK_MARK);
        let word = self.region.word(before);
        // Whether we swing the link past it or somebody else did: look again from the head.
        let _ = word.compare_exchange(link, past, Ordering::AcqRel, Ordering::Acquire);
        Step::Again
    }
}

fn link_target(link: u64) -> u64 {
    entry::offset(((link & LINK) >> 1) as u32)
}

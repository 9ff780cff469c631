//! What a worker remembers: raw bytes of a sample's name, type and tags -> where its values go.
//!
//! A hit costs one keyed hash and one comparison; sanitising, mapping rules, label text and the
//! segment's map are gone through only on a miss. Refused names are remembered as well, and so are
//! label sets that ended in an overflow series, both only for a while ([`RETRY_S`]), because room or
//! another type may come.
//!
//! Limits: [`ENTRIES_MAX`] entries, about 200 bytes each; then a random entry makes room, so a flood
//! of new names costs the old ones no more than a look-up now and then.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};

use agent_shm::Series;
use agent_wire::sample::CARRY_START;
use hashbrown::hash_table::Entry as Slot;
use hashbrown::HashTable;

use crate::telemetry::Reason;

/// Entries of one worker.
pub const ENTRIES_MAX: usize = 65_536;
/// Seconds after which a refusal or an overflow is tried again.
pub const RETRY_S: u32 = 10;

/// Where the values of a key go.
#[derive(Clone)]
pub enum Target {
    Counter(Series),
    Gauge(Series),
    /// A histogram; values go into the ring too when windows are on.
    Observed(Series),
    /// A gauge that the aggregator sets; members go into the ring.
    Unique(Series),
    Refused(Reason),
}

/// What is remembered for a key.
#[derive(Clone)]
pub struct Known {
    pub target: Target,
    /// Factor for every value.
    pub scale: f64,
    /// Second after which it is looked up again; `u32::MAX` for never.
    pub until_s: u32,
    /// What sampled values have left over: see [`agent_wire::sample::weight`].
    pub carry: Cell<f64>,
}

impl Known {
    pub fn new(target: Target, scale: f64, until_s: u32) -> Known {
        Known { target, scale, until_s, carry: Cell::new(CARRY_START) }
    }

    pub fn refused(reason: Reason, until_s: u32) -> Known {
        Known::new(Target::Refused(reason), 1.0, until_s)
    }
}

/// The bytes that say which series a sample belongs to.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    /// Kind and form of the labels.
    pub form: u8,
    pub name: &'a [u8],
    pub unit: &'a [u8],
    pub labels: &'a [u8],
}

struct Entry {
    hash: u64,
    /// name, unit, labels.
    bytes: Box<[u8]>,
    name_len: u32,
    unit_len: u16,
    form: u8,
    known: Known,
}

impl Entry {
    #[inline]
    fn is(&self, key: &Key<'_>) -> bool {
        let (name, rest) = self.bytes.split_at(self.name_len as usize);
        let (unit, labels) = rest.split_at(usize::from(self.unit_len));
        self.form == key.form
            && same(name, key.name)
            && same(labels, key.labels)
            && same(unit, key.unit)
    }
}

/// Equality that does not look at empty slices: they point nowhere, and a masked load from nowhere,
/// as vector comparisons do it, costs 100 ns.
#[inline(always)]
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && (a.is_empty() || a == b)
}

pub struct Cache {
    index: HashTable<u32>,
    entries: Vec<Entry>,
    entries_max: usize,
    hash: RandomState,
    random: u64,
    misses: u64,
}

impl Cache {
    pub fn new(entries_max: usize) -> Cache {
        let hash = RandomState::new();
        let random = hash.hash_one(entries_max) | 1;
        Cache {
            index: HashTable::new(),
            entries: Vec::new(),
            entries_max: entries_max.max(1),
            hash,
            random,
            misses: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys that were not found since the last call.
    pub fn take_misses(&mut self) -> u64 {
        std::mem::take(&mut self.misses)
    }

    /// Forgets everything: the mapping rules have changed.
    pub fn clear(&mut self) {
        self.index.clear();
        self.entries.clear();
    }

    fn hash_of(&self, key: &Key<'_>) -> u64 {
        let mut hasher = self.hash.build_hasher();
        hasher.write(key.name);
        hasher.write_u32(key.name.len() as u32 ^ u32::from(key.form) << 24);
        hasher.write(key.labels);
        if !key.unit.is_empty() {
            hasher.write(key.unit);
        }
        hasher.finish()
    }

    /// What is known of the key at second `now_s`.
    #[inline]
    pub fn find(&mut self, key: &Key<'_>, now_s: u32) -> Option<&Known> {
        let hash = self.hash_of(key);
        let entries = &self.entries;
        let found = self.index.find(hash, |&at| {
            let entry = &entries[at as usize];
            entry.hash == hash && entry.is(key)
        });
        match found {
            Some(&at) if entries[at as usize].known.until_s > now_s => {
                Some(&self.entries[at as usize].known)
            }
            _ => {
                self.misses += 1;
                None
            }
        }
    }

    /// Remembers it.
    pub fn insert(&mut self, key: &Key<'_>, known: Known) {
        let hash = self.hash_of(key);
        let entries = &self.entries;
        let is_it = |at: &u32| entries[*at as usize].hash == hash && entries[*at as usize].is(key);
        if let Some(&at) = self.index.find(hash, is_it) {
            self.entries[at as usize].known = known;
            return;
        }
        let entry = Entry {
            hash,
            bytes: [key.name, key.unit, key.labels].concat().into_boxed_slice(),
            name_len: key.name.len() as u32,
            unit_len: key.unit.len().min(usize::from(u16::MAX)) as u16,
            form: key.form,
            known,
        };
        let at = if self.entries.len() < self.entries_max {
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            let at = self.victim();
            self.entries[at] = entry;
            at
        };
        let entries = &self.entries;
        self.index.insert_unique(hash, at as u32, |&at| entries[at as usize].hash);
    }

    /// A random entry, taken out of the index.
    fn victim(&mut self) -> usize {
        // xorshift64: no key is worth more than another, and no sender can foresee it.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let at = (self.random % self.entries.len() as u64) as usize;
        let hash = self.entries[at].hash;
        let entries = &self.entries;
        let slot = self.index.entry(
            hash,
            |&other| other as usize == at,
            |&other| entries[other as usize].hash,
        );
        if let Slot::Occupied(slot) = slot {
            slot.remove();
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_wire::Reject;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn key(text: &str) -> Key<'_> {
        let (name, labels) = text.split_at(text.len() / 2);
        Key { form: 1, name: name.as_bytes(), unit: b"", labels: labels.as_bytes() }
    }

    fn known(index: usize) -> Known {
        let reason = Reason::Wire(Reject::ALL[index]);
        Known::refused(reason, u32::MAX)
    }

    fn found(cache: &mut Cache, key: &Key<'_>, now_s: u32) -> Option<usize> {
        match cache.find(key, now_s)?.target {
            Target::Refused(reason) => Some(reason.index()),
            _ => None,
        }
    }

    #[test]
    fn keys_that_differ_in_one_field_are_different() {
        let mut cache = Cache::new(10);
        let base = Key { form: 1, name: b"ab", unit: b"s", labels: b"cd" };
        cache.insert(&base, known(0));
        let others = [
            Key { form: 2, ..base },
            Key { name: b"a", labels: b"bcd", ..base },
            Key { name: b"abc", labels: b"d", ..base },
            Key { unit: b"", labels: b"scd", ..base },
            Key { unit: b"sc", labels: b"d", ..base },
        ];
        assert_eq!(found(&mut cache, &base, 0), Some(0));
        for other in others {
            assert_eq!(found(&mut cache, &other, 0), None);
        }
        assert_eq!(cache.take_misses(), 5);
    }

    #[test]
    fn what_is_known_for_a_while_is_looked_up_again_and_replaced() {
        let mut cache = Cache::new(10);
        cache.insert(&key("name"), Known { until_s: 20, ..known(1) });
        assert_eq!(found(&mut cache, &key("name"), 19), Some(1));
        assert_eq!(found(&mut cache, &key("name"), 20), None);
        cache.insert(&key("name"), known(2));
        assert_eq!(found(&mut cache, &key("name"), 99), Some(2));
        assert_eq!(cache.len(), 1);
    }

    proptest! {
        /// Against a map: a key is never answered with another one's value, at most `most` are kept,
        /// and the last one inserted is always there.
        #[test]
        fn a_bounded_cache_may_forget_but_never_lies(
            names in proptest::collection::vec("[ab]{1,8}", 1..300),
            most in 1usize..20,
        ) {
            let mut cache = Cache::new(most);
            let mut model = HashMap::new();
            for (round, name) in names.iter().enumerate() {
                let value = round % Reject::ALL.len();
                cache.insert(&key(name), known(value));
                model.insert(name.clone(), value);
                prop_assert_eq!(found(&mut cache, &key(name), 0), Some(value));
                prop_assert!(cache.len() <= most && cache.index.len() == cache.len());
                for (name, value) in &model {
                    let answer = found(&mut cache, &key(name), 0);
                    prop_assert!(answer.is_none() || answer == Some(*value));
                }
            }
        }
    }
}

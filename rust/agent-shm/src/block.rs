//! The allocator: pages of one size class each, blocks with a state word.
//!
//! ```text
//! state word   generation (32) | owner slot (16) | state (8) | class (8)
//!
//!   FREE --claim--> CLAIMED --publish--> LIVE --remove--> DEAD --retire--> LIMBO --two epochs--> FREE, generation + 1
//!                      \____ owner dead ____________________________________________________/
//! ```
//!
//! Every arrow is one compare-and-swap of the state word, so a process killed anywhere leaves a block in exactly one
//! state, and `tend.rs` finds it there: nothing is threaded through a free list that a death could cut. Finding a free
//! block costs a scan of the writer's current page, amortised over its blocks; a page that others left partly used is
//! found through the count in its page word. The count is a hint: it may be off by the number of kills, and is put
//! right whenever the page is tended.

use crate::error::Error;
use crate::layout::*;
use crate::region::Region;
use crate::sync::Ordering;
use std::cell::Cell;

pub const FREE: u8 = 0;
/// Being filled in by `owner`; whether it is reachable already, the map knows.
pub const CLAIMED: u8 = 1;
pub const LIVE: u8 = 2;
/// Removed; may still hang in its chain.
pub const DEAD: u8 = 3;
/// Out of its chain; waits for the epoch in `ENTRY_EXTRA`.
pub const LIMBO: u8 = 4;
/// Idle for long: dies after two epochs unless somebody uses it, which makes it `LIVE` again.
pub const EXPIRING: u8 = 5;
/// A part being filled in, and a part that hangs below its entry.
pub const CLAIMED_PART: u8 = 6;
pub const PART: u8 = 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    pub generation: u32,
    pub owner: u16,
    pub state: u8,
    pub class: u8,
}

impl State {
    pub fn of(word: u64) -> State {
        let (generation, owner) = ((word >> 32) as u32, (word >> 16) as u16);
        State { generation, owner, state: (word >> 8) as u8, class: word as u8 }
    }

    pub fn word(self) -> u64 {
        u64::from(self.generation) << 32
            | u64::from(self.owner) << 16
            | u64::from(self.state) << 8
            | u64::from(self.class)
    }

    pub fn with(self, state: u8, owner: u16) -> State {
        State { state, owner, ..self }
    }

    pub fn next_generation(self) -> State {
        State { generation: self.generation.wrapping_add(1), state: FREE, owner: 0, ..self }
    }
}

/// Moves a block from one state to another; `false` when somebody was faster.
pub fn shift(region: &Region, block: u64, from: State, to: State) -> bool {
    let word = region.word(block + BLOCK_STATE);
    word.compare_exchange(from.word(), to.word(), Ordering::AcqRel, Ordering::Acquire).is_ok()
}

pub fn state(region: &Region, block: u64) -> State {
    State::of(region.word(block + BLOCK_STATE).load(Ordering::Acquire))
}

/// The page words: class + 1 in the low byte (0: no class yet), blocks in use in the high half.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    pub class: u8,
    pub used: u64,
}

pub fn page(region: &Region, places: &Places, index: u64) -> Option<Page> {
    let word = region.word(places.pages + index * 8).load(Ordering::Acquire);
    let class = (word as u8).checked_sub(1).filter(|&class| usize::from(class) < CLASSES.len())?;
    Some(Page { class, used: word >> 32 })
}

fn count(region: &Region, places: &Places, index: u64, change: i64) {
    let word = region.word(places.pages + index * 8);
    if change > 0 {
        word.fetch_add(1 << 32, Ordering::Relaxed);
    } else if word.load(Ordering::Relaxed) >> 32 > 0 {
        word.fetch_sub(1 << 32, Ordering::Relaxed);
    }
}

/// Puts the count of a page right after it was looked through; skipped when it changed meanwhile.
pub fn recount(region: &Region, places: &Places, index: u64, before: Page, used: u64) {
    let class = u64::from(before.class) + 1;
    let word = region.word(places.pages + index * 8);
    let (old, new) = (before.used << 32 | class, used << 32 | class);
    let _ = word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed);
}

/// Pages that may have a class: those whose memory exists.
pub fn pages_committed(region: &Region, places: &Places) -> u64 {
    region.word(WORD_COMMITTED).load(Ordering::Acquire).min(places.pages_max)
}

/// Where a writer looks first. One per writer, not shared.
pub struct Cursor {
    /// Page + 1 and the next block in it, by class; 0: none yet.
    current: Vec<(Cell<u64>, Cell<u64>)>,
    /// Where the search for partly used pages goes on.
    search: Cell<u64>,
}

impl Default for Cursor {
    fn default() -> Cursor {
        let none = || (Cell::new(0), Cell::new(0));
        Cursor { current: CLASSES.iter().map(|_| none()).collect(), search: Cell::new(0) }
    }
}

/// Pages looked at before a new one is taken.
const SEARCH_PAGES: u64 = 256;

/// Claims a zeroed block of at least `bytes` for `owner`.
pub fn claim(
    region: &Region,
    places: &Places,
    cursor: &Cursor,
    owner: u16,
    bytes: u64,
    what: &'static str,
) -> Result<u64, Error> {
    let block = claim_dirty(region, places, cursor, owner, bytes, what)?;
    let bytes = CLASSES[usize::from(state(region, block).class)];
    for offset in (8..bytes).step_by(8) {
        region.word(block + offset).store(0, Ordering::Relaxed);
    }
    if bytes > 16 {
        clear_pairs(region, block, bytes);
    }
    Ok(block)
}

/// Under loom words and pairs are different objects; in memory they are the same bytes.
#[cfg(not(loom))]
fn clear_pairs(_region: &Region, _block: u64, _bytes: u64) {}

#[cfg(loom)]
fn clear_pairs(region: &Region, block: u64, bytes: u64) {
    for offset in (0..bytes).step_by(16) {
        region.pair(block + offset).update(|_, _| (0, 0));
    }
}

fn claim_dirty(
    region: &Region,
    places: &Places,
    cursor: &Cursor,
    owner: u16,
    bytes: u64,
    what: &'static str,
) -> Result<u64, Error> {
    let class = class_for(bytes).ok_or(Error::TooLarge {
        what,
        bytes: bytes as usize,
        bytes_max: PAGE_BYTES as usize,
    })?;
    let (page, next) = &cursor.current[usize::from(class)];
    if page.get() > 0 {
        if let Some(block) = claim_in(region, places, page.get() - 1, class, next, owner) {
            return Ok(block);
        }
    }
    let search = |index: u64| {
        let found = self::page(region, places, index);
        found.filter(|p| p.class == class && p.used < blocks_in_page(class))?;
        next.set(0);
        let block = claim_in(region, places, index, class, next, owner)?;
        page.set(index + 1);
        Some(block)
    };
    let committed = pages_committed(region, places);
    let looked_at = SEARCH_PAGES.min(committed);
    let found = (0..looked_at).find_map(|_| {
        let index = cursor.search.get() % committed;
        cursor.search.set(index + 1);
        search(index)
    });
    if let Some(block) = found {
        return Ok(block);
    }
    loop {
        let index = match take_page(region, places, class) {
            Ok(index) => index,
            // Somebody who wants the same class may have taken the last one while we searched.
            Err(full) => {
                let committed = pages_committed(region, places);
                let last = committed.saturating_sub(SEARCH_PAGES)..committed;
                return last.rev().find_map(search).ok_or(full);
            }
        };
        next.set(0);
        // Somebody may have emptied our new page of free blocks already; then take another.
        if let Some(block) = claim_in(region, places, index, class, next, owner) {
            page.set(index + 1);
            return Ok(block);
        }
    }
}

fn claim_in(
    region: &Region,
    places: &Places,
    page: u64,
    class: u8,
    next: &Cell<u64>,
    owner: u16,
) -> Option<u64> {
    let blocks = blocks_in_page(class);
    while next.get() < blocks {
        let block = places.page(page) + next.get() * CLASSES[usize::from(class)];
        next.set(next.get() + 1);
        let found = state(region, block);
        // A fresh page is zero: its blocks do not know their class yet.
        if found.state == FREE && (found.class == class || found == State::of(0)) {
            let claimed = State { class, ..found }.with(CLAIMED, owner);
            if shift(region, block, found, claimed) {
                count(region, places, page, 1);
                return Some(block);
            }
        }
    }
    None
}

/// The next page of this class, which the first page without a class gets; commits memory as needed.
fn take_page(region: &Region, places: &Places, class: u8) -> Result<u64, Error> {
    let mut index = region.word(WORD_CLAIMED).load(Ordering::Acquire);
    loop {
        if index >= places.pages_max {
            return Err(Error::Full { what: "bytes_max" });
        }
        while index >= pages_committed(region, places) {
            let committed = pages_committed(region, places);
            let chunk = CHUNK_PAGES.min(places.pages_max - committed);
            region.commit(places.page(committed), chunk * PAGE_BYTES).map_err(|source| {
                Error::Io { stage: "commit memory of", path: region.path().into(), source }
            })?;
            region.word(WORD_COMMITTED).fetch_max(committed + chunk, Ordering::AcqRel);
        }
        let word = region.word(places.pages + index * 8);
        let mine = u64::from(class) + 1;
        let now = word.compare_exchange(0, mine, Ordering::AcqRel, Ordering::Acquire);
        region.word(WORD_CLAIMED).fetch_max(index + 1, Ordering::AcqRel);
        // Who was faster and wants the same class has made a page for us too.
        if now.map_or_else(|now| now & 0xff == mine, |_| true) {
            return Ok(index);
        }
        index += 1;
    }
}

/// Makes a claimed block, or one about to expire, one that others may rely on; gives its state then.
pub fn publish(region: &Region, block: u64) -> State {
    let now = state(region, block);
    let published = match now.state {
        CLAIMED | EXPIRING => now.with(LIVE, 0),
        CLAIMED_PART => now.with(PART, 0),
        _ => return now,
    };
    // Losing this race means that somebody helped, or that it died after all.
    if shift(region, block, now, published) {
        published
    } else {
        state(region, block)
    }
}

/// Frees a block that nobody can reach; `from` is the state it was seen in.
pub fn free(region: &Region, places: &Places, block: u64, from: State) -> bool {
    let done = shift(region, block, from, from.next_generation());
    if done && block >= places.blocks {
        count(region, places, (block - places.blocks) / PAGE_BYTES, -1);
    }
    done
}

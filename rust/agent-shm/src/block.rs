//! The allocator: pages of one size class each, blocks with a state word.
//!
//! ```text
//! state word   mark (13) | generation (30) | owner slot (12) | state (3) | class (6)
//!
//!   FREE --claim--> CLAIMED --publish--> LIVE --remove--> DEAD --retire--> LIMBO --two epochs--> FREE, generation + 1
//!                      \____ owner dead ____________________________________________________/
//!
//! page word    generation (30) | epoch (14) | blocks in use (12) | phase (2) | class + 1 (6)
//!
//!   (no class) --take--> IN_USE <--all free / wanted again--> EMPTIED --three epochs--> ZEROED --> (no class)
//! ```
//!
//! Every arrow is one compare-and-swap, so a process killed anywhere leaves a block in exactly one state, and
//! `reclaim.rs` finds it there: nothing is threaded through a free list that a death could cut.
//!
//! The *mark* makes a state word something that stands nowhere else in a page: it is a signalling NaN, which no
//! arithmetic gives, and no text and no count looks like it. So a handle that outlived its page's class compares its word
//! with what are now bytes of another series, and never finds it there. A page whose class changes begins at a generation
//! above all that its blocks ever had.
//!
//! Finding a free block costs a scan of the writer's current page, amortised over its blocks; a page that others left
//! partly used is found through `WORD_ROOM` of its class and the count in its page word. Both are hints: a kill leaves
//! them off, a pass puts them right, and before memory is called full every page is looked at.

use crate::error::Error;
use crate::layout::*;
use crate::page::{Page, PageWord, Phase};
use crate::region::Region;
use crate::sync::Ordering;
use std::cell::Cell;

pub use crate::layout::{CLAIMED, CLAIMED_PART, DEAD, EXPIRING, FREE, LIMBO, LIVE, PART};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    pub generation: u32,
    pub owner: u16,
    pub state: u8,
    pub class: u8,
}

impl State {
    /// Nothing when the word is no state word.
    pub fn of(word: u64) -> Option<State> {
        (word & STATE_MARK_BITS == STATE_MARK).then_some(State {
            generation: (word >> STATE_GENERATION_SHIFT) as u32 & GENERATIONS,
            owner: (word >> STATE_OWNER_SHIFT) as u16 & (SLOTS_MAX - 1),
            state: (word >> STATE_SHIFT) as u8 & PART,
            class: (word & CLASS_MASK) as u8,
        })
    }

    pub const fn word(self) -> u64 {
        STATE_MARK
            | (self.generation as u64) << STATE_GENERATION_SHIFT
            | (self.owner as u64) << STATE_OWNER_SHIFT
            | (self.state as u64) << STATE_SHIFT
            | self.class as u64
    }

    pub fn with(self, state: u8, owner: u16) -> State {
        State { state, owner, ..self }
    }

    pub fn next_generation(self) -> State {
        let generation = self.generation.wrapping_add(1) & GENERATIONS;
        State { generation, state: FREE, owner: 0, ..self }
    }

    pub fn is_live(self) -> bool {
        matches!(self.state, LIVE | EXPIRING)
    }
}

/// What a word that is no state word is taken for: nothing that anybody does anything with.
const NONE: State = State { generation: 0, owner: 0, state: FREE, class: 0 };

/// Moves a block from one state to another; `false` when somebody was faster.
pub fn shift(region: &Region, block: u64, from: State, to: State) -> bool {
    let word = region.word(block + BLOCK_STATE);
    word.compare_exchange(from.word(), to.word(), Ordering::AcqRel, Ordering::Acquire).is_ok()
}

pub fn state(region: &Region, block: u64) -> State {
    State::of(region.word(block + BLOCK_STATE).load(Ordering::Acquire)).unwrap_or(NONE)
}

fn page_word<'r>(region: &'r Region, places: &Places, index: u64) -> &'r crate::sync::Word {
    region.word(places.pages + index * 8)
}

/// What is known of a page.
pub fn page_word_of(region: &Region, places: &Places, index: u64) -> PageWord {
    PageWord::of(page_word(region, places, index).load(Ordering::Acquire))
}

/// The page, when it has a class. It may be in any phase, and a phase is one bit: what is in its blocks, their own state
/// words say.
pub fn page(region: &Region, places: &Places, index: u64) -> Option<Page> {
    page_word_of(region, places, index).class()
}

/// Whether the page is for whoever takes it. Its word alone does not say so: a changed bit may have taken the class of a
/// page in use, and a page that was never used or was overwritten is zero. Decided here for all who look.
fn is_free(region: &Region, places: &Places, index: u64) -> bool {
    page_word_of(region, places, index) == PageWord::NoClass && is_zero(region, places.page(index))
}

#[cfg(not(model))]
fn is_zero(region: &Region, page: u64) -> bool {
    let mut words = (0..PAGE_BYTES).step_by(8);
    words.all(|offset| region.word(page + offset).load(Ordering::Relaxed) == 0)
}

/// No bit changes by itself in a model.
#[cfg(model)]
fn is_zero(_region: &Region, _page: u64) -> bool {
    true
}

/// The start of every block of a page.
pub fn blocks(places: &Places, index: u64, class: u8) -> impl Iterator<Item = u64> {
    let start = places.page(index);
    (0..blocks_in_page(class)).map(move |number| start + number * CLASSES[usize::from(class)])
}

fn count(region: &Region, places: &Places, index: u64, change: i64) {
    let word = page_word(region, places, index);
    let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
        let page = PageWord::of(word).class()?;
        let used = page.used.checked_add_signed(change)?.min(blocks_in_page(page.class));
        Some(Page { used, ..page }.word())
    });
}

/// Puts the count of a page right after it was looked through; skipped when it changed meanwhile.
pub fn recount(region: &Region, places: &Places, index: u64, before: Page, used: u64) {
    let word = page_word(region, places, index);
    let after = Page { used, ..before }.word();
    let _ = word.compare_exchange(before.word(), after, Ordering::AcqRel, Ordering::Relaxed);
}

/// One step of a page without a block in use towards having no class, or back into use; by the one who reclaims, inside
/// an epoch. `epoch` is that of now. `true` when the page is free for any class.
///
/// No page is overwritten for what its word said before this call: of a page that is found in the phase `Zeroed`, a
/// death or a flipped bit may have left it so. It waits again, as one that was just emptied.
pub fn retire_page(region: &Region, places: &Places, index: u64, page: Page, epoch: u64) -> bool {
    let word = page_word(region, places, index);
    let change = |from: Page, to: u64| {
        word.compare_exchange(from.word(), to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    };
    let states = || blocks(places, index, page.class).map(|block| state(region, block));
    match page.phase {
        Phase::InUse if states().all(|state| state.state == FREE) => {
            let emptied = Page { phase: Phase::Emptied, epoch, used: 0, ..page };
            change(page, emptied.word());
            false
        }
        Phase::InUse => false,
        // Somebody had read the page word before, and claimed.
        Phase::Emptied if states().any(|state| state.state != FREE) => {
            change(page, Page { phase: Phase::InUse, ..page }.word());
            false
        }
        // Whoever read it before may still be claiming. The epoch may have gone on by one since it was read, hence one
        // more than for blocks, which are stamped after the fact.
        Phase::Emptied
            if epoch.wrapping_sub(page.epoch) & PAGE_EPOCH_MASK < crate::epoch::GRACE + 1 =>
        {
            false
        }
        Phase::Emptied => {
            // Above all that a handle may have seen in this page.
            let last = states().map(|state| state.generation).fold(page.generation, u32::max);
            let generation = last.wrapping_add(1) & GENERATIONS;
            let zeroed = Page { phase: Phase::Zeroed, generation, ..page };
            if !change(page, zeroed.word()) {
                return false;
            }
            clear(region, places.page(index), PAGE_BYTES);
            let done = change(zeroed, u64::from(generation) << 34);
            region.word(WORD_CLAIMED).fetch_min(index, Ordering::AcqRel);
            done
        }
        Phase::Zeroed | Phase::Unknown => {
            change(page, Page { phase: Phase::Emptied, epoch, ..page }.word());
            false
        }
    }
}

/// Says that pages from `index` on may have no class; by the one who reclaims.
pub fn offer_pages(region: &Region, index: u64) {
    region.word(WORD_CLAIMED).fetch_min(index, Ordering::AcqRel);
}

/// Pages that may have a class: those whose memory exists.
pub fn pages_committed(region: &Region, places: &Places) -> u64 {
    region.word(WORD_COMMITTED).load(Ordering::Acquire).min(places.pages_max)
}

/// Where a writer looks first. One per writer, not shared.
pub struct Cursor {
    /// Page + 1 and the next block in it, by class; 0: none yet.
    current: Vec<(Cell<u64>, Cell<u64>)>,
}

impl Default for Cursor {
    fn default() -> Cursor {
        Cursor { current: CLASSES.iter().map(|_| (Cell::new(0), Cell::new(0))).collect() }
    }
}

/// What a block is claimed for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    /// `CLAIMED` or `CLAIMED_PART`: whoever cleans up after us knows by it what to look for.
    pub state: u8,
    pub what: &'static str,
}

/// Who allocates.
pub struct Claimer<'a> {
    pub region: &'a Region,
    pub places: &'a Places,
    pub cursor: &'a Cursor,
    pub owner: u16,
}

impl Claimer<'_> {
    /// Claims a zeroed block of at least `bytes`. Inside an epoch: that is what keeps a page's class.
    pub fn claim(&self, bytes: u64, purpose: Purpose) -> Result<u64, Error> {
        let class = class_for(bytes).ok_or(Error::TooLarge {
            what: purpose.what,
            bytes: bytes as usize,
            bytes_max: PAGE_BYTES as usize,
        })?;
        let block = self.claim_dirty(class, purpose)?;
        let size = CLASSES[usize::from(class)];
        clear(self.region, block + 8, size - 8);
        if size > 16 {
            clear_pairs(self.region, block, size);
        }
        Ok(block)
    }

    fn claim_dirty(&self, class: u8, purpose: Purpose) -> Result<u64, Error> {
        let (current, _) = &self.cursor.current[usize::from(class)];
        if let Some(index) = current.get().checked_sub(1) {
            if let Some(block) = self.claim_in(index, class, false, purpose) {
                return Ok(block);
            }
        }
        let room = self.region.word(WORD_ROOM + u64::from(class) * 8);
        let first = room.load(Ordering::Acquire);
        let committed = pages_committed(self.region, self.places);
        for index in first..committed {
            if let Some(block) = self.claim_in(index, class, true, purpose) {
                let _ = room.compare_exchange(first, index, Ordering::AcqRel, Ordering::Relaxed);
                return Ok(block);
            }
        }
        let _ = room.compare_exchange(first, committed, Ordering::AcqRel, Ordering::Relaxed);
        loop {
            match self.take_page(class) {
                // Somebody may have emptied our new page of free blocks already; then take another.
                Ok(index) => {
                    if let Some(block) = self.claim_in(index, class, true, purpose) {
                        return Ok(block);
                    }
                }
                // The hints may be off: every page is looked at, those of this class and those of none.
                Err(full) => {
                    let committed = pages_committed(self.region, self.places);
                    let all = || (0..committed).rev();
                    let mut found = all().filter_map(|i| self.claim_in(i, class, true, purpose));
                    if let Some(block) = found.next() {
                        return Ok(block);
                    }
                    let Some(index) = all().find(|&i| is_free(self.region, self.places, i)) else {
                        return Err(full);
                    };
                    offer_pages(self.region, index);
                }
            }
        }
    }

    /// A block of one page, if the page is of this class and has one.
    fn claim_in(&self, index: u64, class: u8, anew: bool, purpose: Purpose) -> Option<u64> {
        let blocks = blocks_in_page(class);
        let page = page(self.region, self.places, index)?;
        if page.class != class || anew && page.used >= blocks || !self.revive(index, page) {
            return None;
        }
        let (current, next) = &self.cursor.current[usize::from(class)];
        if anew {
            current.set(index + 1);
            next.set(0);
        }
        while next.get() < blocks {
            let block = self.places.page(index) + next.get() * CLASSES[usize::from(class)];
            next.set(next.get() + 1);
            let word = self.region.word(block + BLOCK_STATE);
            let found = word.load(Ordering::Acquire);
            let free = match State::of(found) {
                Some(state) if state.state == FREE && state.class == class => state,
                // A page that is new to its class is zero.
                None if found == 0 => {
                    State { generation: page.generation, owner: 0, state: FREE, class }
                }
                _ => continue,
            };
            let claimed = free.with(purpose.state, self.owner).word();
            if word.compare_exchange(found, claimed, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                count(self.region, self.places, index, 1);
                return Some(block);
            }
        }
        None
    }

    /// Whether blocks of the page may be taken: one that was emptied is in use again by that.
    fn revive(&self, index: u64, page: Page) -> bool {
        let revived = Page { phase: Phase::InUse, ..page };
        match page.phase {
            Phase::InUse => true,
            Phase::Zeroed | Phase::Unknown => false,
            Phase::Emptied => page_word(self.region, self.places, index)
                .compare_exchange(page.word(), revived.word(), Ordering::AcqRel, Ordering::Acquire)
                .is_ok(),
        }
    }

    /// The first page without a class gets this one; commits memory as needed.
    fn take_page(&self, class: u8) -> Result<u64, Error> {
        let (region, places) = (self.region, self.places);
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
            let word = page_word(region, places, index);
            let found = word.load(Ordering::Acquire);
            // Whoever takes it after it was found free changes its word, and with that `found` is of yesterday.
            let taken =
                PageWord::of(found) == PageWord::NoClass && is_free(region, places, index) && {
                    let mine = Page::begun(class, found).word();
                    word.compare_exchange(found, mine, Ordering::AcqRel, Ordering::Acquire).is_ok()
                };
            // Who was faster and wants the same class has made a page for us too.
            let is_ours = PageWord::of(word.load(Ordering::Acquire))
                .class()
                .is_some_and(|page| page.class == class && page.used == 0);
            region.word(WORD_CLAIMED).fetch_max(index + 1, Ordering::AcqRel);
            if taken || is_ours {
                has_room(region, class, index);
                return Ok(index);
            }
            index += 1;
        }
    }
}

/// Overwrites `bytes` from `start` with zeros.
fn clear(region: &Region, start: u64, bytes: u64) {
    for offset in (0..bytes).step_by(8) {
        region.word(start + offset).store(0, Ordering::Relaxed);
    }
}

/// In a model words and pairs are different objects; in memory they are the same bytes.
#[cfg(not(model))]
fn clear_pairs(_region: &Region, _block: u64, _bytes: u64) {}

#[cfg(model)]
fn clear_pairs(region: &Region, block: u64, bytes: u64) {
    for offset in (0..bytes).step_by(16) {
        region.pair(block + offset).update(|_, _| (0, 0));
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
        let index = (block - places.blocks) / PAGE_BYTES;
        count(region, places, index, -1);
        has_room(region, from.class, index);
    }
    done
}

/// Says that a page of this class has a free block.
pub fn has_room(region: &Region, class: u8, index: u64) {
    region.word(WORD_ROOM + u64::from(class) * 8).fetch_min(index, Ordering::AcqRel);
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    #[test]
    fn a_state_word_is_a_signalling_nan_and_survives_the_way_there_and_back() {
        for generation in [0, 1, 12345, GENERATIONS] {
            for (owner, state, class) in [(0, FREE, 0), (4095, PART, 38), (7, LIVE, 12)] {
                let found = State { generation, owner, state, class };
                assert_eq!(State::of(found.word()), Some(found));
                let float = f64::from_bits(found.word());
                assert!(float.is_nan() || float == f64::NEG_INFINITY && found == NONE);
            }
        }
    }

    #[test]
    fn no_number_and_no_text_is_a_state_word_that_a_handle_holds() {
        let live = |word| State::of(word).is_some_and(|state| state.state != FREE);
        let nan = f64::INFINITY - f64::INFINITY;
        for value in [0.0, -0.0, -1.5, f64::MIN, f64::NEG_INFINITY, f64::NAN, nan, -nan] {
            assert!(!live(value.to_bits()), "{value}");
        }
        assert!(!live((1 << 63) - 1), "the largest count");
        // The first byte of a word that is all ones is in no UTF-8 text.
        assert_eq!(STATE_MARK.to_le_bytes()[7], 0xff);
    }
}

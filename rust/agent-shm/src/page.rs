//! The word of a page: its size class, how far it is on its way to having none, how many of its blocks are in use.
//!
//! block.rs has the picture, and every change of the word. A word in which a bit has changed may say anything: which words
//! mean "no class", and which mean nothing, is decided here alone. A bit beside the class tells whether one of its bits has
//! changed. Not promised: that two are noticed.

use crate::layout::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    InUse = 0,
    /// All of its blocks were free; nobody takes one any more, but somebody may still be about to.
    Emptied = 1,
    /// Being overwritten with zeros. Nobody but who overwrites it believes this: see `retire_page` in block.rs.
    Zeroed = 2,
    /// Of a damaged page word.
    Unknown = 3,
}

/// What the word of a page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageWord {
    /// The page is free for any class, if it is zero.
    NoClass,
    Class(Page),
    /// There is no such class, or one of its bits has changed. The page is neither free nor in use: nobody does anything with it.
    Damaged,
}

impl PageWord {
    pub fn of(word: u64) -> PageWord {
        if parity(word & CLASS_MASK) != word >> PAGE_PARITY_SHIFT & 1 {
            return PageWord::Damaged;
        }
        let Some(class) = ((word & CLASS_MASK) as u8).checked_sub(1) else {
            return PageWord::NoClass;
        };
        if usize::from(class) >= CLASSES.len() {
            return PageWord::Damaged;
        }
        let phase = match word >> PAGE_PHASE_SHIFT & 3 {
            0 => Phase::InUse,
            1 => Phase::Emptied,
            2 => Phase::Zeroed,
            _ => Phase::Unknown,
        };
        PageWord::Class(Page {
            class,
            phase,
            used: word >> PAGE_USED_SHIFT & PAGE_USED_MASK,
            epoch: word >> PAGE_EPOCH_SHIFT & PAGE_EPOCH_MASK,
            generation: (word >> PAGE_GENERATION_SHIFT) as u32,
        })
    }

    pub fn class(self) -> Option<Page> {
        match self {
            PageWord::Class(page) => Some(page),
            PageWord::NoClass | PageWord::Damaged => None,
        }
    }
}

/// The word of a page that has a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    pub class: u8,
    pub phase: Phase,
    pub used: u64,
    pub epoch: u64,
    /// Of blocks that were never used in this class.
    pub generation: u32,
}

fn parity(class: u64) -> u64 {
    u64::from(class.count_ones() % 2)
}

impl Page {
    /// Of a page that gets this class, whose word said that it had none.
    pub fn begun(class: u8, without: u64) -> Page {
        let generation = (without >> PAGE_GENERATION_SHIFT) as u32;
        Page { class, phase: Phase::InUse, used: 0, epoch: 0, generation }
    }

    pub fn word(self) -> u64 {
        let class = u64::from(self.class) + 1;
        u64::from(self.generation) << PAGE_GENERATION_SHIFT
            | (self.epoch & PAGE_EPOCH_MASK) << PAGE_EPOCH_SHIFT
            | (self.used & PAGE_USED_MASK) << PAGE_USED_SHIFT
            | (self.phase as u64) << PAGE_PHASE_SHIFT
            | parity(class) << PAGE_PARITY_SHIFT
            | class
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    #[test]
    fn a_page_word_survives_the_way_there_and_back() {
        let page = Page {
            class: 38,
            phase: Phase::Zeroed,
            used: 1024,
            epoch: 0x3fff,
            generation: GENERATIONS,
        };
        for phase in [Phase::InUse, Phase::Emptied, Phase::Zeroed, Phase::Unknown] {
            let page = Page { phase, ..page };
            assert_eq!(PageWord::of(page.word()), PageWord::Class(page));
        }
        assert_eq!(PageWord::of(0), PageWord::NoClass);
        for class in CLASSES.len() as u64 + 1..=0x3f {
            let word = page.word() & !(0x3f | 1 << PAGE_PARITY_SHIFT);
            let word = word | class | parity(class) << PAGE_PARITY_SHIFT;
            assert_eq!(PageWord::of(word), PageWord::Damaged, "{class}");
        }
    }

    #[test]
    fn one_bit_never_makes_one_class_of_another() {
        let words = (0..CLASSES.len() as u8).map(|class| {
            let phase = Phase::InUse;
            Page { class, phase, used: 3, epoch: 7, generation: 9 }.word()
        });
        for word in words.chain([0, 9 << PAGE_GENERATION_SHIFT]) {
            assert_ne!(PageWord::of(word), PageWord::Damaged);
            for bit in (0..6).chain([PAGE_PARITY_SHIFT]) {
                assert_eq!(PageWord::of(word ^ 1 << bit), PageWord::Damaged, "{word:x} {bit}");
            }
        }
    }
}

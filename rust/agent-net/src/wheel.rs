//! Deadlines without timers: one lazy wheel through the slab.
//!
//! Every connection stands in one of 256 slots, a doubly linked list through the entries themselves,
//! so filing and taking out cost a few stores and no memory. A message does not touch the wheel: it
//! stores its tick in the entry ([`crate::slab::Conn::seen`]). When a slot comes up, the caller says
//! for each entry when its deadline really is, and the entry is filed again or handed out.
//!
//! A tick is 250 ms; a deadline farther than 255 ticks (64 s) is looked at once per round. An entry
//! comes up at most one tick late.

use crate::slab::{Slab, NONE};

/// Milliseconds of a tick.
pub const TICK_MS: u64 = 250;

const SLOTS: u32 = 256;
const REACH: u32 = SLOTS - 1;

/// The tick of a time.
pub fn tick_of(now_ms: u64) -> u32 {
    (now_ms / TICK_MS) as u32
}

/// The first tick at or after a time.
pub fn tick_after(deadline_ms: u64) -> u32 {
    deadline_ms.div_ceil(TICK_MS) as u32
}

#[derive(Debug)]
pub struct Wheel {
    heads: Box<[u32; SLOTS as usize]>,
    /// The last tick that was looked at.
    now: u32,
    filed: u32,
}

impl Wheel {
    pub fn new(now: u32) -> Wheel {
        Wheel { heads: Box::new([NONE; SLOTS as usize]), now, filed: 0 }
    }

    /// Entries in the wheel.
    pub fn len(&self) -> u32 {
        self.filed
    }

    pub fn is_empty(&self) -> bool {
        self.filed == 0
    }

    /// Files an entry to come up at `deadline`; one that is filed earlier already stays there.
    #[inline]
    pub fn file(&mut self, slab: &mut Slab, index: u32, deadline: u32) {
        let filed = slab.at(index).filed;
        if filed != NONE {
            if filed <= deadline {
                return;
            }
            self.take_out(slab, index);
        }
        let tick = deadline.clamp(self.now + 1, self.now + REACH);
        let head = &mut self.heads[(tick % SLOTS) as usize];
        let next = std::mem::replace(head, index);
        let conn = slab.at(index);
        (conn.filed, conn.previous, conn.next) = (tick, NONE, next);
        if next != NONE {
            slab.at(next).previous = index;
        }
        self.filed += 1;
    }

    /// Takes an entry out, before it is freed.
    pub fn take_out(&mut self, slab: &mut Slab, index: u32) {
        let conn = slab.at(index);
        if conn.filed == NONE {
            return;
        }
        let (tick, previous, next) = (conn.filed, conn.previous, conn.next);
        (conn.filed, conn.previous, conn.next) = (NONE, NONE, NONE);
        match previous {
            NONE => self.heads[(tick % SLOTS) as usize] = next,
            previous => slab.at(previous).next = next,
        }
        if next != NONE {
            slab.at(next).previous = previous;
        }
        self.filed -= 1;
    }

    /// Looks at every slot up to `now`. `deadline` says when an entry is really due; those that are
    /// come out of the wheel and into `due`.
    pub fn advance(
        &mut self,
        slab: &mut Slab,
        now: u32,
        due: &mut Vec<u32>,
        mut deadline: impl FnMut(&mut Slab, u32) -> u32,
    ) {
        // After a long sleep one round shows every slot.
        let from = now.saturating_sub(SLOTS - 1).max(self.now + 1);
        for tick in from..=now {
            self.now = tick;
            let mut index = std::mem::replace(&mut self.heads[(tick % SLOTS) as usize], NONE);
            while index != NONE {
                let conn = slab.at(index);
                let next = conn.next;
                (conn.filed, conn.previous, conn.next) = (NONE, NONE, NONE);
                self.filed -= 1;
                let at = deadline(slab, index);
                if at <= now {
                    due.push(index);
                } else {
                    self.file(slab, index, at);
                }
                index = next;
            }
        }
        self.now = self.now.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Peer;
    use crate::slab::Protocol;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn open(slab: &mut Slab) -> u32 {
        let peer = Peer { address: None, row: 0 };
        slab.insert(1, Protocol::Http, &peer).expect("room")
    }

    #[test]
    fn a_message_that_only_stores_its_tick_keeps_the_connection() {
        let mut slab = Slab::default();
        let mut wheel = Wheel::new(0);
        let (kept, lost) = (open(&mut slab), open(&mut slab));
        wheel.file(&mut slab, kept, 10);
        wheel.file(&mut slab, lost, 10);
        slab.at(kept).seen = 9;
        let mut due = Vec::new();
        wheel.advance(&mut slab, 10, &mut due, |slab, index| slab.at(index).seen + 10);
        assert_eq!(due, [lost]);
        assert_eq!(wheel.len(), 1);
        wheel.advance(&mut slab, 19, &mut due, |slab, index| slab.at(index).seen + 10);
        assert_eq!(due, [lost, kept]);
    }

    #[test]
    fn an_earlier_deadline_moves_the_entry_and_a_later_one_does_not() {
        let mut slab = Slab::default();
        let mut wheel = Wheel::new(0);
        let index = open(&mut slab);
        wheel.file(&mut slab, index, 200);
        wheel.file(&mut slab, index, 20);
        wheel.file(&mut slab, index, 100);
        let mut due = Vec::new();
        wheel.advance(&mut slab, 20, &mut due, |_, _| 20);
        assert_eq!(due, [index]);
    }

    proptest! {
        /// Against a plain map: every entry comes out at its deadline and not before, whatever was
        /// filed, taken out and slept over.
        #[test]
        fn the_wheel_agrees_with_a_map(
            steps in proptest::collection::vec((0u8..4, 0usize..20, 1u32..700), 1..200),
        ) {
            let mut slab = Slab::default();
            let indices: Vec<u32> = (0..20).map(|_| open(&mut slab)).collect();
            let mut wheel = Wheel::new(5);
            let mut model: BTreeMap<u32, u32> = BTreeMap::new();
            let mut now = 5;
            for (step, which, delta) in steps {
                let index = indices[which];
                match step {
                    0 => {
                        let deadline = now + delta;
                        wheel.file(&mut slab, index, deadline);
                        model.insert(index, deadline);
                        // A later deadline than the filed one is seen lazily.
                        slab.at(index).seen = deadline;
                    }
                    1 => {
                        wheel.take_out(&mut slab, index);
                        model.remove(&index);
                    }
                    _ => {
                        now += if step == 2 { delta % 7 } else { delta };
                        let mut due = Vec::new();
                        wheel.advance(&mut slab, now, &mut due, |slab, at| slab.at(at).seen);
                        due.sort_unstable();
                        let expected: Vec<u32> =
                            model.iter().filter(|(_, at)| **at <= now).map(|(i, _)| *i).collect();
                        prop_assert_eq!(&due, &expected);
                        model.retain(|_, at| *at > now);
                    }
                }
                prop_assert_eq!(wheel.len() as usize, model.len());
            }
        }
    }
}

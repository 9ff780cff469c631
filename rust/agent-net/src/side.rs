//! What a connection owns while it is busy: half a line, output, a request.
//!
//! An idle connection has none of this. Entries come from a pool and go back to it with their buffers
//! emptied; buffers above [`KEPT_BYTES`] are given up, so one long line does not stay in memory. The
//! bytes of all input buffers are counted from the first one, and bounded by [`INPUT_BYTES_MAX`]; a
//! few KiB of a usual half line get as much again, so that hoarders do not cut off the honest.

use crate::http::{HttpState, Stream};
use crate::slab::NONE;

/// Half lines and unread requests of one worker together.
pub const INPUT_BYTES_MAX: usize = 64 << 20;
/// A buffer up to this size is kept with its entry.
const KEPT_BYTES: usize = 4 << 10;
/// Free entries kept.
const FREE_MAX: usize = 1024;

#[derive(Default)]
pub struct Side {
    /// Bytes read and not consumed.
    pub input: Vec<u8>,
    /// Bytes to be written, from `written` on.
    pub output: Vec<u8>,
    pub written: usize,
    pub http: Option<Box<HttpState>>,
    pub stream: Option<Stream>,
    /// The body of its push is being applied.
    pub is_pushing: bool,
}

impl Side {
    pub fn unwritten(&self) -> &[u8] {
        &self.output[self.written..]
    }

    /// Nothing in it is needed any more.
    pub fn is_idle(&self) -> bool {
        self.input.is_empty()
            && self.written == self.output.len()
            && self.http.is_none()
            && self.stream.is_none()
            && !self.is_pushing
    }
}

/// All side entries of a loop.
#[derive(Default)]
pub struct Pool {
    entries: Vec<Option<Box<Side>>>,
    vacant: Vec<u32>,
    #[allow(clippy::vec_box, reason = "the boxes move between the two lists")]
    spare: Vec<Box<Side>>,
    input_bytes: usize,
}

impl Pool {
    /// The entry with this number; a new one when the number is `NONE`.
    pub fn get(&mut self, number: &mut u32) -> &mut Side {
        if *number == NONE {
            *number = self.vacant.pop().unwrap_or_else(|| {
                self.entries.push(None);
                (self.entries.len() - 1) as u32
            });
        }
        let spare = &mut self.spare;
        let entry = &mut self.entries[*number as usize];
        entry.get_or_insert_with(|| spare.pop().unwrap_or_default())
    }

    /// The entry with this number, if there is one.
    pub fn find(&mut self, number: u32) -> Option<&mut Side> {
        self.entries.get_mut(number as usize)?.as_deref_mut()
    }

    /// Takes the entry back, whatever is in it.
    pub fn release(&mut self, number: &mut u32) {
        let Some(entry) = self.entries.get_mut(*number as usize) else { return };
        if let Some(mut side) = entry.take() {
            self.input_bytes -= side.input.len();
            self.vacant.push(*number);
            if self.spare.len() < FREE_MAX && side.input.capacity() <= KEPT_BYTES {
                side.input.clear();
                side.output = Vec::new();
                (side.written, side.http, side.stream) = (0, None, None);
                side.is_pushing = false;
                self.spare.push(side);
            }
        }
        *number = NONE;
    }

    /// Takes the entry back if nothing in it is needed.
    pub fn release_if_idle(&mut self, number: &mut u32) {
        if self.find(*number).is_some_and(|side| side.is_idle()) {
            self.release(number);
        }
    }

    /// Puts `rest` in place of the entry's input; `false` when the pool is full.
    #[must_use]
    pub fn set_input(&mut self, number: &mut u32, rest: &[u8]) -> bool {
        let before = self.find(*number).map_or(0, |side| side.input.len());
        if self.input_bytes - before + rest.len() > room(rest.len()) {
            return false;
        }
        self.input_bytes = self.input_bytes - before + rest.len();
        let input = &mut self.get(number).input;
        input.clear();
        input.extend_from_slice(rest);
        true
    }

    /// Appends to the entry's input; `false` when the pool is full.
    #[must_use]
    pub fn append_input(&mut self, number: &mut u32, more: &[u8]) -> bool {
        let after = more.len() + self.find(*number).map_or(0, |side| side.input.len());
        if self.input_bytes + more.len() > room(after) {
            return false;
        }
        self.input_bytes += more.len();
        self.get(number).input.extend_from_slice(more);
        true
    }

    /// Takes the first `count` bytes off the entry's input.
    pub fn consume_input(&mut self, number: u32, count: usize) {
        let Some(side) = self.find(number) else { return };
        side.input.drain(..count);
        if side.input.is_empty() && side.input.capacity() > KEPT_BYTES {
            side.input = Vec::new();
        }
        self.input_bytes -= count;
    }

    /// Takes the entry's input out of the pool.
    pub fn take_input(&mut self, number: u32) -> Vec<u8> {
        let input = self.find(number).map(|side| std::mem::take(&mut side.input));
        let input = input.unwrap_or_default();
        self.forget_input(input.len());
        input
    }

    /// Bytes that were taken out of an entry by hand will not come back.
    pub fn forget_input(&mut self, count: usize) {
        self.input_bytes -= count;
    }

    /// Bytes of input held now.
    pub fn input_bytes(&self) -> usize {
        self.input_bytes
    }

    /// Entries in use.
    pub fn in_use(&self) -> usize {
        self.entries.len() - self.vacant.len()
    }
}

/// The bytes all inputs together may have for one of them to have `bytes`.
fn room(bytes: usize) -> usize {
    if bytes <= KEPT_BYTES {
        2 * INPUT_BYTES_MAX
    } else {
        INPUT_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_until_they_are_consumed_or_released() {
        let mut pool = Pool::default();
        let (mut a, mut b) = (NONE, NONE);
        assert!(pool.set_input(&mut a, b"half a line"));
        assert!(pool.append_input(&mut b, b"1234"));
        assert!(pool.set_input(&mut a, b"half"));
        assert_eq!(pool.input_bytes(), 8);
        pool.consume_input(b, 4);
        pool.release_if_idle(&mut b);
        assert_eq!((b, pool.in_use()), (NONE, 1));
        pool.release_if_idle(&mut a);
        assert_ne!(a, NONE, "there is input left");
        pool.release(&mut a);
        assert_eq!((pool.input_bytes(), pool.in_use()), (0, 0));
    }

    #[test]
    fn a_full_pool_takes_no_long_input_and_forgets_nothing() {
        let mut pool = Pool::default();
        let (mut a, mut b) = (NONE, NONE);
        assert!(pool.set_input(&mut a, &vec![0; INPUT_BYTES_MAX]));
        assert!(!pool.append_input(&mut b, &[0; KEPT_BYTES + 1]));
        assert!(!pool.set_input(&mut b, &[0; KEPT_BYTES + 1]));
        assert!(pool.set_input(&mut b, &[0; KEPT_BYTES]), "a usual half line still fits");
        assert!(!pool.append_input(&mut b, b"x"));
        assert_eq!(pool.input_bytes(), INPUT_BYTES_MAX + KEPT_BYTES);
        pool.release(&mut a);
        assert!(pool.append_input(&mut b, b"x"));
    }

    #[test]
    fn an_entry_comes_back_empty_and_without_its_large_buffer() {
        let mut pool = Pool::default();
        let mut a = NONE;
        assert!(pool.set_input(&mut a, &[7; 100_000]));
        pool.get(&mut a).output.extend_from_slice(b"out");
        pool.release(&mut a);
        let side = pool.get(&mut a);
        assert!(side.is_idle() && side.input.capacity() <= KEPT_BYTES);
    }
}

//! Connections: 32 bytes each, found by index and checked by generation.
//!
//! All entries exist from the start; an index is a connection for the whole run, whether it is open
//! or not. A token is `generation << 32 | index`, the user data of epoll; closing counts the generation
//! up, so that an event of a closed socket finds nothing.

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Not opened yet, failed, lost for good, or closed on purpose.
    Closed,
    /// Lost or failed; it will try again.
    Waiting,
    /// `connect` is on its way.
    Opening,
    /// Open and quiet.
    Open,
    /// A message is written in part.
    Writing,
    /// A message is out and its answer has not come.
    Awaiting,
}

/// Bits of [`Conn::flags`].
pub mod flag {
    /// It had been open before and was lost.
    pub const RETURNING: u8 = 1 << 0;
    /// Only the question is sent, for the messages before it.
    pub const QUESTION: u8 = 1 << 1;
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Conn {
    /// The instant that time is counted from: the intended one of the message that is out, of the
    /// opening, or when it was lost while it is returning.
    pub since_ns: u64,
    pub fd: i32,
    pub generation: u32,
    /// Messages sent on it.
    pub sequence: u32,
    /// From `since_ns` to the real send or connect, in microseconds.
    pub delay_us: u32,
    /// Messages sent that no answer stands for yet.
    pub unanswered: u16,
    /// Bytes of the message that are written, or of the answer that have come.
    pub done: u16,
    /// Messages that became due while the one before was unanswered.
    pub behind: u8,
    /// Failures in a row.
    pub failures: u8,
    pub state: State,
    pub flags: u8,
}

const _: () = assert!(size_of::<Conn>() <= 32, "two connections share a cache line");

impl Conn {
    const FRESH: Conn = Conn {
        since_ns: 0,
        fd: -1,
        generation: 0,
        sequence: 0,
        delay_us: 0,
        unanswered: 0,
        done: 0,
        behind: 0,
        failures: 0,
        state: State::Closed,
        flags: 0,
    };

    pub fn has(&self, bits: u8) -> bool {
        self.flags & bits != 0
    }

    /// When the message or the `connect` really went.
    pub fn sent_ns(&self) -> u64 {
        self.since_ns + u64::from(self.delay_us) * 1000
    }

    pub fn set_sent(&mut self, now_ns: u64) {
        let delay_us = now_ns.saturating_sub(self.since_ns) / 1000;
        self.delay_us = u32::try_from(delay_us).unwrap_or(u32::MAX);
    }
}

/// All connections of an executor, and how many are in which state.
#[derive(Debug)]
pub struct Slab {
    conns: Vec<Conn>,
    states: [u32; 6],
}

impl Slab {
    pub fn new(connections: u32) -> Slab {
        let mut states = [0; 6];
        states[State::Closed as usize] = connections;
        Slab { conns: vec![Conn::FRESH; connections as usize], states }
    }

    pub fn len(&self) -> u32 {
        self.conns.len() as u32
    }

    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    #[inline]
    pub fn at(&mut self, index: u32) -> &mut Conn {
        &mut self.conns[index as usize]
    }

    pub fn token(&self, index: u32) -> u64 {
        u64::from(self.conns[index as usize].generation) << 32 | u64::from(index)
    }

    /// The index of a token, unless its socket is closed.
    #[inline]
    pub fn find(&self, token: u64) -> Option<u32> {
        let index = token as u32;
        let conn = self.conns.get(index as usize)?;
        (conn.generation == (token >> 32) as u32 && conn.fd >= 0).then_some(index)
    }

    #[inline]
    pub fn set_state(&mut self, index: u32, state: State) {
        let conn = &mut self.conns[index as usize];
        self.states[conn.state as usize] -= 1;
        self.states[state as usize] += 1;
        conn.state = state;
    }

    /// How many are in a state.
    pub fn count(&self, state: State) -> u32 {
        self.states[state as usize]
    }

    /// How many have an open connection.
    pub fn open(&self) -> u32 {
        self.count(State::Open) + self.count(State::Writing) + self.count(State::Awaiting)
    }

    /// Forgets the socket of an entry and gives its descriptor; messages that waited go with it.
    pub fn detach(&mut self, index: u32) -> i32 {
        let conn = &mut self.conns[index as usize];
        conn.generation = conn.generation.wrapping_add(1);
        (conn.unanswered, conn.behind, conn.done) = (0, 0, 0);
        std::mem::replace(&mut conn.fd, -1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_a_closed_socket_finds_nothing() {
        let mut slab = Slab::new(3);
        slab.at(1).fd = 9;
        let token = slab.token(1);
        assert_eq!(slab.find(token), Some(1));
        assert_eq!(slab.detach(1), 9);
        slab.at(1).fd = 10;
        assert_eq!(slab.find(token), None);
        assert_eq!(slab.find(slab.token(1)), Some(1));
        assert_eq!(slab.find(7), None);
    }

    #[test]
    fn states_are_counted() {
        let mut slab = Slab::new(3);
        slab.set_state(0, State::Opening);
        slab.set_state(1, State::Awaiting);
        slab.set_state(0, State::Open);
        assert_eq!(slab.open(), 2);
        assert_eq!((slab.count(State::Closed), slab.count(State::Opening)), (1, 0));
    }
}

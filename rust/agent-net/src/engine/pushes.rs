//! Bodies of pushes being applied: a slice a turn of the loop, the oldest first, then the next.
//!
//! One body may hold a hundred thousand samples. Applied in one go they would keep every other
//! connection of the worker waiting; so a turn of the loop applies one slice of one body, and does
//! not sleep while there are any. The connection is not read meanwhile: requests are answered in
//! order. Bodies are applied to their end even when the sender has gone, unless the worker's time to
//! drain is over.
//!
//! Limits: the bytes of all bodies, counted until they are applied, as `http/body.rs` has them.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::panic::{catch_unwind, AssertUnwindSafe};

use super::Engine;
use crate::conns::Sent;
use crate::http::{Next, Push};
use crate::listen::CloseReason;
use crate::slab::flag;

/// A body and where its answer goes.
pub struct Pushing {
    token: u64,
    address: Option<IpAddr>,
    push: Box<Push>,
}

pub type Pushes = VecDeque<Pushing>;

impl Engine {
    /// A body has more than one slice: it waits for its next turn, and its connection for the answer.
    pub(crate) fn begin_push(&mut self, index: u32, push: Box<Push>, sent: Sent) {
        let (token, address) = (self.conns.slab.token(index), self.conns.at(index).peer().address);
        self.pushes.push_back(Pushing { token, address, push });
        if sent == Sent::Broken {
            return self.close(index, CloseReason::Reset);
        }
        self.conns.side(index).is_pushing = true;
        self.conns.set_flags(index, flag::NO_READ, true);
        self.file(index);
    }

    /// One slice of the body whose turn it is.
    pub(crate) fn go_on_pushing(&mut self) {
        let Some(Pushing { token, address, push }) = self.pushes.pop_front() else { return };
        let now_ms = self.conns.now_ms;
        let mut out = Vec::new();
        // Found again each time: the row may have gone with the connection.
        let peer = self.applier.admission().peer(address, now_ms);
        let (http, applier) = (&mut self.http, &mut self.applier);
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut apply = applier.batch();
            http.apply_more(push, &peer, &mut out, &mut apply, now_ms)
        }));
        let index = self.conns.slab.find(token);
        if let Some(index) = index {
            self.conns.touch(index);
        }
        match (result, index) {
            (Ok(Next::Apply(push)), _) => self.pushes.push_back(Pushing { token, address, push }),
            (Ok(next), Some(index)) => {
                self.conns.side(index).is_pushing = false;
                let sent = self.conns.write(index, &out);
                self.after(index, next, sent);
            }
            (Ok(_), None) => {}
            (Err(_), index) => {
                self.note_panic();
                if let Some(index) = index {
                    self.close(index, CloseReason::Panic);
                }
            }
        }
    }
}

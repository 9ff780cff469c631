//! What happened, counted by reason.
//!
//! The account of messages: `sent = acked + nacked + uncertain + unanswered`. An answer stands for all
//! messages since the one before: a `_nack` says that some of them were not taken. *Uncertain* is a message
//! whose connection was lost, or cut for lateness, before the answer came: the target may have counted
//! it or not.

use std::io;

macro_rules! names {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$inner])* $variant,)* }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The name in reports.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }
    };
}

names! {
    /// What is counted.
    Event {
        /// Connections that opened, those that came back included.
        Opened = "opened",
        /// Of these: had been lost before.
        Reconnected = "reconnected",
        /// Connections that the target ended.
        ClosedByPeer = "closed_by_peer",
        /// Connections that broke: reset, or another error.
        Broken = "broken",
        /// Connections that were cut because an answer did not come in time.
        AckTimedOut = "ack_timed_out",
        /// Connections that were cut because an answer was none.
        AnswerBad = "answer_bad",
        Sent = "messages_sent",
        Acked = "messages_acked",
        Nacked = "nacked",
        Uncertain = "messages_uncertain",
        /// Messages that had to wait for the answer to the one before.
        Deferred = "messages_deferred",
        /// Messages that were due and never sent: their connection was not open.
        Skipped = "messages_skipped",
    }
}

names! {
    /// Why a connection did not open.
    Failure {
        Refused = "refused",
        Reset = "reset",
        TimedOut = "timed_out",
        /// EADDRNOTAVAIL: no port left at the source address, or not an address of this machine.
        NoPort = "no_port",
        /// EMFILE, ENFILE.
        NoFile = "no_file",
        /// ENOBUFS, ENOMEM.
        NoMemory = "no_memory",
        Unreachable = "unreachable",
        /// EACCES, EPERM.
        Forbidden = "forbidden",
        Other = "other",
    }
}

impl Failure {
    pub fn of(error: &io::Error) -> Failure {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => Failure::Refused,
            Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => Failure::Reset,
            Some(libc::ETIMEDOUT) => Failure::TimedOut,
            Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE) => Failure::NoPort,
            Some(libc::EMFILE | libc::ENFILE) => Failure::NoFile,
            Some(libc::ENOBUFS | libc::ENOMEM) => Failure::NoMemory,
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN) => Failure::Unreachable,
            Some(libc::EACCES | libc::EPERM) => Failure::Forbidden,
            _ => Failure::Other,
        }
    }
}

/// Counts since they were last taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    events: [u64; Event::ALL.len()],
    failures: [u64; Failure::ALL.len()],
}

impl Outcome {
    #[inline]
    pub fn count(&mut self, event: Event) {
        self.events[event as usize] += 1;
    }

    pub fn add(&mut self, event: Event, count: u64) {
        self.events[event as usize] += count;
    }

    pub fn fail(&mut self, failure: Failure) {
        self.failures[failure as usize] += 1;
    }

    /// The events that happened.
    pub fn events(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        named(Event::ALL.iter().map(|event| event.name()), &self.events)
    }

    /// The failures that happened.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        named(Failure::ALL.iter().map(|failure| failure.name()), &self.failures)
    }
}

fn named<'a>(
    names: impl Iterator<Item = &'static str> + 'a,
    counts: &'a [u64],
) -> impl Iterator<Item = (&'static str, u64)> + 'a {
    names.zip(counts.iter().copied()).filter(|(_, count)| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_told_by_name_and_the_rest_is_not() {
        let mut outcome = Outcome::default();
        outcome.count(Event::Acked);
        outcome.count(Event::Acked);
        outcome.fail(Failure::of(&io::Error::from_raw_os_error(libc::EMFILE)));
        assert_eq!(outcome.events().collect::<Vec<_>>(), [("messages_acked", 2)]);
        assert_eq!(outcome.failures().collect::<Vec<_>>(), [("no_file", 1)]);
    }

    #[test]
    fn every_error_of_a_connect_has_a_reason() {
        for (code, wanted) in [
            (libc::ECONNREFUSED, "refused"),
            (libc::ECONNRESET, "reset"),
            (libc::ETIMEDOUT, "timed_out"),
            (libc::EADDRNOTAVAIL, "no_port"),
            (libc::ENOBUFS, "no_memory"),
            (libc::EHOSTUNREACH, "unreachable"),
            (libc::EPERM, "forbidden"),
            (libc::EINVAL, "other"),
        ] {
            assert_eq!(Failure::of(&io::Error::from_raw_os_error(code)).name(), wanted);
        }
    }
}

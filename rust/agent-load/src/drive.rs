//! The loop of an executor: one thread, one epoll instance.
//!
//! A turn: open what is due, send what is due, both within a bound; wait until something is ready or
//! due; handle it. Sockets are registered once, edge-triggered for both directions: that a connection
//! is open, that an answer came, that the peer left are each one event, and no message costs a change
//! of the registration. An answer is shorter than the buffer, so one `recv` takes it and shows that
//! there is no more; only after the end of a stream is it read until it says so.
//!
//! Deadlines need no timers: a sweep looks at each connection once a second. Connections that wait to
//! try again are the exception, in a heap by time: there are none in a quiet run.

mod message;
mod open;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::time::Duration;

use crate::order::{Heard, Order, Orders};
use crate::outcome::Event;
use crate::plan::Plan;
use crate::protocol::Protocol;
use crate::report::{Record, Report};
use crate::schedule::{Openings, Rounds, SECOND_NS};
use crate::slab::{Slab, State};
use crate::system::{self, Epoll, RawAddress, Ready};

/// Of what a turn does before it looks at the sockets again.
const OPENS_A_TURN: usize = 64;
const SENDS_A_TURN: usize = 64;
const CLOSES_A_TURN: u32 = 512;
/// Parts of a sweep; each waits for its tick.
const SWEEP_PARTS: u32 = 10;
const TICK_NS: u64 = SECOND_NS / SWEEP_PARTS as u64;
/// Bytes taken with one read.
const READ_BYTES: usize = 16 << 10;
/// How long the last lines may wait for the controller.
const LAST_LINES_MAX: Duration = Duration::from_secs(10);

/// No index has all bits set: there are fewer connections.
const CONTROL: u64 = u64::MAX;

/// Exit codes of an executor.
const EXIT_GOOD: i32 = 0;
const EXIT_BUG: i32 = 70;
const EXIT_PLAN: i32 = 78;

/// What is to be told once it is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Nothing,
    Opened,
    /// All are asked about what is unanswered, up to the next one.
    Quiet {
        next: u32,
    },
    Closed {
        with_reset: bool,
        next: u32,
    },
}

struct Executor {
    plan: Plan,
    target: RawAddress,
    protocol: Protocol,
    slab: Slab,
    epoll: Epoll,
    orders: Orders,
    report: Report,
    record: Record,
    buffer: Vec<u8>,
    /// When the last wait ended.
    now_ns: u64,
    begin_ns: Option<u64>,
    /// The second that the next line of figures is about.
    second: u64,
    openings: Option<Openings>,
    /// How many it has opened, and which it looks at next.
    opened: u32,
    next: u32,
    rounds: Option<Rounds>,
    /// Of the newest schedule, which may be over.
    interval_ns: u64,
    /// Instants at which lost connections try again: `(ns, index, generation)`.
    retries: BinaryHeap<Reverse<(u64, u32, u32)>>,
    awaited: Awaited,
    swept: u32,
    tick_ns: u64,
}

/// Carries out a plan, given as JSON; gives the exit code. What went wrong is told on the report pipe.
pub fn run_executor(plan: &[u8]) -> i32 {
    let plan = match Plan::from_json(plan) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("executor: {error}");
            return EXIT_PLAN;
        }
    };
    let report_fd = plan.report_fd;
    match Executor::new(plan).and_then(|mut executor| executor.run()) {
        Ok(()) => EXIT_GOOD,
        Err(error) => {
            if let Ok(mut report) = Report::new(report_fd) {
                report.event("failed", &error.to_string());
            }
            EXIT_BUG
        }
    }
}

impl Executor {
    fn new(plan: Plan) -> io::Result<Executor> {
        system::raise_file_limit()?;
        let epoll = Epoll::new()?;
        let orders = Orders::new(plan.control_fd)?;
        epoll.add_pipe(plan.control_fd, CONTROL)?;
        let now_ns = system::now_ns();
        Ok(Executor {
            target: RawAddress::new(plan.target),
            protocol: Protocol::new(&plan),
            slab: Slab::new(plan.connections),
            epoll,
            orders,
            report: Report::new(plan.report_fd)?,
            record: Record::default(),
            buffer: vec![0; READ_BYTES],
            now_ns,
            begin_ns: None,
            second: 0,
            openings: None,
            opened: 0,
            next: 0,
            rounds: None,
            interval_ns: 0,
            retries: BinaryHeap::new(),
            awaited: Awaited::Nothing,
            swept: 0,
            tick_ns: now_ns,
            plan,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        self.report.event("ready", "");
        let mut ready = Vec::new();
        loop {
            self.open_due();
            self.send_due();
            self.epoll.wait(self.timeout_ns(), &mut ready)?;
            self.now_ns = system::now_ns();
            for event in &ready {
                if event.token == CONTROL {
                    if !self.obey()? {
                        return Ok(());
                    }
                } else {
                    self.handle(event);
                }
            }
            self.tick();
        }
    }

    /// How long nothing is due.
    fn timeout_ns(&self) -> u64 {
        let now_ns = system::now_ns();
        let mut until_ns = now_ns + SECOND_NS;
        if let Some(begin_ns) = self.begin_ns {
            until_ns = until_ns.min(begin_ns + (self.second + 1) * SECOND_NS);
        }
        let can_open = self.slab.count(State::Opening) < self.plan.opening_max;
        if let (Some(openings), true) = (&self.openings, can_open) {
            until_ns = until_ns.min(openings.intended_ns(self.opened));
        }
        if let (Some(Reverse((at_ns, _, _))), true) = (self.retries.peek(), can_open) {
            until_ns = until_ns.min(*at_ns);
        }
        if let Some(rounds) = &self.rounds {
            until_ns = until_ns.min(rounds.next_ns());
        }
        if self.has_deadlines() || self.report.is_pending() {
            until_ns = until_ns.min(self.tick_ns);
        }
        match self.awaited {
            Awaited::Closed { .. } => 0,
            Awaited::Quiet { next } if next < self.slab.len() => 0,
            _ => until_ns.saturating_sub(now_ns),
        }
    }

    fn has_deadlines(&self) -> bool {
        let slab = &self.slab;
        slab.count(State::Opening) + slab.count(State::Awaiting) + slab.count(State::Writing) > 0
    }

    fn handle(&mut self, event: &Ready) {
        let Some(index) = self.slab.find(event.token) else { return };
        match self.slab.at(index).state {
            State::Opening if event.failed || event.ended => self.note_opening_error(index),
            State::Opening if event.writable => self.note_open(index),
            State::Opening => return,
            State::Writing if event.writable => self.write_on(index),
            _ => {}
        }
        if event.readable || event.ended || event.failed {
            self.receive(event.token, event.ended || event.failed);
        }
    }

    /// Follows the orders that have come. `false`: it is over.
    fn obey(&mut self) -> io::Result<bool> {
        self.orders.fill();
        loop {
            match self.orders.take() {
                Heard::Nothing => return Ok(true),
                Heard::End => return Ok(false),
                Heard::Nonsense(line) => {
                    return Err(io::Error::other(format!("no order: {line:?}")));
                }
                Heard::Order(Order::Stop) => {
                    self.say("done");
                    self.wait_for_reader();
                    return Ok(false);
                }
                Heard::Order(order) => self.follow(order),
            }
        }
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Begin { at_ns } => (self.begin_ns, self.second) = (Some(at_ns), 0),
            Order::Open { rate, at_ns } => {
                self.openings = Some(Openings { start_ns: at_ns, rate });
                (self.opened, self.next) = (0, 0);
                self.awaited = Awaited::Opened;
            }
            Order::Message { interval_ns, at_ns } => {
                let (connections, seed) = (self.slab.len(), self.plan.seed);
                if interval_ns > 0 {
                    self.interval_ns = interval_ns;
                }
                self.rounds =
                    (interval_ns > 0).then(|| Rounds::new(at_ns, interval_ns, connections, seed));
            }
            Order::Finish => (self.rounds, self.awaited) = (None, Awaited::Quiet { next: 0 }),
            Order::Close { with_reset } => {
                (self.openings, self.rounds) = (None, None);
                self.retries.clear();
                self.awaited = Awaited::Closed { with_reset, next: 0 };
            }
            Order::Stop => {}
        }
    }

    /// What time brings: deadlines, figures, the ends of phases.
    fn tick(&mut self) {
        if self.now_ns >= self.tick_ns {
            self.tick_ns = self.now_ns + TICK_NS;
            self.report.flush();
            if self.has_deadlines() {
                self.sweep();
            }
        }
        match self.awaited {
            Awaited::Quiet { next } => self.awaited = Awaited::Quiet { next: self.ask_some(next) },
            Awaited::Closed { with_reset, next } => self.close_some(with_reset, next),
            _ => {}
        }
        if let Some(begin_ns) = self.begin_ns {
            let elapsed = self.now_ns.saturating_sub(begin_ns) / SECOND_NS;
            if elapsed > self.second {
                self.report.figures(self.second, &mut self.record, &self.slab);
                self.second = elapsed;
            }
        }
        let is_busy = self.slab.count(State::Awaiting) + self.slab.count(State::Writing) > 0;
        let is_opening = self.openings.is_some()
            || self.slab.count(State::Opening) + self.slab.count(State::Waiting) > 0;
        let over = match self.awaited {
            Awaited::Opened if !is_opening => "opened",
            Awaited::Quiet { next } if !is_busy && next == self.slab.len() => "quiet",
            Awaited::Closed { next, .. } if next == self.slab.len() => "closed",
            _ => return,
        };
        self.awaited = Awaited::Nothing;
        self.say(over);
    }

    /// Tells an event, the figures up to it before it.
    fn say(&mut self, event: &str) {
        self.report.figures(self.second, &mut self.record, &self.slab);
        self.report.event(event, "");
    }

    fn wait_for_reader(&mut self) {
        let until_ns = system::now_ns() + LAST_LINES_MAX.as_nanos() as u64;
        while self.report.is_pending() && system::now_ns() < until_ns {
            std::thread::sleep(Duration::from_millis(5));
            self.report.flush();
        }
    }

    /// Looks at the next part of all connections for deadlines that have passed.
    fn sweep(&mut self) {
        let connect_ns = self.plan.connect_timeout().as_nanos() as u64;
        let ack_ns = self.plan.ack_timeout().as_nanos() as u64;
        let end = (self.swept + self.slab.len().div_ceil(SWEEP_PARTS)).min(self.slab.len());
        for index in self.swept..end {
            let conn = self.slab.at(index);
            let waited_ns = self.now_ns.saturating_sub(conn.sent_ns());
            match conn.state {
                State::Opening if waited_ns > connect_ns => self.note_timeout(index),
                State::Awaiting | State::Writing if waited_ns > ack_ns => {
                    self.lose(index, Event::AckTimedOut);
                }
                _ => {}
            }
        }
        self.swept = if end == self.slab.len() { 0 } else { end };
    }

    /// Closes the next connections of all.
    fn close_some(&mut self, with_reset: bool, next: u32) {
        let end = (next + CLOSES_A_TURN).min(self.slab.len());
        for index in next..end {
            self.close(index, with_reset);
        }
        self.awaited = Awaited::Closed { with_reset, next: end };
    }
}

#[cfg(test)]
#[path = "drive_test.rs"]
mod tests;

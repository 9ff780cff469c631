//! The supervisor's socket pair: lines from it, lines to it.
//!
//! ```text
//! supervisor -> child: drain | yield | retire | stop | state {json} | reload {json}
//! child -> supervisor: ready | reloaded | refused WHY | drained | log {json}
//! ```
//!
//! `yield` announces a successor on the same listeners, `retire` says that it is ready.
//!
//! The end of the stream means that the supervisor is gone. Nothing here blocks: what the supervisor
//! does not take waits up to [`PENDING_BYTES_MAX`]; log records beyond that are dropped and counted,
//! the few other lines always fit. A line from the supervisor has at most [`LINE_BYTES_MAX`].

use std::io;
use std::os::fd::RawFd;

use serde_json::json;

pub const LINE_BYTES_MAX: usize = 16 << 20;
pub const PENDING_BYTES_MAX: usize = 256 << 10;

/// What the supervisor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Finish what is begun, then leave; so does everybody, and nobody listens any more.
    Drain,
    /// A successor is being started on the same listeners: leave the gauges to it.
    Yield,
    /// The successor is ready: hand the connections over, leave.
    Retire,
    /// Leave now.
    Stop,
    /// Facts for `/readyz` and the status page.
    State(String),
    /// New settings.
    Reload(String),
    /// The supervisor is gone.
    Gone,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

#[derive(Debug)]
pub struct Control {
    fd: RawFd,
    input: Vec<u8>,
    output: Vec<u8>,
    is_gone: bool,
    logs_dropped: u64,
}

impl Control {
    /// The descriptor stays the caller's; it is made non-blocking. `-1` is a control that is silent.
    pub fn new(fd: RawFd) -> io::Result<Control> {
        if fd >= 0 {
            crate::system::set_nonblocking(fd)?;
        }
        let (input, output) = (Vec::new(), Vec::new());
        Ok(Control { fd, input, output, is_gone: false, logs_dropped: 0 })
    }

    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// Whether there are lines that the supervisor has not taken.
    pub fn is_pending(&self) -> bool {
        !self.output.is_empty()
    }

    /// Log records dropped since the last call.
    pub fn take_logs_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.logs_dropped)
    }

    /// Sends `ready`, `reloaded`, `refused WHY`, `drained`.
    pub fn say(&mut self, line: &str) {
        self.output.extend(line.bytes().map(|byte| if byte == b'\n' { b' ' } else { byte }));
        self.output.push(b'\n');
        self.flush();
    }

    /// Sends a log record.
    pub fn log(&mut self, level: Level, message: &str) {
        if self.fd < 0 {
            return;
        }
        let line = format!("log {}", json!({ "level": level.as_str(), "message": message }));
        if self.output.len() + line.len() > PENDING_BYTES_MAX {
            self.logs_dropped += 1;
        } else {
            self.say(&line);
        }
    }

    /// Writes what waits, as far as it goes.
    pub fn flush(&mut self) {
        if self.fd < 0 || self.is_gone {
            return self.output.clear();
        }
        while !self.output.is_empty() {
            match crate::system::send(self.fd, &self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if crate::system::is_again(&error) => return,
                // The reading side will find the end.
                Err(_) => return self.output.clear(),
            }
        }
    }

    /// Reads what is there. After [`Order::Gone`] there is nothing more.
    pub fn read(&mut self, orders: &mut Vec<Order>) {
        let mut buffer = [0; 16 << 10];
        while !self.is_gone {
            match crate::system::receive(self.fd, &mut buffer) {
                Ok(0) => self.is_gone = true,
                Ok(count) => {
                    self.input.extend_from_slice(&buffer[..count]);
                    self.take_lines(orders);
                    // A line without an end is not the supervisor speaking.
                    self.is_gone |= self.input.len() > LINE_BYTES_MAX;
                }
                Err(error) if crate::system::is_again(&error) => return,
                Err(_) => self.is_gone = true,
            }
        }
        orders.push(Order::Gone);
    }

    fn take_lines(&mut self, orders: &mut Vec<Order>) {
        let Some(end) = memchr::memrchr(b'\n', &self.input) else { return };
        let rest = self.input.split_off(end + 1);
        let lines = std::mem::replace(&mut self.input, rest);
        for line in String::from_utf8_lossy(&lines).lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "drain" => orders.push(Order::Drain),
                "yield" => orders.push(Order::Yield),
                "retire" => orders.push(Order::Retire),
                "stop" => orders.push(Order::Stop),
                "state" => orders.push(Order::State(rest.to_owned())),
                "reload" => orders.push(Order::Reload(rest.to_owned())),
                "" => {}
                _ => {
                    self.log(Level::Warning, &format!("unknown order from the supervisor: {word}"))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn orders_arrive_whole_however_they_are_cut_and_the_end_is_one_too() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let mut control = Control::new(ours.as_raw_fd()).expect("a control");
        let mut orders = Vec::new();
        theirs.write_all(b"state {\"a\": 1}\ndra").expect("room");
        control.read(&mut orders);
        theirs.write_all(b"in\nyield\nretire\nreload {}\nstop\n").expect("room");
        control.read(&mut orders);
        drop(theirs);
        control.read(&mut orders);
        assert_eq!(
            orders,
            [
                Order::State("{\"a\": 1}".into()),
                Order::Drain,
                Order::Yield,
                Order::Retire,
                Order::Reload("{}".into()),
                Order::Stop,
                Order::Gone,
            ]
        );
    }

    #[test]
    fn a_supervisor_that_does_not_listen_costs_logs_and_nothing_else() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut control = Control::new(ours.as_raw_fd()).expect("a control");
        for _ in 0..20_000 {
            control.log(Level::Info, "a message of some length, so that the buffers fill up");
        }
        control.say("drained");
        assert!(control.output.len() <= PENDING_BYTES_MAX + 8);
        let dropped = control.take_logs_dropped();
        assert!(dropped > 0);
        let mut lines = BufReader::new(theirs).lines();
        let mut logs = 0;
        while control.is_pending() || logs + dropped < 20_000 {
            let line = lines.next().expect("a line").expect("readable");
            logs += u64::from(line.starts_with("log {"));
            control.flush();
        }
        assert_eq!(logs + dropped, 20_000);
        assert_eq!(lines.next().expect("a line").expect("readable"), "drained");
    }
}

//! What the controller tells an executor: one line an order, on the control pipe.
//!
//! | line | what it asks for |
//! |---|---|
//! | `begin NS` | seconds of reports count from this instant |
//! | `open RATE NS` | open what is not open from this instant on, RATE a second (0: at once); told by `opened` |
//! | `message INTERVAL_NS NS` | a message per connection and interval from this instant on; 0: no more |
//! | `finish` | no new messages; `quiet` tells that all answers are there |
//! | `close fin`, `close reset` | close everything; told by `closed` |
//! | `stop` | the last report, `done`, and leave |
//!
//! Instants are CLOCK_MONOTONIC in nanoseconds: the same for all executors of a machine. The end of
//! the pipe means that the controller is gone, and ends the executor.

use std::io;

use crate::system;

/// Bytes of a line; an order is far shorter.
const LINE_BYTES_MAX: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Order {
    Begin { at_ns: u64 },
    Open { rate: f64, at_ns: u64 },
    Message { interval_ns: u64, at_ns: u64 },
    Finish,
    Close { with_reset: bool },
    Stop,
}

impl Order {
    /// `None` when the line is no order.
    pub fn parse(line: &str) -> Option<Order> {
        let mut words = line.split_ascii_whitespace();
        let mut next = || words.next();
        let order = match next()? {
            "begin" => Order::Begin { at_ns: next()?.parse().ok()? },
            "open" => {
                let rate: f64 = next()?.parse().ok()?;
                if !rate.is_finite() || rate < 0.0 {
                    return None;
                }
                Order::Open { rate, at_ns: next()?.parse().ok()? }
            }
            "message" => {
                let interval_ns = next()?.parse().ok()?;
                Order::Message { interval_ns, at_ns: next()?.parse().ok()? }
            }
            "finish" => Order::Finish,
            "close" => match next()? {
                "fin" => Order::Close { with_reset: false },
                "reset" => Order::Close { with_reset: true },
                _ => return None,
            },
            "stop" => Order::Stop,
            _ => return None,
        };
        next().is_none().then_some(order)
    }
}

/// What reading the pipe gave.
#[derive(Debug, PartialEq)]
pub enum Heard {
    Order(Order),
    /// No whole line.
    Nothing,
    /// The controller is gone.
    End,
    /// A line that is no order: the two sides disagree.
    Nonsense(String),
}

/// The control pipe.
#[derive(Debug)]
pub struct Orders {
    fd: i32,
    held: Vec<u8>,
    has_ended: bool,
}

impl Orders {
    pub fn new(fd: i32) -> io::Result<Orders> {
        system::set_nonblocking(fd)?;
        Ok(Orders { fd, held: Vec::new(), has_ended: false })
    }

    /// Takes what has come.
    pub fn fill(&mut self) {
        let mut buffer = [0; 1024];
        match system::read(self.fd, &mut buffer) {
            Ok(0) => self.has_ended = true,
            Ok(count) => self.held.extend_from_slice(&buffer[..count]),
            Err(error) if system::is_again(&error) => {}
            Err(_) => self.has_ended = true,
        }
    }

    /// The next of what has come.
    pub fn take(&mut self) -> Heard {
        let Some(end) = self.held.iter().position(|&byte| byte == b'\n') else {
            return match self.has_ended || self.held.len() > LINE_BYTES_MAX {
                true => Heard::End,
                false => Heard::Nothing,
            };
        };
        let line = String::from_utf8_lossy(&self.held[..end]).into_owned();
        self.held.drain(..=end);
        match Order::parse(&line) {
            Some(order) => Heard::Order(order),
            None => Heard::Nonsense(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_understood() {
        for (line, order) in [
            ("begin 5", Order::Begin { at_ns: 5 }),
            ("open 12.5 7", Order::Open { rate: 12.5, at_ns: 7 }),
            ("message 0 9", Order::Message { interval_ns: 0, at_ns: 9 }),
            ("finish", Order::Finish),
            ("close reset", Order::Close { with_reset: true }),
            ("close fin", Order::Close { with_reset: false }),
            ("stop", Order::Stop),
        ] {
            assert_eq!(Order::parse(line), Some(order), "{line}");
        }
    }

    #[test]
    fn what_is_no_order_is_told_so() {
        for line in ["", "open", "open x 1", "open nan 1", "open -1 1", "close", "stop now", "go"] {
            assert_eq!(Order::parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn lines_may_come_in_pieces_and_the_end_comes_last() {
        let mut ends = [0; 2];
        // SAFETY: the array has room for the two descriptors.
        assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
        let mut orders = Orders::new(ends[0]).unwrap();
        let say = |text: &str, orders: &mut Orders| {
            system::write(ends[1], text.as_bytes()).unwrap();
            orders.fill();
        };
        say("fin", &mut orders);
        assert_eq!(orders.take(), Heard::Nothing);
        say("ish\nstop\nwhat\n", &mut orders);
        assert_eq!(orders.take(), Heard::Order(Order::Finish));
        assert_eq!(orders.take(), Heard::Order(Order::Stop));
        assert_eq!(orders.take(), Heard::Nonsense("what".to_owned()));
        assert_eq!(orders.take(), Heard::Nothing);
        system::close(ends[1]);
        orders.fill();
        assert_eq!(orders.take(), Heard::End);
        system::close(ends[0]);
    }
}

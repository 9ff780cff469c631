//! How many connections all workers have together, and whether one of them has no room for more.
//!
//! Each worker, and the desk, shows its own number in a gauge of the collector's segment, at once. Before
//! a batch of new connections it adds all numbers up and may take its part of the seats that are left; when
//! those are taken it adds up again. There is no fixed share: the kernel deals connections out by chance,
//! and those of a worker that died come back to the others.
//!
//! The supervisor sets the number of a dead worker to zero. While a worker hands its connections over,
//! what it still has is not counted, because its successor owns the gauge.
//!
//! Whoever finds memory full shows that too, and the desk, which is asked for `/readyz`, looks at all.
//!
//! Connections on their way from the desk to a worker stand in a number of their own: the desk adds one
//! before it sends it, the worker takes one off before it counts it.
//!
//! How many connections were ever accepted stands in one number that all of them count up; the room in
//! memory is an account of it, see [`crate::memory::Room`].
//!
//! Not promised: exactness in a race. A worker that is killed between these two leaves one too many.
//! Workers that look at the same moment may all take the last seat, so the sum may be over the limit by
//! the number of workers.

use agent_shm::Writer;

use crate::place::Place;
use crate::telemetry::{Own, SelfMetric};

/// The numbers of all workers, as one of them sees them.
pub struct Seats {
    all: Vec<Own>,
    full: Vec<Own>,
    passing: Own,
    accepted: Own,
    own: usize,
}

impl Seats {
    pub fn new(place: Place, workers: u32) -> Seats {
        // A worker alone, as in tests, may have a number beyond `workers`.
        let workers = match place {
            Place::Worker(number) => workers.max(number + 1),
            Place::Desk => workers,
        };
        let of_all = |metric| {
            let places = (0..workers).map(Place::Worker).chain([Place::Desk]);
            places.map(|place| Own::new(metric, label(place))).collect()
        };
        Seats {
            all: of_all(SelfMetric::WorkerConnections),
            full: of_all(SelfMetric::MemoryFull),
            passing: Own::new(SelfMetric::DeskPassing, String::new()),
            accepted: Own::new(SelfMetric::ConnectionsAccepted, String::new()),
            own: place.index(workers as usize),
        }
    }

    /// Shows how many connections this worker has.
    pub fn note(&mut self, writer: &Writer, connections: u32) {
        self.all[self.own].set(writer, f64::from(connections));
    }

    /// Shows whether this worker refuses connections for want of memory.
    pub fn note_full(&mut self, writer: &Writer, is_full: bool) {
        self.full[self.own].set(writer, f64::from(u8::from(is_full)));
    }

    /// Whether any worker does.
    pub fn is_any_full(&mut self, writer: &Writer) -> bool {
        self.full.iter_mut().any(|gauge| gauge.get(writer) > 0.0)
    }

    /// How many the process of this place has.
    pub fn of(&mut self, writer: &Writer, place: Place) -> u32 {
        let index = place.index(self.all.len() - 1);
        self.all[index].get(writer).max(0.0) as u32
    }

    /// How many the others have.
    pub fn others(&mut self, writer: &Writer) -> u32 {
        let own = self.own;
        let others = self.all.iter_mut().enumerate().filter(|(worker, _)| *worker != own);
        let there: u32 = others.map(|(_, gauge)| gauge.get(writer).max(0.0) as u32).sum();
        there.saturating_add(self.passing.get(writer).max(0.0) as u32)
    }

    /// How many connections all processes have ever accepted.
    pub fn accepted(&mut self, writer: &Writer) -> u64 {
        self.accepted.get(writer).max(0.0) as u64
    }

    /// One more is accepted.
    pub fn note_accepted(&mut self, writer: &Writer) {
        self.accepted.shift(writer, 1.0);
    }

    /// The first desk of a collector: its doors are new, whatever the segment says of the last one's.
    pub fn none_is_passing(&mut self, writer: &Writer) {
        self.passing.set(writer, 0.0);
    }

    /// A connection sets out from the desk (1), or has come to its worker or back (-1).
    pub fn note_passing(&mut self, writer: &Writer, by: i32) {
        self.passing.shift(writer, f64::from(by));
    }
}

/// The process of this place is dead: it has none, and refuses nobody.
pub fn vacate(writer: &Writer, place: Place) {
    for metric in [SelfMetric::WorkerConnections, SelfMetric::MemoryFull] {
        Own::new(metric, label(place)).set(writer, 0.0);
    }
}

fn label(place: Place) -> String {
    format!("worker=\"{place}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_shm::{Options, Segment};

    #[test]
    fn every_worker_sees_the_numbers_of_the_others_and_a_dead_one_has_none() {
        let segment = Segment::private("agent", &Options::default());
        let writers: Vec<Writer> = (0..3).map(|_| segment.writer().expect("a slot")).collect();
        let mut seats: Vec<Seats> =
            (0..3).map(|worker| Seats::new(Place::Worker(worker), 3)).collect();
        assert_eq!(seats[0].others(&writers[0]), 0);
        for (worker, own) in seats.iter_mut().enumerate() {
            own.note(&writers[worker], 10 + worker as u32);
        }
        assert_eq!(seats[0].others(&writers[0]), 23);
        assert_eq!(seats[2].others(&writers[2]), 21);
        seats[0].note_passing(&writers[0], 2);
        seats[1].note_passing(&writers[1], -1);
        assert_eq!(seats[0].others(&writers[0]), 24);
        seats[1].note_passing(&writers[1], -1);
        seats[0].note_passing(&writers[0], 1);
        seats[0].none_is_passing(&writers[0]);
        assert_eq!(seats[0].others(&writers[0]), 23);
        seats[0].note_accepted(&writers[0]);
        seats[1].note_accepted(&writers[1]);
        assert_eq!(seats[2].accepted(&writers[2]), 2);
        seats[2].note_full(&writers[2], true);
        assert!(seats[1].is_any_full(&writers[1]));
        vacate(&writers[0], Place::Worker(2));
        assert_eq!(seats[0].others(&writers[0]), 11);
        assert!(!seats[1].is_any_full(&writers[1]));
    }
}

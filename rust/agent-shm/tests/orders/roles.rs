//! The five roles around one series: who adds to it, who reclaims, who expires, who reads, and who recovers what a
//! killed writer left. Each can run in a thread of its own, and each that has a slot can be killed.

use crate::world::*;
use agent_shm::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Writer,
    Reclaimer,
    Expirer,
    Reader,
    Recoverer,
}

/// What a role knows when it is done.
#[derive(Debug, Default)]
pub struct Done {
    /// It was killed: what it did is in or out.
    pub died: bool,
    pub expired: u64,
    /// Totals of `a` that were seen on pages.
    pub seen: Vec<u64>,
}

/// What was counted in `a` before the roles begin.
pub const BEFORE: u64 = 3;

/// A segment with the series `a`, idle for long; a removed one, `z`, whose memory waits; and a slot whose owner was
/// killed while it made the series `d`.
pub struct Stage {
    pub segment: Segment,
    metric: MetricId,
    is_counter: bool,
    /// That hang below a series with a value.
    parts: usize,
    series: Series,
    expirer: Expirer,
    writers: [Option<Writer>; 3],
}

pub type Act = Box<dyn FnOnce() -> Done + Send>;

impl Stage {
    /// `steps` of the killed writer; without it nobody was killed. Nothing when it lives longer than that.
    pub fn new(shape: Shape<'_>, pages: u64, steps: Option<u64>) -> Option<Stage> {
        let segment = segment(pages, 4);
        let [one, two, three, victim] = [0; 4].map(|_| segment.writer().unwrap());
        let metric = metric(&one, shape);
        let is_counter = shape == Shape::Counter;
        let parts = if matches!(shape, Shape::Exponential { .. }) { 2 } else { 0 };
        let series = one.series(metric, "a").unwrap();
        applied(count(&one, &series, is_counter, BEFORE));
        let removed = one.series(metric, "z").unwrap();
        applied(count(&one, &removed, is_counter, 1));
        let mut expirer = Expirer::default();
        for now in [0, 1, 10] {
            expirer.run(&three, now, 10, |_| false);
        }
        assert!(two.remove(metric, "z"));
        assert!(two.reclaim_now().passed);
        if let Some(steps) = steps {
            let slot = victim.slot();
            if live_for(steps, move || drop(victim.series(metric, "d"))).is_some() {
                return None;
            }
            segment.bury(slot);
        }
        let writers = [one, two, three].map(Some);
        Some(Stage { segment, metric, is_counter, parts, series, expirer, writers })
    }

    /// How many blocks a pass recovers, and whether the series of the killed writer is there then.
    #[cfg(loom)]
    pub fn left(&mut self) -> (u64, bool) {
        let writer = self.writer(1);
        let recovered = writer.reclaim_now().recovered;
        (recovered, writer.find(self.metric, "d").is_some())
    }

    fn writer(&mut self, index: usize) -> Writer {
        self.writers[index].take().expect("each role once")
    }

    pub fn act(&mut self, role: Role) -> Act {
        let (metric, is_counter) = (self.metric, self.is_counter);
        let segment = self.segment.clone();
        match role {
            Role::Writer => {
                let (writer, series) = (self.writer(0), self.series.clone());
                Box::new(move || {
                    let mut series = series;
                    while count(&writer, &series, is_counter, 1) == Outcome::Stale {
                        thread::yield_now();
                        series = writer.series(metric, "a").unwrap();
                    }
                    Done::default()
                })
            }
            Role::Reclaimer => {
                let writer = self.writer(1);
                Box::new(move || {
                    writer.reclaim_now();
                    Done::default()
                })
            }
            Role::Expirer => {
                let writer = self.writer(2);
                let mut expirer = std::mem::take(&mut self.expirer);
                Box::new(move || {
                    let expired = expirer.run(&writer, 20, 10, |_| true);
                    Done { expired, ..Done::default() }
                })
            }
            Role::Reader => Box::new(move || {
                let mut seen = Vec::new();
                for (labels, total, sum) in totals(segment.view()) {
                    assert_eq!(sum, if is_counter { 0.0 } else { 1.5 * total as f64 }, "{labels}");
                    match labels.as_str() {
                        "a" => seen.push(total),
                        "d" => assert_eq!(total, 0, "nobody adds to it"),
                        other => panic!("{other} is on the page"),
                    }
                }
                Done { seen, ..Done::default() }
            }),
            Role::Recoverer => Box::new(move || {
                // The slot of the killed one is the first that is free.
                let writer = segment.writer().unwrap();
                writer.reclaim_now();
                Done::default()
            }),
        }
    }

    /// As [`Stage::act`], killed after so many steps.
    #[cfg(shuttle)]
    pub fn act_and_die(&mut self, role: Role, steps: u64) -> Act {
        let act = self.act(role);
        let segment = self.segment.clone();
        let slot = match role {
            Role::Writer => 0,
            Role::Reclaimer => 1,
            Role::Expirer => 2,
            Role::Reader | Role::Recoverer => return act,
        };
        Box::new(move || {
            live_for(steps, act).unwrap_or_else(|| {
                segment.bury(slot);
                Done { died: true, ..Done::default() }
            })
        })
    }

    /// What must be true when all roles are done.
    pub fn check(self, done: &[(Role, Done)]) {
        let of = |role| done.iter().find(|(other, _)| *other == role).map(|(_, done)| done);
        let may = |done: Option<&Done>, sure: u64| match done {
            None => 0..=0,
            Some(Done { died: true, .. }) => 0..=1,
            Some(_) => sure..=sure,
        };
        let added = may(of(Role::Writer), 1);
        let expired = may(of(Role::Expirer), of(Role::Expirer).map_or(0, |done| done.expired));
        assert!(*expired.end() <= 1, "expired {expired:?} times");
        // It died before the add, which then made it anew.
        let total = |expired: u64, added: u64| if expired == 1 { added } else { BEFORE + added };
        let right = |shown: u64| {
            expired.clone().any(|expired| added.clone().any(|added| total(expired, added) == shown))
        };
        let last = self.segment.writer().unwrap();
        // Whatever the killed one left is recovered by now, or will be.
        last.reclaim_now();
        let there = totals(self.segment.view());
        let shown = |labels: &str| there.iter().find(|series| series.0 == labels).map(|s| s.1);
        let a = shown("a").unwrap_or(0);
        assert!(right(a), "{a} is counted; expired {expired:?}, added {added:?}");
        assert_eq!(shown("d").unwrap_or(0), 0);
        assert_eq!(shown("z"), None);
        for seen in done.iter().flat_map(|(_, done)| &done.seen) {
            assert!([0, 1, BEFORE, BEFORE + 1].contains(seen), "{seen} on a page");
        }
        drop(self.writers);
        // The metric, its overflow series, what is there, and the parts of it; who was killed may have made parts only.
        let counted = there.iter().filter(|series| series.1 > 0).count();
        let (least, most) = (self.parts * counted, self.parts * there.len());
        settle(&self.segment, &last, 2 + there.len() + least..=2 + there.len() + most);
    }
}

fn count(writer: &Writer, series: &Series, is_counter: bool, n: u64) -> Outcome {
    match is_counter {
        true => writer.add(series, n),
        false => writer.observe(series, 1.5, n),
    }
}

//! Every three of the five roles, each in a thread of its own.

use crate::roles::*;
use crate::world::*;
use agent_shm::Shape;
use std::sync::{Arc, Mutex};

/// After so many steps of its life a writer that makes a series is killed: with the block filled in and not in its
/// chain yet, and hanging in its chain but not declared.
fn deaths() -> [u64; 2] {
    static FOUND: Mutex<Option<[u64; 2]>> = Mutex::new(None);
    let mut found = FOUND.lock().unwrap();
    *found.get_or_insert_with(|| {
        let (mut filled, mut hanging) = (None, None);
        for steps in 0.. {
            match left_by_a_death_after(steps) {
                None => break,
                Some((1, false)) => filled = Some(steps),
                Some((1, true)) => hanging = hanging.or(Some(steps)),
                Some(_) => {}
            }
        }
        [filled.expect("a claim"), hanging.expect("a series that hangs")]
    })
}

/// What such a death leaves; nothing when the writer lives longer.
fn left_by_a_death_after(steps: u64) -> Option<(u64, bool)> {
    let result = Arc::new(Mutex::new(None));
    let same = result.clone();
    once(move || {
        *same.lock().unwrap() =
            Stage::new(Shape::Counter, 3, Some(steps)).map(|mut stage| stage.left());
    });
    let result = result.lock().unwrap();
    *result
}

/// `AGENT_FIRST=1` or `2`: another one of the three runs first, unless it is preempted. Why that matters: see `explore`.
fn trio(mut roles: [Role; 3], preemptions_max: usize) {
    let first = std::env::var("AGENT_FIRST").map_or(0, |text| text.parse().expect("a number"));
    roles.rotate_right(first);
    let cases: Vec<Option<u64>> = match roles.contains(&Role::Recoverer) {
        true => deaths().map(Some).to_vec(),
        false => vec![None],
    };
    for steps in cases {
        explore(Some(preemptions_max), move || {
            let mut stage = Stage::new(Shape::Counter, 3, steps).expect("a death that was found");
            let [one, two, three] = roles.map(|role| stage.act(role));
            let others = [spawn_first(one), spawn_next(two)];
            let three = three();
            let [one, two] = others.map(|other| other.join().unwrap());
            stage.check(&[(roles[0], one), (roles[1], two), (roles[2], three)]);
        });
    }
}

macro_rules! trios {
    ($($(#[$mark:meta])* $name:ident: $one:ident $two:ident $three:ident, $bound:literal;)*) => {
        $(#[test]
        $(#[$mark])*
        fn $name() {
            trio([Role::$one, Role::$two, Role::$three], $bound);
        })*
    };
}

// The last one of each runs first, unless it is preempted. Bounds are those that were seen to end, or one more where the
// numbers of orders say that it does. Where the one who expires meets the one who reclaims or recovers, both move the epoch,
// and every value of it that a weak ordering permits is another order: these are for `make orders`. With 2 preemptions
// writer_expirer_recoverer had 79,462 orders for the first of its two deaths, and no end within a minute of a processor for both.
trios! {
    writer_reclaimer_reader: Reclaimer Reader Writer, 3;
    writer_reclaimer_recoverer: Reclaimer Recoverer Writer, 2;
    writer_expirer_reader: Expirer Reader Writer, 3;
    writer_expirer_recoverer: Expirer Recoverer Writer, 1;
    writer_reader_recoverer: Reader Recoverer Writer, 2;
    reclaimer_reader_recoverer: Reader Recoverer Reclaimer, 2;
    #[ignore = "minutes to hours: make orders"]
    writer_reclaimer_expirer: Reclaimer Expirer Writer, 1;
    #[ignore = "minutes to hours: make orders"]
    reclaimer_expirer_reader: Expirer Reader Reclaimer, 1;
    #[ignore = "minutes to hours: make orders"]
    reclaimer_expirer_recoverer: Expirer Recoverer Reclaimer, 1;
    #[ignore = "minutes to hours: make orders"]
    expirer_reader_recoverer: Reader Recoverer Expirer, 1;
}

//! Two or three writers, and each protocol between them.

use crate::world::*;
use agent_shm::*;

#[test]
fn two_writers_insert_the_same_key() {
    explore_pair(Some(2), || {
        let segment = segment(3, 2);
        let (one, two) = (segment.writer().unwrap(), segment.writer().unwrap());
        let metric = metric(&one, Shape::Counter);
        let other = spawn(move || add(&two, metric, "a", 1));
        add(&one, metric, "a", 2);
        other.join().unwrap();
        assert_eq!(totals(segment.view()), [("a".into(), 3, 0.0)]);
        assert_eq!(segment.usage().series, 1);
        assert_eq!(one.reclaim_now(), Reclaimed { passed: true, ..Reclaimed::default() });
    });
}

#[test]
fn two_writers_insert_different_keys_of_one_chain() {
    explore_pair(Some(2), || {
        let segment = segment(3, 2);
        let (one, two) = (segment.writer().unwrap(), segment.writer().unwrap());
        let metric = metric(&one, Shape::Counter);
        let other = spawn(move || add(&two, metric, "b", 1));
        add(&one, metric, "a", 2);
        other.join().unwrap();
        assert_eq!(totals(segment.view()), [("a".into(), 2, 0.0), ("b".into(), 1, 0.0)]);
    });
}

#[test]
fn one_writer_removes_what_the_other_inserts_beside() {
    explore_pair(Some(3), || {
        let segment = segment(3, 2);
        let (one, two) = (segment.writer().unwrap(), segment.writer().unwrap());
        let metric = metric(&one, Shape::Counter);
        add(&one, metric, "a", 1);
        let other = spawn(move || {
            assert!(two.remove(metric, "a"));
        });
        add(&one, metric, "b", 2);
        other.join().unwrap();
        assert_eq!(totals(segment.view()), [("b".into(), 2, 0.0)]);
    });
}

#[test]
fn two_writers_remove_neighbours() {
    explore_pair(Some(2), || {
        let segment = segment(3, 2);
        let (one, two) = (segment.writer().unwrap(), segment.writer().unwrap());
        let metric = metric(&one, Shape::Counter);
        add(&one, metric, "a", 1);
        add(&one, metric, "b", 2);
        let other = spawn(move || assert!(two.remove(metric, "a")));
        assert!(one.remove(metric, "b"));
        other.join().unwrap();
        assert_eq!(totals(segment.view()), []);
        assert_eq!(segment.usage().series, 0);
        assert_eq!((0..4).map(|_| one.reclaim_now().freed).sum::<u64>(), 2);
    });
}

#[test]
fn a_search_passes_an_entry_that_is_retired_under_its_feet() {
    explore_pair(Some(3), || {
        let segment = segment(3, 2);
        let (one, two) = (segment.writer().unwrap(), segment.writer().unwrap());
        let metric = metric(&one, Shape::Counter);
        add(&one, metric, "b", 1);
        add(&one, metric, "a", 1);
        let other = spawn(move || {
            assert!(two.remove(metric, "a"));
            two.reclaim_now();
        });
        applied(one.add(&one.series(metric, "b").unwrap(), 1));
        other.join().unwrap();
        assert_eq!(totals(segment.view()), [("b".into(), 2, 0.0)]);
    });
}

#[test]
fn memory_is_not_given_to_another_series_while_somebody_adds() {
    explore_pair(Some(3), || {
        let segment = segment(3, 9);
        let (one, two) = (segment.writer().unwrap(), segment.writer().unwrap());
        adds_never_land_in_the_next_series(&segment, &one, two);
    });
}

fn adds_never_land_in_the_next_series(segment: &Segment, one: &Writer, two: Writer) {
    let metric = metric(one, Shape::Counter);
    let old = one.series(metric, "a").unwrap();
    applied(one.add(&old, 5));
    // The page is full: the next series gets the memory of the old one or none.
    (1..4).for_each(|n| drop(one.series(metric, &format!("{n}")).unwrap()));
    let other = spawn(move || {
        assert!(two.remove(metric, "a"));
        assert!((0..3).all(|_| two.reclaim_now().passed));
        let new = two.series(metric, "b").unwrap();
        applied(two.add(&new, 10));
        new.id()
    });
    // Lost with the series that is removed, or stale: never in the new one.
    let _ = one.add(&old, 1);
    let new = other.join().unwrap();
    let there: Vec<_> = totals(segment.view()).into_iter().filter(|series| series.1 > 0).collect();
    let reused = new.offset == old.id().offset;
    let labels = if reused { "b" } else { OVERFLOW_LABELS };
    assert_eq!(there, [(labels.into(), 10, 0.0)]);
}

/// A third writer holds up the pass in which the series is retired, so that the one who adds has the epoch of that pass:
/// what the model after this one reaches by three threads, by two.
#[test]
fn memory_is_not_given_away_when_a_pass_was_held_up() {
    explore_pair(Some(2), || {
        let segment = segment(3, 9);
        let [one, two, stopped] = [0; 3].map(|_| segment.writer().unwrap());
        let metric = metric(&one, Shape::Counter);
        let old = one.series(metric, "a").unwrap();
        (1..4).for_each(|n| drop(one.series(metric, &format!("{n}")).unwrap()));
        // It stops inside an operation, whose epoch is that of now, and then the epoch moves on once.
        let slot = stopped.slot();
        assert!(live_for(STEPS_INSIDE, move || drop(stopped.find(metric, "a"))).is_none());
        assert!(two.reclaim_now().passed);
        let same = segment.clone();
        let reclaimer = spawn(move || {
            assert!(two.remove(metric, "a"));
            assert!(two.reclaim_now().passed);
            same.bury(slot);
            assert!((0..2).all(|_| two.reclaim_now().passed));
            let new = two.series(metric, "b").unwrap();
            applied(two.add(&new, 10));
        });
        let _ = one.add(&old, 1);
        reclaimer.join().unwrap();
        let there = totals(segment.view());
        let new = there.iter().filter(|series| ["b", OVERFLOW_LABELS].contains(&&*series.0));
        assert_eq!(new.map(|series| series.1).sum::<u64>(), 10);
    });
}

/// So far the mark of an operation is set, and it has not left.
const STEPS_INSIDE: u64 = 6;

/// A new owner relies on a barrier that the one who advances does not have: it is seen, or it sees what was unlinked.
#[test]
fn who_cannot_execute_barriers_for_others_waits_for_a_new_owner_that_relies_on_them() {
    explore_pair(Some(2), || {
        lose_membarrier(false);
        let segment = segment(3, 9);
        let one = segment.writer().unwrap();
        let metric = metric(&one, Shape::Counter);
        let old = one.series(metric, "a").unwrap();
        (1..4).for_each(|n| drop(one.series(metric, &format!("{n}")).unwrap()));
        lose_membarrier(true);
        let other = spawn(move || {
            assert!(one.remove(metric, "a"));
            assert!((0..3).all(|_| one.reclaim_now().passed));
            let new = one.series(metric, "b").unwrap();
            applied(one.add(&new, 10));
            (new.id().offset, one)
        });
        let relies = segment.writer().unwrap();
        let _ = relies.add(&old, 1);
        drop(relies);
        let (offset, _one) = other.join().unwrap();
        let there = totals(segment.view());
        let labels = if offset == old.id().offset { "b" } else { OVERFLOW_LABELS };
        let new = there.iter().find(|series| series.0 == labels).map(|series| series.1);
        assert_eq!(new, Some(10));
    });
}

/// A reader is in no epoch: while it reads, the memory may become that of another series.
#[test]
fn a_page_never_shows_a_series_with_the_value_of_another() {
    explore_pair(Some(2), || {
        let segment = segment(3, 9);
        let writer = segment.writer().unwrap();
        let metric = metric(&writer, Shape::Counter);
        let old = writer.series(metric, "a").unwrap();
        applied(writer.add(&old, 5));
        // The page is full: the next series gets the memory of the old one.
        (1..4).for_each(|n| drop(writer.series(metric, &format!("{n}")).unwrap()));
        let other = spawn(move || {
            assert!(writer.remove(metric, "a"));
            assert!((0..3).all(|_| writer.reclaim_now().passed));
            let new = writer.series(metric, "b").unwrap();
            assert_eq!(new.id().offset, old.id().offset);
            applied(writer.add(&new, 10));
        });
        for (labels, total, _) in totals(segment.view()) {
            let right = [("a", 5), ("b", 0), ("b", 10), (OVERFLOW_LABELS, 0)];
            let is_right =
                right.contains(&(&labels, total)) || "123".contains(&labels) && total == 0;
            assert!(is_right, "{labels}: {total}");
        }
        other.join().unwrap();
    });
}

/// Who reclaims has moved the epoch already when the series is removed, and a writer has come in since.
#[test]
#[cfg_attr(loom, ignore = "minutes to hours: make orders")]
fn memory_is_not_given_away_when_the_removal_falls_into_a_pass() {
    explore(Some(2), || {
        let segment = segment(3, 9);
        let [one, two, three] = [0; 3].map(|_| segment.writer().unwrap());
        let metric = metric(&one, Shape::Counter);
        let old = one.series(metric, "a").unwrap();
        (1..4).for_each(|n| drop(one.series(metric, &format!("{n}")).unwrap()));
        let reclaimer = spawn_first(move || {
            assert!((0..2).all(|_| two.reclaim_now().passed));
            let new = two.series(metric, "b").unwrap();
            applied(two.add(&new, 10));
        });
        let remover = spawn_next(move || assert!(three.remove(metric, "a")));
        let _ = one.add(&old, 1);
        reclaimer.join().unwrap();
        remover.join().unwrap();
        let there = totals(segment.view());
        let new = there.iter().filter(|series| ["b", OVERFLOW_LABELS].contains(&&*series.0));
        assert_eq!(new.map(|series| series.1).sum::<u64>(), 10);
    });
}

#[test]
#[cfg_attr(loom, ignore = "minutes to hours: make orders")]
fn a_third_writer_gets_the_memory_that_the_second_gives_back() {
    explore(Some(1), || {
        let segment = segment(3, 9);
        let writers = [0; 3].map(|_| segment.writer().unwrap());
        let [one, two, three] = writers;
        let metric = metric(&one, Shape::Counter);
        let old = one.series(metric, "a").unwrap();
        (1..4).for_each(|n| drop(one.series(metric, &format!("{n}")).unwrap()));
        let second = spawn_first(move || {
            assert!(two.remove(metric, "a"));
            assert!((0..3).all(|_| two.reclaim_now().passed));
        });
        let third = spawn_next(move || add(&three, metric, "b", 10));
        let _ = one.add(&old, 1);
        second.join().unwrap();
        third.join().unwrap();
        let there: u64 = totals(segment.view()).iter().map(|series| series.1).sum();
        assert_eq!(there, 10);
    });
}

/// Expirer, reclaimer and writer are three; in the product the first two may be one.
#[test]
fn expiry_loses_nothing_that_was_added_meanwhile() {
    explore(Some(1), || {
        let segment = segment(3, 2);
        let [one, two, three] = [0; 3].map(|_| segment.writer().unwrap());
        let metric = metric(&one, Shape::Counter);
        let series = one.series(metric, "a").unwrap();
        let mut expirer = Expirer::default();
        for now in [0, 1, 10] {
            expirer.run(&two, now, 10, |_| true);
        }
        // The series was last used long ago, and now.
        let second = spawn_first(move || expirer.run(&two, 20, 10, |_| true));
        let third = spawn_next(move || assert!(three.reclaim_now().passed));
        if one.add(&series, 1) == Outcome::Stale {
            add(&one, metric, "a", 1);
        }
        let died = second.join().unwrap();
        third.join().unwrap();
        // It died before the add, which then made it anew; or it lived.
        assert!(died <= 1);
        assert_eq!(totals(segment.view()), [("a".into(), 1, 0.0)]);
    });
}

#[test]
fn a_page_that_changes_its_class_is_nobody_elses_meanwhile() {
    // Begun by one of the two only: there are many orders as it is, and the other way round was not seen to end.
    explore(Some(1), || {
        let segment = segment(3, 9);
        let (one, two) = (segment.writer().unwrap(), segment.writer().unwrap());
        let metric = metric(&one, Shape::Counter);
        let old = one.series(metric, "a").unwrap();
        assert!(one.remove(metric, "a"));
        for _ in 0..2 {
            assert!(one.reclaim_now().passed);
        }
        // The page is emptied, and zeroed two passes later, while a writer looks for a block in it.
        let other = spawn(move || {
            for _ in 0..4 {
                let _ = two.reclaim_now();
            }
        });
        add(&one, metric, "b", 10);
        let _ = one.add(&old, 100);
        other.join().unwrap();
        let there: u64 = totals(segment.view()).iter().map(|series| series.1).sum();
        assert_eq!(there, 10);
        assert_eq!(segment.usage().damage, 0);
    });
}

#[test]
fn a_ring_is_read_in_order_never_torn_and_its_loss_is_exact() {
    explore_pair(Some(3), || {
        let segment = segment(3, 2);
        let writer = segment.writer().unwrap();
        let metric = metric(&writer, Shape::Counter);
        let series = ["a", "b"].map(|labels| writer.series(metric, labels).unwrap());
        let ids = [series[0].id(), series[1].id()];
        writer.record(&series[0], RecordKind::Sample, 0);
        let mut reader = segment.ring_reader(0).unwrap();
        let other = spawn(move || {
            for n in 1..4 {
                writer.record(&series[n % 2], RecordKind::Sample, n as u64);
            }
        });
        let (mut last, mut seen) = (None, Drained::default());
        let mut drain = |reader: &mut RingReader| {
            let drained = reader.drain(|entry| {
                let Entry::Value { series, bits, .. } = entry else { panic!("{entry:?}") };
                assert_eq!(series, ids[bits as usize % 2], "two halves of one record");
                assert!(last < Some(bits), "in order");
                last = Some(bits);
            });
            seen.read += drained.read;
            seen.lost += drained.lost;
        };
        drain(&mut reader);
        other.join().unwrap();
        drain(&mut reader);
        assert_eq!((last, seen.read + seen.lost), (Some(3), 4));
    });
}

#[test]
fn two_writers_observe_one_pair() {
    explore_pair(None, || {
        let segment = segment(3, 2);
        let (one, two) = (segment.writer().unwrap(), segment.writer().unwrap());
        let metric = metric(&one, Shape::Summary(&[]));
        let series = one.series(metric, "a").unwrap();
        let same = series.clone();
        let other = spawn(move || applied(two.observe(&same, 1.0, 1)));
        applied(one.observe(&series, 2.0, 2));
        other.join().unwrap();
        assert_eq!(totals(segment.view()), [("a".into(), 3, 5.0)]);
    });
}

/// Two are kept, and three come: whoever comes late with the first of them must not put it over the third.
#[test]
fn two_writers_keep_the_newest_values() {
    explore_pair(Some(2), || {
        let segment = segment(7, 2);
        let (one, two) = (segment.writer().unwrap(), segment.writer().unwrap());
        let metric = metric(&one, Shape::Summary(&[0.5]));
        let series = one.series(metric, "a").unwrap();
        // The table and the chunk are there: how two writers hang in one part has a model of its own.
        applied(one.observe(&series, 0.5, 1));
        let same = series.clone();
        let other =
            spawn(move || (1..3).for_each(|n| applied(two.observe(&same, f64::from(n), 1))));
        applied(one.observe(&series, 4.0, 1));
        other.join().unwrap();
        let (mut reader, mut seen) = (RecentReader::from_birth(), Vec::new());
        let mut look = || segment.recent(series.id(), &mut reader, |_, value| seen.push(value));
        assert_eq!(look(), Some(Drained { read: 2, lost: 2 }));
        assert_eq!(look(), Some(Drained::default()));
        assert_eq!(totals(segment.view()), [("a".into(), 4, 7.5)]);
        seen.sort_by(f64::total_cmp);
        assert!([[2.0, 4.0], [1.0, 2.0]].iter().any(|right| seen == right), "{seen:?}");
    });
}

#[test]
fn two_writers_hang_in_the_same_part() {
    // Begun by one of the two only: there are many orders as it is, and the other way round was not seen to end.
    explore(Some(1), || {
        // One page more than classes: two writers that come at once may take one each.
        let segment = segment(7, 2);
        let (one, two) = (segment.writer().unwrap(), segment.writer().unwrap());
        let metric = metric(&one, Shape::Exponential { schema: 0 });
        let series = one.series(metric, "a").unwrap();
        let same = series.clone();
        let other = spawn(move || applied(two.observe(&same, 1.5, 1)));
        applied(one.observe(&series, 1.25, 2));
        other.join().unwrap();
        assert_eq!(totals(segment.view()), [("a".into(), 3, 4.0)]);
        assert_eq!(segment.usage().refused, 0);
    });
}

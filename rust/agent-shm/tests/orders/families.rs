//! Definitions that change under one name: old and new writers, and who reclaims.
//!
//! Under loom two models end: who looks for its definitions again, and that a definition is used from the moment on at which
//! it can be found. Those in which two writers bring definitions, or somebody reclaims beside one that does, had no end within a
//! minute with one preemption; shuttle tries them.

use crate::world::*;
use agent_shm::*;
#[cfg(shuttle)]
use shuttle::rand::{thread_rng, Rng};

const OLD: Shape<'static> = Shape::Counter;
const NEW: Shape<'static> = Shape::Summary(&[]);
/// Of a definition that is used: the metric, its overflow series, and three levels of lanes.
#[cfg(shuttle)]
const BLOCKS: usize = 5;

fn join(writer: &Writer, shape: Shape<'_>, lineage: u32) -> Joined {
    let spec = MetricSpec { name: "m", help: "", unit: "", shape };
    // Whether this call made it is not compared.
    Joined { births: 0, ..writer.family(&spec, "", lineage).unwrap() }
}

#[cfg(shuttle)]
#[test]
fn two_writers_bring_the_same_definition() {
    explore_pair(Some(1), || {
        let segment = segment(7, 4);
        let [one, two] = [0; 2].map(|_| segment.writer().unwrap());
        let other = spawn(move || (join(&two, OLD, 1), two));
        let first = join(&one, OLD, 1);
        let (second, _two) = other.join().unwrap();
        assert_eq!(first, second);
        assert!(first.is_shown);
        assert_eq!(segment.usage().metrics, 1);
        // At once: a pass finds what hangs nowhere only when the memory that it hung in is used again.
        assert_eq!(segment.blocks_in_use(), BLOCKS, "what was made for nothing is given back");
        settle(&segment, &one, BLOCKS..=BLOCKS);
    });
}

#[cfg(shuttle)]
#[test]
fn two_writers_bring_two_definitions() {
    explore_pair(Some(1), || {
        let segment = segment(8, 4);
        let [one, two] = [0; 2].map(|_| segment.writer().unwrap());
        let other = spawn(move || (join(&two, NEW, 2), two));
        let first = join(&one, OLD, 1);
        let (second, two) = other.join().unwrap();
        assert_ne!(first.id, second.id);
        let births = segment.births_of("m");
        assert!(births.len() == 2 && births[0] > births[1], "who came last counts: {births:?}");
        let view = segment.view();
        let counts_new = view.families()[0].meta().shape.borrowed() == NEW;
        assert_eq!((view.families().len(), view.superseded()), (1, 1));
        // Everybody agrees which one counts, and nobody gets another one by asking again.
        assert_eq!(join(&one, OLD, 1), Joined { id: first.id, is_shown: !counts_new, births: 0 });
        assert_eq!(join(&two, NEW, 2), Joined { id: second.id, is_shown: counts_new, births: 0 });
        settle(&segment, &one, 2 * BLOCKS..=2 * BLOCKS);
    });
}

/// A process looks for its definitions again whenever the number of births has changed.
#[test]
fn who_looks_whenever_births_change_finds_the_definition_that_appeared() {
    explore_pair(Some(2), || {
        let segment = segment(8, 4);
        let [old, new] = [0; 2].map(|_| segment.writer().unwrap());
        join(&old, OLD, 1);
        let newer = spawn(move || (join(&new, NEW, 2), new));
        let look = || {
            let births = segment.births();
            (births, join(&old, OLD, 1).is_shown)
        };
        let looks = [look(), look()];
        let (joined, _new) = newer.join().unwrap();
        assert!(joined.is_shown);
        for (births, was_shown) in looks {
            assert!(!was_shown || births != segment.births(), "it would not look again");
        }
        assert!(!look().1);
    });
}

/// It is used from the moment on at which it can be found.
#[test]
fn an_old_writer_never_takes_the_name_from_one_that_begins() {
    explore_pair(Some(2), || {
        let segment = segment(8, 4);
        let [old, new] = [0; 2].map(|_| segment.writer().unwrap());
        let first = join(&old, OLD, 1);
        let newer = spawn(move || (join(&new, NEW, 2), new));
        assert_eq!(join(&old, OLD, 1).id, first.id);
        let (joined, _new) = newer.join().unwrap();
        assert!(joined.is_shown);
        assert_eq!(join(&old, OLD, 1), Joined { id: first.id, is_shown: false, births: 0 });
        assert_eq!(segment.usage().metrics, 2);
    });
}

#[cfg(shuttle)]
#[test]
fn a_new_definition_appears_while_the_old_one_counts_and_somebody_reclaims() {
    explore(Some(1), || {
        let segment = segment(9, 4);
        let [old, new, third] = [0; 3].map(|_| segment.writer().unwrap());
        let before = join(&old, OLD, 1);
        let series = old.series(before.id, "a").unwrap();
        let newer = spawn_first(move || {
            let joined = join(&new, NEW, 2);
            let series = new.series(joined.id, "a").unwrap();
            applied(new.observe(&series, 2.0, 1));
            (joined, new)
        });
        let reclaimer = spawn_next(move || assert!(third.reclaim_now().passed));
        applied(old.add(&series, 1));
        let (after, _new) = newer.join().unwrap();
        reclaimer.join().unwrap();
        assert!(after.is_shown && after.id != before.id);
        assert_eq!(totals(segment.view()), [("a".into(), 1, 2.0)]);
        assert_eq!(join(&old, OLD, 1), Joined { id: before.id, is_shown: false, births: 0 });
        applied(old.add(&series, 1));
        assert_eq!(segment.view().superseded(), 1);
    });
}

#[cfg(shuttle)]
#[test]
fn two_writers_roll_back_to_a_definition_that_nobody_uses_any_more() {
    explore_pair(Some(1), || {
        let segment = segment(10, 4);
        let first = {
            let gone = segment.writer().unwrap();
            let joined = join(&gone, OLD, 1);
            add(&gone, joined.id, "a", 100);
            joined
        };
        let [new, one, two] = [0; 3].map(|_| segment.writer().unwrap());
        assert!(join(&new, NEW, 2).is_shown);
        let other = spawn(move || (join(&two, OLD, 3), two));
        let back = join(&one, OLD, 3);
        let (same, _two) = other.join().unwrap();
        assert_eq!(back, same);
        assert!(back.is_shown && back.id != first.id);
        assert!(matches!(one.series(first.id, "a"), Err(Error::Replaced)));
        add(&one, back.id, "a", 1);
        assert_eq!(totals(segment.view()), [("a".into(), 1, 0.0)], "it begins at zero");
    });
}

/// A writer was killed while it brought the new definition; then, in any order, another one brings it and counts, an old
/// one counts, somebody reclaims, a page is read and the dead slot is taken over, while one of the first three is killed.
#[cfg(shuttle)]
#[test]
fn five_roles_around_a_definition_that_changes() {
    explore(Some(1), || {
        let segment = segment(16, 4);
        let [old, new, third, victim] = [0; 4].map(|_| segment.writer().unwrap());
        let before = join(&old, OLD, 1);
        let series = old.series(before.id, "a").unwrap();
        applied(old.add(&series, 3));
        let slot = victim.slot();
        let steps = thread_rng().gen_range(0..400);
        live_for(steps, move || join(&victim, NEW, 2));
        segment.bury(slot);
        let acts: [Box<dyn FnOnce() + Send>; 3] = [
            Box::new(move || {
                let _ = old.add(&series, 1);
            }),
            Box::new(move || {
                let joined = join(&new, NEW, 2);
                let series = new.series(joined.id, "a").unwrap();
                applied(new.observe(&series, 1.5, 1));
            }),
            Box::new(move || {
                third.reclaim_now();
            }),
        ];
        let (mortal, steps) = (thread_rng().gen_range(0..4), thread_rng().gen_range(0..300));
        let mut slots = 0..;
        let mut threads = acts.map(|act| {
            let (slot, segment) = (slots.next().unwrap(), segment.clone());
            Some(thread::spawn(move || match slot == mortal {
                true => live_for(steps, act).unwrap_or_else(|| segment.bury(slot)),
                false => act(),
            }))
        });
        let recovered = segment.clone();
        let recoverer = thread::spawn(move || recovered.writer().unwrap().reclaim_now());
        let reader = segment.clone();
        let reader = thread::spawn(move || {
            let page = totals(reader.view());
            // One definition: the old one with what it counted, or the new one with what that did.
            let right = [("a".into(), 3, 0.0), ("a".into(), 4, 0.0), ("a".into(), 0, 0.0)];
            let new = ("a".into(), 1, 1.5);
            assert!(page.len() < 2 && page.iter().all(|a| right.contains(a) || *a == new));
        });
        threads.iter_mut().for_each(|thread| thread.take().unwrap().join().unwrap());
        recoverer.join().unwrap();
        reader.join().unwrap();
        let last = segment.writer().unwrap();
        last.reclaim_now();
        let joined = join(&last, NEW, 2);
        assert!(joined.is_shown);
        add_observation(&last, joined);
        let there = totals(segment.view());
        let counts = if mortal == 1 { 1..=2 } else { 2..=2 };
        assert!(there.len() == 1 && counts.contains(&there[0].1), "{there:?}");
        come_to_rest(&last);
        let view = segment.view();
        let definitions = view.families().len() + view.superseded();
        assert_eq!((view.families().len(), segment.usage().metrics), (1, definitions as u64));
        // A series each, and the lanes of slots that are not the first two.
        let (least, most) = (2 * BLOCKS, definitions * (BLOCKS + 4));
        let blocks = segment.blocks_in_use();
        assert!((least..=most).contains(&blocks), "{blocks} blocks of {definitions} definitions");
    });
}

#[cfg(shuttle)]
fn add_observation(writer: &Writer, joined: Joined) {
    let series = writer.series(joined.id, "a").unwrap();
    applied(writer.observe(&series, 1.5, 1));
}

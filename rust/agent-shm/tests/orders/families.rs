//! Definitions that change under one name: old and new writers, and who reclaims.

use crate::world::*;
use agent_shm::*;

const OLD: Shape<'static> = Shape::Counter;
const NEW: Shape<'static> = Shape::Summary(&[]);
/// Of a definition that is used: the metric, its overflow series, and three levels of lanes.
const BLOCKS: usize = 5;

fn join(writer: &Writer, shape: Shape<'_>, lineage: u32) -> Joined {
    writer.family(&MetricSpec { name: "m", help: "", unit: "", shape }, "", lineage).unwrap()
}

#[test]
fn two_writers_bring_the_same_definition() {
    explore(Some(2), || {
        let segment = segment(7, 4);
        let [one, two] = [0; 2].map(|_| segment.writer().unwrap());
        let other = spawn(move || (join(&two, OLD, 1), two));
        let first = join(&one, OLD, 1);
        let (second, _two) = other.join().unwrap();
        assert_eq!(first, second);
        assert!(first.is_shown);
        assert_eq!(segment.usage().metrics, 1);
        settle(&segment, &one, BLOCKS..=BLOCKS);
    });
}

#[test]
fn two_writers_bring_two_definitions() {
    explore(Some(2), || {
        let segment = segment(8, 4);
        let [one, two] = [0; 2].map(|_| segment.writer().unwrap());
        let other = spawn(move || (join(&two, NEW, 2), two));
        let first = join(&one, OLD, 1);
        let (second, two) = other.join().unwrap();
        assert_ne!(first.id, second.id);
        let view = segment.view();
        let counts_new = view.families()[0].meta().shape.borrowed() == NEW;
        assert_eq!((view.families().len(), view.superseded()), (1, 1));
        // Everybody agrees which one counts, and nobody gets another one by asking again.
        assert_eq!(join(&one, OLD, 1), Joined { id: first.id, is_shown: !counts_new });
        assert_eq!(join(&two, NEW, 2), Joined { id: second.id, is_shown: counts_new });
        settle(&segment, &one, 2 * BLOCKS..=2 * BLOCKS);
    });
}

#[test]
fn a_new_definition_appears_while_the_old_one_counts_and_somebody_reclaims() {
    explore(Some(2), || {
        let segment = segment(9, 4);
        let [old, new, third] = [0; 3].map(|_| segment.writer().unwrap());
        let before = join(&old, OLD, 1);
        let series = old.series(before.id, "a").unwrap();
        let newer = spawn(move || {
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
        assert_eq!(join(&old, OLD, 1), Joined { id: before.id, is_shown: false });
        applied(old.add(&series, 1));
        assert_eq!(segment.view().superseded(), 1);
    });
}

#[test]
fn two_writers_roll_back_to_a_definition_that_nobody_uses_any_more() {
    explore(Some(2), || {
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

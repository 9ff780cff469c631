//! Limits at their edges. Time is an argument, so nothing here waits.

use super::*;
use std::net::Ipv4Addr;

fn address(n: u32) -> Option<IpAddr> {
    Some(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)))
}

fn off() -> Limits {
    Limits {
        source_samples_per_s_max: 0,
        source_window_samples_max: 0,
        total_samples_per_s_max: 0,
        total_window_samples_max: 0,
        source_connections_max: 0,
        ..Limits::default()
    }
}

fn reason(decision: Result<(), Shed>) -> Option<Reason> {
    decision.err().map(|shed| shed.reason)
}

#[test]
fn limits_of_zero_refuse_nothing() {
    let mut admission = Admission::new(&off(), 1, 10, 0);
    let peer = admission.peer(address(1), 0);
    for _ in 0..100 {
        assert_eq!(admission.samples(&peer, 0), Ok(()));
        admission.charge(&peer, 1_000_000_000);
    }
}

#[test]
fn a_bucket_that_is_overdrawn_says_when_to_come_back() {
    let limits = Limits { source_samples_per_s_max: 100, ..off() };
    let mut admission = Admission::new(&limits, 1, 10, 0);
    let (busy, quiet) = (admission.peer(address(1), 0), admission.peer(address(2), 0));
    assert_eq!(admission.samples(&busy, 0), Ok(()));
    admission.charge(&busy, 400);
    let shed = admission.samples(&busy, 0).expect_err("300 samples in debt");
    assert_eq!(shed, Shed { reason: Reason::SourceRate, retry_after_s: 3 });
    assert_eq!(admission.samples(&quiet, 0), Ok(()), "another source is not touched");
    assert!(admission.samples(&busy, 2900).is_err());
    assert_eq!(admission.samples(&busy, 3100), Ok(()));
}

#[test]
fn the_total_is_shared_by_the_workers() {
    let limits = Limits { total_samples_per_s_max: 1000, ..off() };
    let mut admission = Admission::new(&limits, 4, 10, 0);
    let (one, two) = (admission.peer(address(1), 0), admission.peer(address(2), 0));
    admission.charge(&one, 250);
    assert_eq!(reason(admission.samples(&two, 0)), Some(Reason::TotalRate));
}

#[test]
fn a_window_forgets_as_it_slides() {
    let limits = Limits { source_window_samples_max: 100, rate_window_s: 10, ..off() };
    let mut admission = Admission::new(&limits, 1, 10, 0);
    let peer = admission.peer(address(1), 0);
    admission.charge(&peer, 100);
    assert_eq!(reason(admission.samples(&peer, 0)), Some(Reason::SourceWindow));
    assert_eq!(reason(admission.samples(&peer, 10_000)), Some(Reason::SourceWindow));
    assert_eq!(admission.samples(&peer, 15_000), Ok(()), "half of it is out of view");
    admission.charge(&peer, 60);
    assert_eq!(reason(admission.samples(&peer, 15_000)), Some(Reason::SourceWindow));
    assert_eq!(admission.samples(&peer, 40_000), Ok(()));
}

#[test]
fn connections_are_capped_per_source_and_in_total_with_a_reserve_for_http() {
    let limits = Limits { source_connections_max: 2, ..off() };
    let mut admission = Admission::new(&limits, 1, 3, 0);
    let (one, two) = (admission.peer(address(1), 0), admission.peer(address(2), 0));
    assert_eq!(admission.open(&one, Seat::Ordinary), Ok(()));
    assert_eq!(admission.open(&one, Seat::Ordinary), Ok(()));
    assert_eq!(admission.open(&one, Seat::Ordinary), Err(Refusal::SourceConnectionsMax));
    assert_eq!(admission.open(&one, Seat::Reserved), Ok(()), "a probe from a busy address");
    admission.closed(one.row);
    assert_eq!(admission.open(&two, Seat::Ordinary), Ok(()));
    assert_eq!(admission.open(&two, Seat::Ordinary), Err(Refusal::ConnectionsMax));
    assert_eq!(admission.open(&two, Seat::Reserved), Ok(()), "a probe still gets in");
    assert_eq!(reason(admission.request(&two, 0)), Some(Reason::ConnectionsMax));
    admission.closed(one.row);
    assert_eq!(admission.request(&two, 0), Ok(()));
}

#[test]
fn short_memory_refuses_samples() {
    let mut admission = Admission::new(&off(), 1, 10, 0);
    let peer = admission.peer(None, 0);
    admission.set_memory_is_short(true);
    assert_eq!(reason(admission.samples(&peer, 0)), Some(Reason::Memory));
}

#[test]
fn connections_use_up_the_room_in_memory_and_probes_have_their_own() {
    let mut admission = Admission::new(&off(), 1, 10, 0);
    let peer = admission.peer(None, 0);
    admission.set_memory_credit(2);
    assert_eq!(admission.open(&peer, Seat::Ordinary), Ok(()));
    assert_eq!(admission.open(&peer, Seat::Ordinary), Ok(()));
    assert_eq!(admission.open(&peer, Seat::Ordinary), Err(Refusal::Memory));
    assert_eq!(admission.open(&peer, Seat::Reserved), Ok(()));
    admission.set_memory_credit(1);
    assert_eq!(admission.open(&peer, Seat::Ordinary), Ok(()));
    admission.set_memory_credit(u32::MAX);
    assert_eq!(admission.open(&peer, Seat::Ordinary), Ok(()));
    assert_eq!(admission.memory_credit(), u32::MAX, "no limit is not used up");
}

#[test]
fn the_table_is_bounded_and_rows_with_connections_stay() {
    let limits = Limits { sources_max: 8, source_samples_per_s_max: 10, ..off() };
    let mut admission = Admission::new(&limits, 1, 100, 0);
    let held = admission.peer(address(0), 0);
    assert_eq!(admission.open(&held, Seat::Ordinary), Ok(()));
    admission.charge(&held, 1000);
    for n in 1..1000 {
        admission.peer(address(n), 0);
    }
    assert_eq!(admission.sources(), 8);
    assert_eq!(admission.peer(address(0), 0), held, "its bucket is not forgotten");
    assert!(admission.samples(&held, 0).is_err());
    assert_ne!(admission.peer(address(999), 0).row, SHARED_ROW);
}

#[test]
fn when_every_row_has_a_connection_the_rest_share_one() {
    let limits = Limits { sources_max: 4, ..off() };
    let mut admission = Admission::new(&limits, 1, 100, 0);
    for n in 0..4 {
        let peer = admission.peer(address(n), 0);
        assert_eq!(admission.open(&peer, Seat::Ordinary), Ok(()));
    }
    assert_eq!(admission.peer(address(9), 0).row, SHARED_ROW);
}

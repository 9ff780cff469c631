//! Every operation, killed at every instruction. `AGENT_TORTURE_SEED` repeats a run, `AGENT_TORTURE_SECONDS` makes it longer,
//! `AGENT_TORTURE_OPERATIONS` (names or groups, joined by `;`) makes it shorter; the seed and the figures are printed.
//!
//! A program of its own instead of tests in the harness: what forks must have one thread.

use agent_torture::{run, Error, Next, Options, StepReport};
use std::time::Duration;

const KILL_POINTS_MIN: u64 = 10_000;

fn main() {
    let from = |name: &str| std::env::var(name).ok();
    let number = |name, default| from(name).map_or(default, |text| text.parse().unwrap());
    let seconds = from("AGENT_TORTURE_SECONDS").map(|text| text.parse().unwrap());
    let operations: Vec<String> = from("AGENT_TORTURE_OPERATIONS")
        .map(|names| names.split(';').map(String::from).collect())
        .unwrap_or_default();
    let options = Options {
        seed: number("AGENT_TORTURE_SEED", u64::from(std::process::id())),
        // A bound for machines that are slow; one round ends by itself.
        time_limit: Duration::from_secs(seconds.unwrap_or(3600)),
        rounds: if seconds.is_some() { None } else { Some(1) },
        operations,
        folder: None,
    };
    println!("AGENT_TORTURE_SEED={}", options.seed);
    let report = match run(&options, &mut |_| Next::Continue) {
        Ok(report) => report,
        Err(error @ (Error::NotSupported { .. } | Error::Forbidden { .. })) => {
            println!("not run: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    show(&report);
    assert_eq!(report.findings().count(), 0, "something does not hold");
    if options.operations.is_empty() {
        assert!(report.kill_points() >= KILL_POINTS_MIN);
        assert!(report.operations.iter().all(|operation| operation.walks > 0));
    }
}

fn show(report: &StepReport) {
    for operation in &report.operations {
        let (group, name) = (operation.group, operation.name);
        let (points, states) = (operation.kill_points, operation.states);
        println!("{group:>9}  {name:<50} {points:>8} kill points {states:>6} states");
        for finding in &operation.findings {
            let (seed, instruction, reason) = (finding.seed, finding.instruction, &finding.reason);
            println!("    DOES NOT HOLD: seed {seed}, instruction {instruction}: {reason}");
        }
    }
    let (points, states) = (report.kill_points(), report.states());
    let (findings, seconds) = (report.findings().count(), report.elapsed.as_secs_f64());
    println!(
        "{points} kill points, {states} different states, {} rounds, {findings} findings, {seconds:.1} s",
        report.rounds
    );
}

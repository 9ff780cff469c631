//! Rounds of walks until the time is over.

use crate::error::Error;
use crate::folder::Folder;
use crate::operation::{Act, Kind, OnFile, Operation};
use crate::operations::table;
use crate::oracle;
use crate::random::Random;
use crate::report::{Finding, Next, OperationReport, Progress, StepReport};
use crate::stage::{Stage, APP, FILE};
use crate::stepper::{self, Ended};
use crate::walk::walk;
use agent_shm::{Segment, Writer};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Findings of one operation that are written down.
const FINDINGS_MAX: usize = 20;

#[derive(Debug, Clone)]
pub struct Options {
    /// Round `n` runs with this plus `n`.
    pub seed: u64,
    /// No operation is begun after that.
    pub time_limit: Duration,
    /// At most so many rounds.
    pub rounds: Option<u32>,
    /// Names of operations or groups; none is all.
    pub operations: Vec<String>,
    /// Where segments are made: in shared memory where there is some, else among temporary files.
    pub folder: Option<PathBuf>,
}

/// Walks operations and recovers what a death would leave after each of their instructions. `on_progress` is called after
/// each operation.
///
/// # Errors
/// When this machine or process cannot do it, or a file of its own cannot be used. What does not hold is in the report.
pub fn run(
    options: &Options,
    on_progress: &mut dyn FnMut(&Progress<'_>) -> Next,
) -> Result<StepReport, Error> {
    run_table(&table(), options, on_progress)
}

/// As [`run`], with operations of the caller's own.
pub fn run_table(
    table: &[Operation],
    options: &Options,
    on_progress: &mut dyn FnMut(&Progress<'_>) -> Next,
) -> Result<StepReport, Error> {
    stepper::check()?;
    let chosen = choose(table, &options.operations)?;
    let began = Instant::now();
    let operations = chosen.iter().map(|&index| {
        let (name, group) = (table[index].name, table[index].group);
        OperationReport { name, group, walks: 0, kill_points: 0, states: 0, findings: Vec::new() }
    });
    let mut report = StepReport {
        seed: options.seed,
        rounds: 0,
        elapsed: Duration::ZERO,
        stopped: false,
        operations: operations.collect(),
    };
    let rounds = if chosen.is_empty() { 0 } else { options.rounds.unwrap_or(u32::MAX) };
    'rounds: for round in 0..rounds {
        let seed = options.seed.wrapping_add(round.into());
        let mut order: Vec<usize> = (0..chosen.len()).collect();
        Random::named(seed, "order").shuffle(&mut order);
        for at in order {
            if began.elapsed() >= options.time_limit {
                break 'rounds;
            }
            let operation = &table[chosen[at]];
            report.rounds = round + 1;
            walk_one(operation, seed, options, &mut report.operations[at])?;
            report.elapsed = began.elapsed();
            let progress = Progress {
                round: report.rounds,
                operation: operation.name,
                kill_points: report.kill_points(),
                states: report.states(),
                findings: report.findings().count(),
                elapsed: report.elapsed,
            };
            if on_progress(&progress) == Next::Stop {
                report.stopped = true;
                break 'rounds;
            }
        }
    }
    Ok(report)
}

/// Places in the table.
fn choose(table: &[Operation], names: &[String]) -> Result<Vec<usize>, Error> {
    for name in names {
        if !table.iter().any(|row| row.name == name || row.group == name) {
            let known = table.iter().map(|row| row.name).collect();
            return Err(Error::Unknown { name: name.clone(), known });
        }
    }
    let is_chosen = |row: &Operation| {
        names.is_empty() || names.iter().any(|name| row.name == name || row.group == name)
    };
    Ok((0..table.len()).filter(|&index| is_chosen(&table[index])).collect())
}

fn walk_one(
    operation: &Operation,
    seed: u64,
    options: &Options,
    report: &mut OperationReport,
) -> Result<(), Error> {
    let (steps, states, found) = match &operation.kind {
        Kind::OnSegment { prepare, bind } => on_segment(operation, seed, options, *prepare, *bind)?,
        Kind::OnFile(on_file) => self::on_file(operation, seed, options, on_file)?,
    };
    report.walks += 1;
    report.kill_points += steps;
    report.states += states;
    for (instruction, reason) in found {
        if report.findings.len() < FINDINGS_MAX {
            report.findings.push(Finding { seed, operation: operation.name, instruction, reason });
        }
    }
    Ok(())
}

/// Instructions, states, and what does not hold.
type Walked = (u64, u64, Vec<(u64, String)>);

fn failed((steps, Ended(reason)): (u64, Ended)) -> Walked {
    (steps, 0, vec![(steps, reason)])
}

fn on_segment(
    operation: &Operation,
    seed: u64,
    options: &Options,
    prepare: fn(&Segment, &mut Random) -> Writer,
    bind: fn(&Writer, &mut Random) -> Act,
) -> Result<Walked, Error> {
    // Each part has numbers of its own, so that binding again draws the same.
    let random = |part: &str| Random::named(seed, &format!("{}: {part}", operation.name));
    let stage = Stage::new(options.folder.as_deref(), operation, &mut random("stage"))?;
    let walked = walk(stage.folder(), || {
        let segment = Segment::open_or_create(&stage.path, APP, &stage.options)
            .unwrap_or_else(|error| panic!("the segment is opened: {error}"));
        let writer = prepare(&segment, &mut random("prepare"));
        let act = bind(&writer, &mut random("bind"));
        Box::new(move || {
            act(&writer);
            // Giving the slot back is an operation of its own.
            std::mem::forget(writer);
        })
    })?;
    let walk = match walked {
        Ok(walk) => walk,
        Err(ended) => return Ok(failed(ended)),
    };
    let bind = |writer: &Writer| bind(writer, &mut random("bind"));
    let (states, found) = oracle::judge(&stage, &walk, operation, &bind)?;
    Ok((walk.steps, states, found))
}

fn on_file(
    operation: &Operation,
    seed: u64,
    options: &Options,
    OnFile { prepare, act, refuses }: &OnFile,
) -> Result<Walked, Error> {
    let folder = Folder::new(options.folder.as_deref(), "files")?;
    let path = folder.path().join(FILE);
    prepare(&path, &mut Random::named(seed, operation.name));
    let act = *act;
    let walked = walk(folder.path(), || Box::new(move || act(&path)))?;
    let walk = match walked {
        Ok(walk) => walk,
        Err(ended) => return Ok(failed(ended)),
    };
    let (states, found) =
        oracle::judge_files(folder.path(), &walk, &operation.options(), *refuses)?;
    Ok((walk.steps, states, found))
}

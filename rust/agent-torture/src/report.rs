//! What a run did and found. Plain values; who shows them is no matter of this crate.

use std::time::Duration;

/// What a run has done so far, told between two operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    pub round: u32,
    /// The operation that was just finished.
    pub operation: &'a str,
    pub kill_points: u64,
    pub states: u64,
    pub findings: usize,
    pub elapsed: Duration,
}

/// What whoever is told wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Continue,
    Stop,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepReport {
    pub seed: u64,
    /// Rounds that were begun: in each, every operation is walked once.
    pub rounds: u32,
    pub elapsed: Duration,
    /// Whether it was told to stop.
    pub stopped: bool,
    /// In the order of the table, also those that were not reached.
    pub operations: Vec<OperationReport>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationReport {
    pub name: &'static str,
    pub group: &'static str,
    /// How often it was walked from its first to its last instruction.
    pub walks: u64,
    /// Instructions that were stepped: so many moments at which a death was looked at.
    pub kill_points: u64,
    /// Different states of the files after them, each recovered and examined.
    pub states: u64,
    pub findings: Vec<Finding>,
}

/// Something that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A run with this seed and this operation alone finds it in its first round.
    pub seed: u64,
    pub operation: &'static str,
    /// The death was after so many instructions.
    pub instruction: u64,
    pub reason: String,
}

impl StepReport {
    pub fn kill_points(&self) -> u64 {
        self.operations.iter().map(|operation| operation.kill_points).sum()
    }

    pub fn states(&self) -> u64 {
        self.operations.iter().map(|operation| operation.states).sum()
    }

    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.operations.iter().flat_map(|operation| &operation.findings)
    }
}

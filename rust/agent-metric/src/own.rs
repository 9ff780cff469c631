//! Families that every page writes about itself: about the numbers that are not on it. No program can have them.

pub const PRIVATE: &str = "agent_private_metrics";
pub const LOST: &str = "agent_lost_updates";
pub const SUPERSEDED: &str = "agent_superseded_metrics";
pub const DAMAGED: &str = "agent_damaged_series";

/// Whether a family of this name, or one of its samples, would be taken for one of them.
pub fn is_own(family: &str) -> bool {
    let base = family.strip_suffix("_total").unwrap_or(family);
    [PRIVATE, LOST, SUPERSEDED, DAMAGED].contains(&base)
}

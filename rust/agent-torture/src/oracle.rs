//! The oracle: what must hold of every state that a death can leave.
//!
//! A state is put back, and a new writer recovers it. What is shown before and after recovery, the memory in use, what the
//! same operation gives when it is repeated, and what is left when everything is removed are compared with the same of the
//! two states that need no opinion: before the operation began, and after it was over.

mod files;
mod recovery;

pub use files::judge as judge_files;
pub use recovery::judge;

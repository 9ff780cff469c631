//! What a store asks of the program around it.

use std::path::PathBuf;

/// Where the segment of an app is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Known {
        app: String,
        path: PathBuf,
    },
    /// Not known yet: private memory until the next fork.
    Later,
}

/// Why there is no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoPlace {
    /// In words: private memory is used, and the user is told.
    Because(String),
    /// The program was interrupted meanwhile, which the host raises when the store is done: nothing is decided.
    Interrupted,
}

/// The language that a store serves. Called with no borrow of the store held: it may come back to it.
pub trait Host {
    /// Called when the first metric is defined: loads what `find_app` will need, so that it loads nothing later, when
    /// another thread may fork.
    fn prepare(&self) {}

    /// Which app this process is of, or why that cannot be told.
    fn find_app(&self) -> Result<Place, NoPlace>;

    /// Whether what would end in private memory is refused instead.
    fn is_strict(&self) -> bool;

    /// Tells the user once for each text.
    fn warn(&self, text: &str);
}

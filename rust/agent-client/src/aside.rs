//! Metrics that found no room in the segment: counted in private memory until there is some.
//!
//! Everything else of the process goes on where it was. Once a second, at the next use, the segment is asked again; when
//! it has room, all that was counted aside is added there, nothing lost. Until then its numbers are on nobody's page, and
//! pages say so (`agent_private_metrics_total`). A process that ends before takes them along. A forked child begins with
//! nothing aside: what its parent counted is its parent's.

use crate::family::Family;
use agent_shm::{MetricSpec, Options, Segment, Series, Writer};
use std::cell::RefCell;
use std::collections::HashSet;

/// The segment is asked so often, and no more.
pub const RETRY_MS: u64 = 1000;

pub struct Aside {
    pub writer: Writer,
    /// Metrics that have something here, by name.
    counted: RefCell<HashSet<String>>,
}

impl Aside {
    /// Nothing when there is no address space.
    pub fn new(app: &str, options: &Options) -> Option<Aside> {
        let small = Options { bytes_max: 16 << 20, slots_max: 2, ..*options };
        let writer = Segment::anonymous(app, &small).ok()?.writer().ok()?;
        Some(Aside { writer, counted: RefCell::default() })
    }

    /// The series, and whether it is the first of its metric since the segment had room for that.
    pub fn series(
        &self,
        spec: &MetricSpec<'_>,
        label_names: &str,
        text: &str,
    ) -> Option<(Series, bool)> {
        let id = self.writer.family(spec, label_names, 0).ok()?.id;
        let series = self.writer.series(id, text).ok()?;
        Some((series, self.counted.borrow_mut().insert(spec.name.into())))
    }

    /// All of these metrics that was here is in the segment.
    pub fn forget(&self, names: &[String]) {
        self.counted.borrow_mut().retain(|name| !names.contains(name));
    }

    pub fn remove(&self, family: &Family, text: &str) -> bool {
        self.writer.find_metric(&family.name).is_some_and(|(id, _)| self.writer.remove(id, text))
    }

    pub fn clear(&self, family: &Family) {
        if let Some((id, _)) = self.writer.find_metric(&family.name) {
            self.writer.clear(id);
        }
    }
}

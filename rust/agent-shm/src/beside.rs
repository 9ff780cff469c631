//! The files of one app: usually one, and others beside it that were begun while it was damaged and in use.
//!
//! `shop.v3.seg`, `shop~2.v3.seg`, ... up to `shop~9.v3.seg`. Whoever reads one reads all (join.rs).

use crate::layout::LAYOUT_VERSION;
use crate::segment::Segment;
use std::path::{Path, PathBuf};

/// The largest number in a name.
pub const BESIDE_MAX: u32 = 9;

/// What the name of a segment ends with.
pub fn suffix() -> String {
    format!(".v{LAYOUT_VERSION}.seg")
}

/// `shop.v3.seg`, 2: `shop~2.v3.seg`; 1 is the file that others are beside.
pub fn path_beside(path: &Path, number: u32) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let suffix = suffix();
    let stem = base(name.strip_suffix(&suffix).unwrap_or(&name));
    path.with_file_name(match number {
        1 => format!("{stem}{suffix}"),
        _ => format!("{stem}~{number}{suffix}"),
    })
}

/// `shop~2`: `shop`. Names without a number are what they are.
pub fn base(stem: &str) -> &str {
    let numbered = stem.rsplit_once('~').filter(|(_, number)| {
        number.len() == 1 && (b'2'..=b'0' + BESIDE_MAX as u8).contains(&number.as_bytes()[0])
    });
    numbered.map_or(stem, |(base, _)| base)
}

impl Segment {
    /// One segment that shows all of these, which are of one app: the newest, and the others beside it.
    pub fn joined(mut segments: Vec<Segment>) -> Option<Segment> {
        segments.sort_by_key(|segment| std::cmp::Reverse(segment.header().created_unix_ms));
        let mut segments = segments.into_iter();
        let newest = segments.next()?;
        Some(Segment { beside: segments.collect(), ..newest })
    }

    /// This segment joined with the others of its app. Others that cannot be read are left out.
    pub fn with_those_beside(&self) -> Segment {
        let mut all = vec![self.clone()];
        let app = self.header().app;
        for number in 1..=BESIDE_MAX * u32::from(self.file_id().is_some()) {
            let Ok(other) = Segment::attach(&path_beside(self.path(), number)) else { continue };
            if other.file_id() != self.file_id() && other.header().app == app {
                all.push(other);
            }
        }
        Segment::joined(all).unwrap_or_else(|| self.clone())
    }
}

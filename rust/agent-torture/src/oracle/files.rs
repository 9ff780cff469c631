//! Recovery of a folder: whoever comes next opens or makes the segment, and nothing half made is ever found under its name.

use crate::error::Error;
use crate::image::{FileImage, Image};
use crate::stage::{APP, FILE};
use crate::walk::Walk;
use agent_metric::Shape;
use agent_shm::{MetricSpec, Options, Outcome, Segment};
use std::collections::BTreeSet;
use std::path::Path;

const DAMAGED: &str = "app.v3.seg.damaged";
const OTHER: &str = "other.v3.seg";

/// Everything that does not hold: the number of the instruction, and a sentence.
pub fn judge(
    folder: &Path,
    walk: &Walk,
    options: &Options,
    refuses: bool,
) -> Result<(u64, Vec<(u64, String)>), Error> {
    let (Some(first), Some(last)) = (walk.states.first(), walk.states.last()) else {
        return Ok((0, Vec::new()));
    };
    let judge = Judge { folder, options, refuses, original: first.1.file(FILE) };
    let before = judge.attached(&first.1)?;
    let after = judge.attached(&last.1)?;
    let expected = judge.recovered(&last.1)?;
    let mut findings = Vec::new();
    let mut known: Vec<&Image> = Vec::new();
    for (instruction, image) in &walk.states {
        if known.contains(&image) {
            continue;
        }
        known.push(image);
        let found = judge.attached(image)?;
        if found != before
            && found != after
            && image.names.contains_key(FILE.as_ref() as &std::ffi::OsStr)
        {
            findings.push((*instruction, format!("who attaches finds it half made: {found}")));
        }
        match (judge.recovered(image)?, &expected) {
            (Ok(names), Ok(expected)) if names == *expected => {}
            (Ok(names), expected) => findings.push((
                *instruction,
                format!("recovered, there are {names:?}; without a death {expected:?}"),
            )),
            (Err(reason), _) => findings.push((*instruction, reason)),
        }
    }
    Ok((known.len() as u64, findings))
}

struct Judge<'a> {
    folder: &'a Path,
    options: &'a Options,
    refuses: bool,
    /// What was under the name before.
    original: Option<&'a FileImage>,
}

impl Judge<'_> {
    /// What whoever attaches is told.
    fn attached(&self, image: &Image) -> Result<String, Error> {
        image.put(self.folder)?;
        Ok(match Segment::attach(&self.folder.join(FILE)) {
            Ok(segment) => format!("a segment with {} metrics", segment.metrics().len()),
            Err(error) => error.to_string(),
        })
    }

    /// The names in the folder after the next writer came, counted, and made another segment beside.
    fn recovered(&self, image: &Image) -> Result<Result<BTreeSet<String>, String>, Error> {
        Image::default().put(self.folder)?;
        image.put(self.folder)?;
        let found = self.recover();
        let entries =
            std::fs::read_dir(self.folder).map_err(Error::io("read the folder of a walk"))?;
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into());
        let names: BTreeSet<String> = names.collect();
        Ok(found.and_then(|()| match names.iter().find(|name| name.ends_with(".new")) {
            Some(left) => Err(format!("{left} is left over")),
            None => Ok(names),
        }))
    }

    fn recover(&self) -> Result<(), String> {
        let path = self.folder.join(FILE);
        let opened = Segment::open_or_create(&path, APP, self.options);
        if self.refuses {
            let is_kept = self.is_original(&path);
            return match opened {
                Err(_) if is_kept => Ok(()),
                Err(_) => Err("a file that is not ours was changed".into()),
                Ok(_) => Err("a file that is not ours was used".into()),
            };
        }
        let segment = opened.map_err(|error| format!("the next writer cannot open it: {error}"))?;
        let damaged = self.folder.join(DAMAGED);
        if damaged.exists() && !self.is_original(&damaged) {
            return Err("what was kept as damaged is not what was there".into());
        }
        let count = || -> Result<Outcome, agent_shm::Error> {
            let writer = segment.writer()?;
            let spec = MetricSpec { name: "next", help: "", unit: "", shape: Shape::Counter };
            let series = writer.series(writer.metric(&spec)?, "")?;
            Ok(writer.add(&series, 1))
        };
        match count() {
            Ok(Outcome::Applied) => {}
            other => return Err(format!("the next writer cannot count: {other:?}")),
        }
        if let Some(fault) = segment.audit().faults.first() {
            return Err(format!("after the next writer counted: {fault}"));
        }
        // Whoever makes a segment sweeps what killed makers left.
        let other = Segment::open_or_create(&self.folder.join(OTHER), "other", self.options);
        other.map(drop).map_err(|error| format!("another segment cannot be made beside: {error}"))
    }

    fn is_original(&self, path: &Path) -> bool {
        let wanted = self.original.map(FileImage::bytes);
        wanted.is_some() && std::fs::read(path).ok() == wanted
    }
}

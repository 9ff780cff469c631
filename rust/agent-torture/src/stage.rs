//! The segment that an operation is walked in: its limits, what stands beside, and who lives beside.
//!
//! In half of the walks another writer lives while the walked one dies, in this process: a copy is put back into the same
//! file, so its lock stays. It has a counter of its own, which must go on whatever happened.

use crate::error::Error;
use crate::folder::Folder;
use crate::operation::Operation;
use crate::random::Random;
use agent_metric::{GaugeMode, Shape};
use agent_shm::{
    change_header, MetricSpec, Options, Outcome, Segment, Series, Writer, HASH_KEY_AT,
};
use std::path::{Path, PathBuf};

pub struct Stage {
    /// Before the folder, so that the locks go before the file does.
    pub beside: Option<Beside>,
    pub segment: Segment,
    pub options: Options,
    pub path: PathBuf,
    folder: Folder,
}

/// A writer that lives, and its counter.
pub struct Beside {
    pub writer: Writer,
    pub counter: Series,
}

pub const APP: &str = "torture";
pub const FILE: &str = "app.v3.seg";

impl Stage {
    pub fn new(
        parent: Option<&Path>,
        operation: &Operation,
        random: &mut Random,
    ) -> Result<Stage, Error> {
        let folder = Folder::new(parent, "steps")?;
        let (path, options) = (folder.path().join(FILE), operation.options());
        let open = || {
            Segment::open_or_create(&path, APP, &options)
                .map_err(Error::segment("make the segment of a walk"))
        };
        drop(open()?);
        set_hash_key(&path, random).map_err(Error::io("set the hash key of a walk"))?;
        // Who has a segment open keeps the key that it has read.
        let segment = open()?;
        let mut stage = Stage { beside: None, segment, options, path, folder };
        if operation.is_furnished {
            stage.furnish(random).map_err(Error::segment("furnish the segment of a walk"))?;
        }
        Ok(stage)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn furnish(&mut self, random: &mut Random) -> Result<(), agent_shm::Error> {
        let writer = self.segment.writer()?;
        let bounds = [0.5, 1.0];
        let shapes = [
            Shape::Counter,
            Shape::Explicit(&bounds),
            Shape::Exponential { schema: 1 },
            Shape::Gauge(GaugeMode::Sum),
            Shape::Summary(&bounds),
        ];
        for (index, shape) in shapes.iter().enumerate().take(random.below(5) as usize) {
            let name = format!("beside_{index}");
            let spec = MetricSpec { name: &name, help: "", unit: "", shape: *shape };
            let metric = writer.metric(&spec)?;
            for n in 0..random.below(3) {
                let series = writer.series(metric, &format!("n=\"{n}\""))?;
                let amount = random.below(50) + 1;
                let _: Outcome = match shape {
                    Shape::Counter => writer.add(&series, amount),
                    Shape::Gauge(_) => writer.set(&series, amount as f64),
                    _ => writer.observe(&series, 1.0, amount),
                };
            }
        }
        if random.chance(2) {
            let spec = MetricSpec { name: "alive", help: "", unit: "", shape: Shape::Counter };
            let counter = writer.series(writer.metric(&spec)?, "")?;
            let _: Outcome = writer.add(&counter, 5);
            self.beside = Some(Beside { writer, counter });
        }
        Ok(())
    }
}

/// Draws the key anew, from the seed: chains are the same in every run with it. Before anything is in the map.
fn set_hash_key(path: &Path, random: &mut Random) -> std::io::Result<()> {
    change_header(path, HASH_KEY_AT, &[random.number(), random.number()])
}

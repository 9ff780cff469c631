//! One operation from its first instruction to its last, with an image of the files after each that changed them.

use crate::decode::Effect;
use crate::error::Error;
use crate::image::Image;
use crate::stepper::{Act, Ended, Step, Victim};
use crate::watch::Watch;
use std::path::Path;

/// No operation takes so many instructions.
const STEPS_MAX: u64 = 20_000_000;

pub struct Walk {
    pub pid: u32,
    /// Instructions.
    pub steps: u64,
    /// After how many instructions the files looked so; the first is before the operation, the last after it. One that
    /// had been there before is there again.
    pub states: Vec<(u64, Image)>,
}

/// Walks what `prepare` gives, watching `folder`; `Ended` with the number of the instruction when it did not get through.
pub fn walk(
    folder: &Path,
    prepare: impl FnOnce() -> Act,
) -> Result<Result<Walk, (u64, Ended)>, Error> {
    let mut victim = match Victim::start(prepare)? {
        Ok(victim) => victim,
        Err(ended) => return Ok(Err((0, ended))),
    };
    let mut watch = Watch::new(folder)?;
    let mut walk = Walk { pid: victim.pid(), steps: 0, states: vec![(0, watch.image())] };
    loop {
        let effect = match victim.step()? {
            Ok(Step::Done) => break,
            Ok(Step::Ran(effect)) => effect,
            Err(ended) => return Ok(Err((walk.steps, ended))),
        };
        walk.steps += 1;
        if watch.look(effect)? {
            walk.states.push((walk.steps, watch.image()));
        }
        if walk.steps == STEPS_MAX {
            let text = format!("the operation is not over after {STEPS_MAX} instructions");
            return Ok(Err((walk.steps, Ended(text))));
        }
    }
    drop(victim);
    if watch.look(Effect::SystemCall)? {
        walk.states.push((walk.steps, watch.image()));
    }
    Ok(Ok(walk))
}

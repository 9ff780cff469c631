//! Slots: taken and given back, also where the last owner died at work.

use super::memory;
use crate::grain::Grain;
use crate::operation::*;
use crate::random::Random;
use agent_shm::Writer;

pub fn rows() -> Vec<Operation> {
    let row = |name, prepare, bind| on_segment(name, "slot", Grain::Nothing, prepare, bind);
    vec![
        row("claim a slot and release it", |s, _| writer(s), claim),
        row(
            "claim the slot of one who died at work",
            |s, random| {
                memory::leave_a_corpse(s, random);
                writer(s)
            },
            |_, _| Box::new(|w| drop(w.segment().writer())),
        ),
    ]
}

fn claim(_: &Writer, _: &mut Random) -> Act {
    Box::new(|w| drop(writer(w.segment())))
}

//! All five roles at once, and a death of one of them at any step: more than can be explored, so at random.

use crate::roles::*;
use crate::world::*;
use agent_shm::*;
use shuttle::rand::{thread_rng, Rng};

const ROLES: [Role; 5] =
    [Role::Writer, Role::Reclaimer, Role::Expirer, Role::Reader, Role::Recoverer];

/// One of those with a slot is killed in most orders; `d` was left by one that was killed before.
fn crowd(shape: Shape<'static>, pages: u64) {
    explore(None, move || {
        let steps = thread_rng().gen_range(0..200);
        let stage = Stage::new(shape, pages, Some(steps));
        // It lived longer than that.
        let mut stage = stage.or_else(|| Stage::new(shape, pages, None)).expect("no death");
        let mortal = thread_rng().gen_range(0..4);
        let acts = ROLES.map(|role| match ROLES.get(mortal) == Some(&role) {
            true => stage.act_and_die(role, thread_rng().gen_range(0..150)),
            false => stage.act(role),
        });
        let threads = acts.map(|act| thread::spawn(act));
        let done = threads.map(|thread| thread.join().unwrap());
        let done: Vec<(Role, Done)> = ROLES.into_iter().zip(done).collect();
        stage.check(&done);
    });
}

#[test]
fn five_roles_around_a_counter() {
    crowd(Shape::Counter, 3);
}

#[test]
fn five_roles_around_a_summary() {
    crowd(Shape::Summary(&[]), 8);
}

#[test]
fn five_roles_around_a_histogram_with_parts() {
    crowd(Shape::Exponential { schema: 0 }, 12);
}

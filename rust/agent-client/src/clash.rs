//! Sample names that two metrics of an app would have: the one that came later is on no page, and its program says so.
//!
//! Within one process the second definition is refused ([`Store::define`]). Here the first one is of another program: most
//! often of an earlier release, whose counter `jobs` left the sample `jobs_total` that is a gauge now. Pages give a name to
//! the metric that had it first, also when nobody lives who counts in it, since its numbers stay.
//!
//! Not promised: a word to the program that had the name first, where clocks were set back in between.

use crate::family::Family;
use crate::host::Host;
use crate::name::Class;
use crate::store::Store;
use agent_shm::Writer;

/// What the sample name of a family is to the one that had it first.
struct Held {
    sample: String,
    holder: String,
    class: Class,
}

impl Store {
    /// Tells of families that are on no page for their samples' names. Each is compared once in an epoch: who comes after it
    /// does not take its name.
    pub(crate) fn tell_clashes(&self, host: &dyn Host) {
        for (name, held) in self.clashes() {
            let (app, Held { sample, holder, class }) = (self.app(), held);
            let text = format!(
                "metric {name} of app {app:?} is on no page: the name {sample} is taken by the {} {holder}, which another \
                 program of the app defined before; rename one of them, or end the app's processes and remove all its \
                 numbers by `agent-metrics apps remove {app}`",
                class.name().to_lowercase(),
            );
            self.tell(host, &format!("clash {name}"), &text);
        }
    }

    fn clashes(&self) -> Vec<(String, Held)> {
        let epoch = self.epoch.get();
        let Some(writer) = self.opened(epoch) else { return Vec::new() };
        let fresh = self.fresh.take().into_iter();
        fresh.filter_map(|family| Some((family.name.clone(), held(writer, &family)?))).collect()
    }
}

/// The first sample of a family whose name another metric of the segment had before.
fn held(writer: &Writer, family: &Family) -> Option<Held> {
    let (_, own) = writer.find_metric(&family.name)?;
    for suffix in family.class.suffixes() {
        let sample = format!("{}{suffix}", family.name);
        for end in Class::ALL.iter().flat_map(|class| class.suffixes()) {
            let holder =
                sample.strip_suffix(end).filter(|&name| !name.is_empty() && name != family.name);
            let Some((_, other)) = holder.and_then(|name| writer.find_metric(name)) else {
                continue;
            };
            let class = Class::of_shape(&other.shape);
            if class.suffixes().contains(end) && other.first_unix_ms <= own.first_unix_ms {
                return Some(Held { sample, holder: other.name, class });
            }
        }
    }
    None
}

//! What a process looks for while it works: whether its file is still in its place, whether private memory can be left,
//! which definitions count, and whether there is room for what is aside.
//!
//! There is no thread: every slow call looks, and an update in 64. What takes a system call is done once a second, and
//! once a minute the time of the file is renewed, which says when the app was last alive.

use crate::aside::RETRY_MS;
use crate::binding::Binding;
use crate::family::Family;
use crate::host::Host;
use crate::refusal::Refusal;
use crate::store::{Store, ATTEMPTS, FUEL};
use agent_shm::{now_unix_ms, Error, Outcome, Parcel, OVERFLOW_LABELS, RENEW_MS};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Private memory is left for the segment that should be there, when it can be: asked so often.
const REBIND_MS: u64 = 1000;
/// So many times as long as such work took, it is not done again.
const SHARE: u32 = 10;
/// Label sets that are aside are asked for so long in one go, by the processor's time of this thread.
const ROOM_PASS: Duration = Duration::from_millis(50);

impl Store {
    /// Looks whether the segment is still the one to write to, and which definitions count. At the end of the fuel that is
    /// done once a second, in a slow call always: that is a system call.
    pub(crate) fn look(&self, host: &dyn Host) -> Result<(), Refusal> {
        let now = now_unix_ms();
        let is_soon = now.abs_diff(self.checked_ms.get()) < RETRY_MS;
        let is_burnt = self.live.get() != 0 && self.fuel.get() == 0;
        self.fuel.set(self.updates_to_next_look());
        if is_burnt && is_soon {
            self.join_again(host, now);
            return Ok(());
        }
        self.checked_ms.set(now);
        agent_shm::come_first_again();
        if self.leave_if_due(host) {
            return Ok(());
        }
        if let Some(segment) = self.segment() {
            segment.mend_header();
        }
        if now.abs_diff(self.renewed_ms.get()) >= RENEW_MS {
            self.renewed_ms.set(now);
            if let Some(segment) = self.segment() {
                segment.renew_time(now);
            }
        }
        if self.has_fallen_back() && now.abs_diff(self.rebind_ms.get()) >= REBIND_MS {
            self.rebind_ms.set(now);
            return self.come_back(host);
        }
        self.join_again(host, now);
        if self.is_open() && self.aside().is_some() && self.may_ask_for_room() {
            self.bring_back(host)?;
        }
        Ok(())
    }

    /// Fewer where a page misses what this process counts, so that a process with few updates does not miss its turn.
    pub(crate) fn updates_to_next_look(&self) -> u32 {
        match self.has_hidden.get() || self.has_fallen_back() {
            true => 1,
            false => FUEL,
        }
    }

    /// Leaves a segment that was removed, replaced, truncated or damaged; the next use begins in another.
    fn leave_if_due(&self, host: &dyn Host) -> bool {
        let why = self.inner.borrow().binding.as_ref().and_then(Binding::why_leave);
        let Some(why) = why else { return false };
        let (app, path) = (self.app(), self.path().unwrap_or_default());
        self.unbind();
        let text = format!("metrics of app {app:?} begin anew, because {why}: {}", path.display());
        self.tell(host, why, &text);
        true
    }

    /// Joins families again whose name has a new definition, or which were not shown.
    fn join_again(&self, host: &dyn Host, now: u64) {
        let hidden = self.join_where_needed(now);
        for name in hidden {
            let text = format!(
                "metric {name} of app {:?} is defined otherwise by a process that came later: what \
                 this process counts in it is on no page while such a process lives",
                self.app()
            );
            self.tell(host, &format!("hidden {name}"), &text);
        }
        self.tell_clashes(host);
    }

    /// Gives the names of families that pages do not show.
    fn join_where_needed(&self, now: u64) -> Vec<String> {
        let mut hidden = Vec::new();
        let epoch = self.epoch.get();
        let Some(writer) = self.opened(epoch) else { return hidden };
        let births = writer.segment().births();
        let is_due = self.join_due.get().is_none_or(|due| Instant::now() >= due);
        let is_new = is_due && births != self.births.get();
        if !is_new && now.abs_diff(self.looked_ms.get()) < RETRY_MS {
            return hidden;
        }
        self.looked_ms.set(now);
        let began = Instant::now();
        let mut changed = false;
        for family in self.families() {
            if !family.is_joined(epoch) || !is_new && family.is_shown() {
                continue;
            }
            let before = family.known_id(epoch);
            let joined = self.join(&family, writer).ok();
            let is_anew = joined.is_some() && joined != before;
            if let (Some(id), true) = (joined, is_anew && family.label_names.is_empty()) {
                // It began anew, at 0.
                let _ = writer.series(id, "");
            }
            changed |= is_anew;
            if !family.is_shown() {
                hidden.push(family.name.clone());
            }
        }
        self.has_hidden.set(!hidden.is_empty());
        if is_new {
            // As it was before: what appeared meanwhile is looked at next time. A process that defines thousands costs
            // the others a tenth of their time at most.
            self.births.set(births);
            self.join_due.set(Some(Instant::now() + began.elapsed() * SHARE));
        }
        if changed {
            // Others of this definition find their series gone as soon as memory is reclaimed.
            for _ in 0..3 {
                writer.reclaim_now();
            }
            let next = self.next_epoch();
            for family in self.families() {
                family.move_to(epoch, next);
            }
            self.live.set(next);
        }
        hidden
    }

    /// Leaves private memory when the segment that should be there can be had; what was counted goes along.
    fn come_back(&self, host: &dyn Host) -> Result<(), Refusal> {
        let before = self.epoch.get();
        // What cannot be had yet is no news.
        let Ok((Some(binding), _)) = Binding::open(&self.source, &self.options, host) else {
            return Ok(());
        };
        // Finding the app may have run code that came back before us.
        if binding.is_private() || before != self.epoch.get() || !self.has_fallen_back() {
            return Ok(());
        }
        let Ok(writer) = binding.segment.writer() else { return Ok(()) };
        // SAFETY: no reference to the writer is out.
        let before = unsafe { (*self.writer.get()).take() };
        let old = {
            let mut inner = self.inner.borrow_mut();
            inner.fallback = None;
            inner.binding.replace(binding)
        };
        let epoch = self.next_segment();
        self.put_writer(writer);
        self.announce();
        if self.opened(epoch).is_none() {
            return Ok(());
        }
        let Some(before) = before else { return Ok(()) };
        let mut result = Ok(());
        for family in before.view().families() {
            let Some(known) = self.family(&family.meta().name) else { continue };
            family.for_each_parcel(&mut |labels, mut parcel| {
                if !self.take_in(&known, labels, &mut parcel) {
                    let aside = self.take_aside(host, &known, labels, &mut parcel);
                    // What is refused to a strict user costs nothing of what has room.
                    result = std::mem::replace(&mut result, Ok(())).and(aside);
                }
            });
        }
        drop(before);
        drop(old);
        result
    }

    /// Adds what was counted elsewhere to the segment; `false` when there is no room for all of it: the rest is in the
    /// parcel.
    fn take_in(&self, family: &Arc<Family>, labels: &str, parcel: &mut Parcel) -> bool {
        for _ in 0..ATTEMPTS {
            let (Ok(series), Some(writer)) = (self.place(family, labels), self.opened_now()) else {
                return false;
            };
            match writer.absorb(&series, parcel) {
                // It expired or was removed since: what was added is in it, the rest goes into a new one.
                Outcome::Stale => continue,
                Outcome::NoRoom => return false,
                Outcome::Refused => self.lose(),
                Outcome::Applied => {}
            }
            if let (true, Ok(id)) = (labels == OVERFLOW_LABELS, self.id(family)) {
                writer.note_overflow(id);
            }
            return true;
        }
        false
    }

    fn take_aside(
        &self,
        host: &dyn Host,
        family: &Family,
        labels: &str,
        parcel: &mut Parcel,
    ) -> Result<(), Refusal> {
        let why = Error::Full { what: "bytes_max" };
        let series = self.place_aside(host, family, labels, &why).inspect_err(|_| self.lose())?;
        let outcome = match (series, self.aside()) {
            (Some(series), Some((aside, _))) => aside.writer.absorb(&series, parcel),
            _ => Outcome::NoRoom,
        };
        if outcome != Outcome::Applied {
            self.lose();
        }
        Ok(())
    }

    /// Adds what is aside to the segment, as far as there is room by now. Handles find their series gone from here, and
    /// get them there.
    fn bring_back(&self, host: &dyn Host) -> Result<(), Refusal> {
        let Some((aside, _)) = self.aside() else { return Ok(()) };
        let began = thread_cpu();
        let asked_before = self.room_asked.get();
        let (mut result, mut emptied) = (Ok(()), Vec::new());
        let (mut seen, mut is_over, mut asking) = (0, false, None);
        for family in aside.writer.view().families() {
            let Some(known) = self.family(&family.meta().name) else { continue };
            let mut is_all = true;
            family.for_each_parcel(&mut |labels, mut parcel| {
                seen += 1;
                if seen > asked_before {
                    // From the first one that is asked for: else passes that skip many would never ask for one.
                    let first = *asking.get_or_insert_with(thread_cpu);
                    is_over |= thread_cpu().saturating_sub(first) > ROOM_PASS;
                }
                if is_over || seen <= asked_before {
                    is_all = false;
                    return;
                }
                self.room_asked.set(seen);
                let before = parcel.len();
                let is_in = self.take_in(&known, labels, &mut parcel);
                is_all &= is_in;
                if is_in || parcel.len() < before {
                    aside.remove(&known, labels);
                }
                if !is_in && parcel.len() < before {
                    let aside = self.take_aside(host, &known, labels, &mut parcel);
                    result = std::mem::replace(&mut result, Ok(())).and(aside);
                }
            });
            if is_all {
                emptied.push(known.name.clone());
            }
        }
        if !is_over {
            // All of them were asked for: from the first one on again.
            self.room_asked.set(0);
        }
        let took = thread_cpu().saturating_sub(began);
        self.room_due.set(Some(Instant::now() + took * SHARE));
        aside.forget(&emptied);
        result
    }

    /// Whether the segment is to be asked again whether it has room.
    fn may_ask_for_room(&self) -> bool {
        let now = now_unix_ms();
        let is_due = self.room_due.get().is_none_or(|due| Instant::now() >= due);
        // Not all were asked for last time: goes on as soon as it may.
        let is_next = self.room_asked.get() > 0 || now.abs_diff(self.aside_ms.get()) >= RETRY_MS;
        let may = is_due && is_next;
        if may {
            self.aside_ms.set(now);
        }
        may
    }
}

/// Processor time of this thread so far.
fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills in a valid struct.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

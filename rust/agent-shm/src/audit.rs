//! An audit: what is in a segment, block by block, and what contradicts what.
//!
//! For a segment in which nobody is at work and that was reclaimed. Then every block is free, or a live entry in exactly
//! one chain, or a part that hangs below one; every count is what was counted. Reads only, and checks every offset.
//!
//! Not promised: anything while a writer works, since what it is about to finish looks like a fault.

use crate::block::{self, EXPIRING, FREE, LIVE, PART};
use crate::entry::{self, Kind, OVERFLOW_LABELS};
use crate::header::Sealed;
use crate::inner::Inner;
use crate::layout::*;
use crate::metric;
use crate::page::PageWord;
use crate::segment::Segment;
use crate::sync::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where the two words of the hash key stand in the file, and the two of the boot: tests that repeat a run need the one,
/// tests of a reboot the other. See [`change_header`].
pub const HASH_KEY_AT: u64 = WORD_KEY;
pub const BOOT_ID_AT: u64 = WORD_BOOT;

/// Makes a file as if its header had been written with these words from an offset on.
///
/// # Errors
/// What the file system says.
pub fn change_header(path: &Path, offset: u64, words: &[u64]) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut bytes = [0; HEADER_BYTES as usize];
    file.read_exact_at(&mut bytes, 0)?;
    let word = |offset: u64| {
        let start = offset as usize;
        u64::from_le_bytes(bytes[start..start + 8].try_into().unwrap_or_default())
    };
    let (mut sealed, _) = Sealed::find(word);
    for (offset, &value) in (offset..).step_by(8).zip(words) {
        sealed.set_word(offset, value);
    }
    sealed.bytes().iter().try_for_each(|(offset, bytes)| file.write_all_at(bytes, *offset))
}

/// At most so many faults are written down.
const FAULTS_MAX: usize = 20;
/// No tree of parts is deeper.
const DEPTH_MAX: u32 = 5;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// Blocks in use, by their size in bytes.
    pub blocks: BTreeMap<u64, u64>,
    /// Pages that have a size class.
    pub pages: u64,
    /// What should not be, one sentence each.
    pub faults: Vec<String>,
}

impl Segment {
    /// Looks at every block.
    pub fn audit(&self) -> Audit {
        let mut auditor = Auditor {
            inner: &self.inner,
            audit: Audit::default(),
            entries: BTreeSet::new(),
            parts: BTreeSet::new(),
            chained: HashSet::new(),
            hung: HashSet::new(),
            recent: 0,
        };
        auditor.blocks();
        auditor.chains();
        auditor.entries();
        auditor.counts();
        auditor.audit
    }
}

struct Auditor<'a> {
    inner: &'a Inner,
    audit: Audit,
    /// Live entries, and parts, by the state of their blocks.
    entries: BTreeSet<u64>,
    parts: BTreeSet<u64>,
    /// Entries found in chains, and parts found below entries.
    chained: HashSet<u64>,
    hung: HashSet<u64>,
    /// Chunks of newest values that count.
    recent: u64,
}

impl Auditor<'_> {
    fn word(&self, offset: u64) -> u64 {
        self.inner.region.word(offset).load(Ordering::Acquire)
    }

    fn fault(&mut self, text: String) {
        if self.audit.faults.len() < FAULTS_MAX {
            self.audit.faults.push(text);
        }
    }

    /// The states of all blocks, and the counts of pages.
    fn blocks(&mut self) {
        let Inner { region, places, .. } = self.inner;
        for index in 0..block::pages_committed(region, places) {
            let page = match block::page_word_of(region, places, index) {
                PageWord::Class(page) => page,
                PageWord::NoClass => continue,
                PageWord::Damaged => {
                    self.fault(format!("page {index} is of no class that there is"));
                    continue;
                }
            };
            self.audit.pages += 1;
            let mut used = 0;
            for at in block::blocks(places, index, page.class) {
                match block::state(region, at).state {
                    FREE => continue,
                    LIVE | EXPIRING => drop(self.entries.insert(at)),
                    PART => drop(self.parts.insert(at)),
                    state => self.fault(format!("block {at} is left in state {state}")),
                }
                used += 1;
            }
            let size = CLASSES[usize::from(page.class)];
            *self.audit.blocks.entry(size).or_default() += used;
            if page.used != used {
                let told = page.used;
                self.fault(format!("page {index} counts {told} blocks in use, it has {used}"));
            }
        }
        self.audit.blocks.retain(|_, used| *used > 0);
    }

    /// Every link of every chain.
    fn chains(&mut self) {
        let places = self.inner.places;
        for index in 0..places.heads_len {
            let mut link = self.word(places.heads + index * 8);
            while link as u32 >> 1 != 0 {
                let at = entry::offset(link as u32 >> 1);
                if at < places.blocks || at >= places.total {
                    self.fault(format!("chain {index} leads outside, to {at}"));
                    break;
                }
                if !self.chained.insert(at) {
                    self.fault(format!("entry {at} is in a chain twice, of which one is {index}"));
                    break;
                }
                if !self.entries.contains(&at) {
                    self.fault(format!("chain {index} leads to {at}, where no entry lives"));
                }
                link = self.word(at + ENTRY_NEXT);
            }
        }
    }

    /// Every live entry: in a chain, its key there once, its metric alive; and all that hangs below it.
    fn entries(&mut self) {
        let mut keys = HashSet::new();
        for at in self.entries.clone() {
            let meta = entry::meta(&self.inner.region, at);
            if !self.chained.contains(&at) {
                self.fault(format!("entry {at} lives and is in no chain"));
            }
            self.below(at + ENTRY_EXTRA, 1, 0);
            if !meta.is(Kind::Series) {
                continue;
            }
            let owner = entry::offset(meta.metric);
            let payload = metric::payload(&self.inner.region, owner);
            let Some(payload) = payload.filter(|_| self.entries.contains(&owner)) else {
                self.fault(format!("series {at} belongs to {owner}, where no metric lives"));
                continue;
            };
            let mut key = Vec::new();
            let len = usize::from(meta.key_len);
            entry::read_bytes(&self.inner.region, at + ENTRY_KEY, len, &mut key);
            let pointers = metric::cell_pointers(self.word(payload + METRIC_SHAPE));
            self.below(entry::cells(at, len), pointers, 0);
            if !keys.insert((meta.metric, key)) {
                self.fault(format!("series {at} has the labels of another one"));
            }
        }
        for at in self.parts.clone() {
            if !self.hung.contains(&at) {
                self.fault(format!("part {at} hangs nowhere"));
            }
        }
    }

    fn below(&mut self, start: u64, count: u64, depth: u32) {
        if depth > DEPTH_MAX {
            return self.fault(format!("parts hang deeper than {DEPTH_MAX} below {start}"));
        }
        for link in (0..count).map(|index| start + index * 8) {
            let at = entry::offset(self.word(link) as u32);
            if at == 0 {
                continue;
            }
            if !self.parts.contains(&at) {
                self.fault(format!("pointer {link} leads to {at}, where no part is"));
                continue;
            }
            let header = self.word(at + PART_LINK);
            if header >> 32 != link / 8 {
                let told = (header >> 32) * 8;
                self.fault(format!("part {at} hangs in {link} and says {told}"));
            }
            if !self.hung.insert(at) {
                self.fault(format!("part {at} hangs twice, the second time in {link}"));
                continue;
            }
            self.recent += u64::from(header & PART_IS_RECENT != 0);
            self.below(at + PART_BODY, header & 0xffff, depth + 1);
        }
    }

    /// What the limits are compared with.
    fn counts(&mut self) {
        let region = &self.inner.region;
        let (mut series, mut metrics) = (0, 0);
        let mut of_metrics: HashMap<u64, u64> = HashMap::new();
        for &at in &self.entries {
            let meta = entry::meta(region, at);
            if meta.is(Kind::Metric) {
                metrics += 1;
                of_metrics.entry(at).or_default();
            } else if meta.key_len as usize != OVERFLOW_LABELS.len()
                || !entry::key_is(region, at, OVERFLOW_LABELS.as_bytes())
            {
                series += 1;
                *of_metrics.entry(entry::offset(meta.metric)).or_default() += 1;
            }
        }
        for (what, word, found) in [
            ("series", WORD_SERIES, series),
            ("metrics", WORD_METRICS, metrics),
            ("chunks of newest values", WORD_RECENT, self.recent),
        ] {
            let told = self.word(word);
            if told != found {
                self.fault(format!("{told} {what} are counted, there are {found}"));
            }
        }
        for (at, found) in of_metrics {
            let Some(payload) = metric::payload(&self.inner.region, at) else { continue };
            let told = self.word(payload + METRIC_SERIES);
            if told != found {
                self.fault(format!("metric {at} counts {told} series, it has {found}"));
            }
        }
    }
}

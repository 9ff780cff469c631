//! The file of a segment: who may use it, how it is made and opened, how a stale one is replaced.
//!
//! Opening is a race that everybody survives: a new file is filled in under another name and *linked* to its own, which
//! fails when somebody was faster, whose file is then opened. Attaching says at which stage it failed and why.
//!
//! A folder that gives its group to what is made in it (setgid) and lets the group read is meant to be read by a collector
//! of another user: files in it can be read by the group too, whatever the umask is. Nobody but the owner ever writes.
//!
//! Refused, with the reason: symbolic links, anything but a regular file, another owner, write permission for group or
//! others, and what does not begin like a segment of this layout.
//!
//! Replaced: a file of an earlier boot, and one that was never finished. Kept beside as `NAME.damaged`: one whose size its
//! header contradicts, and one that does not begin like a segment although its name, its limits and its size are those of
//! one: the first words of it are damaged. A file with a living writer is never replaced, whatever it looks like: the writers'
//! locks are asked, and taken all at once for the moment of the replacement, so that nobody can come meanwhile.

use crate::beside::suffix;
use crate::error::Error;
use crate::header::{Sealed, Soundness};
use crate::identity::{above_standard, leads_to};
use crate::inner::Inner;
use crate::layout::*;
use crate::lock;
use crate::region::Region;
use crate::segment::Segment;
use crate::sync::{Ordering, Pair};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering as StdOrdering};

/// Attempts to make or open a file that others make and replace at the same time.
const ATTEMPTS: u32 = 100;

impl Segment {
    /// Opens the segment at `path` for writing, making it when there is none.
    ///
    /// # Errors
    /// When the directory or file cannot be used, belongs to another user, is of another layout, or memory for it
    /// cannot be had. The caller falls back to [`Segment::anonymous`].
    pub fn open_or_create(path: &Path, app: &str, options: &Options) -> Result<Segment, Error> {
        if !Pair::is_lock_free() {
            return Err(Error::NoWideAtomics);
        }
        let options = options.clamped();
        make_directory(path)?;
        for _ in 0..ATTEMPTS {
            match open(path, true) {
                Ok(file) => match check(&file, path, effective_user()) {
                    Ok(found) => {
                        let segment = map(&file, path, found, true)?;
                        if !segment.is_damaged() {
                            return Ok(segment);
                        }
                        replace(&file, path, Some("its chains lead nowhere".into()))?;
                    }
                    Err(Stale::Replace) => replace(&file, path, None)?,
                    Err(Stale::Damaged(reason)) => replace(&file, path, Some(reason))?,
                    Err(Stale::Spoiled(error)) => replace(&file, path, Some(error.to_string()))?,
                    Err(Stale::Refuse(error)) => return Err(error),
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    create(path, app, &options)?
                }
                Err(error) => return Err(not_opened(path, error)),
            }
        }
        let reason = "it keeps being replaced by others".into();
        Err(Error::NotUsable { path: path.into(), reason })
    }

    /// Attaches an existing segment for reading.
    pub fn attach(path: &Path) -> Result<Segment, Error> {
        Segment::attach_of(path, effective_user())
    }

    /// Attaches a segment of another user for reading: the file has to be `owner`'s. Whoever asks knows that only this
    /// user can put files into the folder.
    pub fn attach_of(path: &Path, owner: u32) -> Result<Segment, Error> {
        let file = open(path, false).map_err(|error| not_opened(path, error))?;
        let not_usable = |reason| Err(Error::NotUsable { path: path.into(), reason });
        match check(&file, path, owner) {
            Ok(found) => map(&file, path, found, false),
            Err(Stale::Refuse(error) | Stale::Spoiled(error)) => Err(error),
            Err(Stale::Damaged(reason)) => not_usable(reason),
            Err(Stale::Replace) => {
                not_usable("it was made before the last boot, or never finished".into())
            }
        }
    }
}

fn map(file: &File, path: &Path, found: Found, writable: bool) -> Result<Segment, Error> {
    let (sealed, soundness) = found;
    let places = Places::of(&sealed.options());
    let fail = |source| Error::Io { stage: "look at", path: path.into(), source };
    if writable && file.metadata().map_err(fail)?.len() < places.total {
        file.set_len(places.total).map_err(fail)?;
    }
    let region = Region::map(file, path, &places, writable)?;
    if writable && soundness == Soundness::One {
        sealed.put(&region);
    }
    Ok(Segment::of(Inner::new(region, sealed)))
}

/// The header of a file that may be used.
type Found = (Sealed, Soundness);

enum Stale {
    /// Of another boot, or never finished, and nobody uses it.
    Replace,
    /// It contradicts itself.
    Damaged(String),
    /// Its first two words are not those of a segment that we read; its name, limits and length are.
    Spoiled(Error),
    Refuse(Error),
}

fn open(path: &Path, write: bool) -> io::Result<File> {
    let flags = libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(flags)
        .open(path)
        .and_then(above_standard)
}

fn not_opened(path: &Path, source: io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::ELOOP) => {
            Error::NotUsable { path: path.into(), reason: "it is a symbolic link".into() }
        }
        _ => Error::Io { stage: "open", path: path.into(), source },
    }
}

/// Reads the header through the file, not a mapping, so that a short file is an error and nothing else.
fn check(file: &File, path: &Path, owner: u32) -> Result<Found, Stale> {
    let not_usable = |reason: String| Stale::Refuse(Error::NotUsable { path: path.into(), reason });
    let io = |source| {
        Stale::Refuse(Error::Io { stage: "read the header of", path: path.into(), source })
    };
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(not_usable("it is not a regular file".into()));
    }
    if metadata.uid() != owner {
        let found = metadata.uid();
        let reason = match owner == effective_user() {
            true => format!("it belongs to user {found}, we are {owner}"),
            false => format!("it belongs to user {found}, its folder to {owner}"),
        };
        return Err(not_usable(reason));
    }
    if metadata.mode() & 0o022 != 0 {
        let mode = metadata.mode() & 0o777;
        return Err(not_usable(format!("others may write to it (mode {mode:o})")));
    }
    let mut bytes = [0; HEADER_BYTES as usize];
    let mut reader = file;
    io::Seek::seek(&mut reader, io::SeekFrom::Start(0)).map_err(io)?;
    let mut filled = 0;
    while filled < bytes.len() {
        match reader.read(&mut bytes[filled..]).map_err(io)? {
            0 => break,
            n => filled += n,
        }
    }
    let word = |offset: u64| {
        let start = offset as usize;
        u64::from_le_bytes(bytes[start..start + 8].try_into().unwrap_or_default())
    };
    if filled < 8 && MAGIC.to_le_bytes().starts_with(&bytes[..filled]) {
        return Err(Stale::Damaged(format!("it is {filled} bytes long, shorter than a header")));
    }
    let (sealed, soundness) = Sealed::find(word);
    let options = sealed.options();
    let (length, places) = (metadata.len(), Places::of(&options.clamped()));
    let has_limits = options.clamped() == options;
    // Shorter by what nobody has used is as good: whoever writes makes it whole again.
    let has_length = (places.used(word(WORD_COMMITTED))..=places.total).contains(&length);
    if let Some(error) = other_kind(path, &sealed) {
        let is_emptied = bytes.iter().all(|&byte| byte == 0) && length > HEADER_BYTES;
        let is_ours = (has_limits && has_length || is_emptied) && is_named_as_segment(path);
        return Err(if is_ours { Stale::Spoiled(error) } else { Stale::Refuse(error) });
    }
    // Where the kernel does not tell (0), only living writers say that the file is of this boot.
    if sealed.boot_id() != boot_id() && !lock::is_any_slot_locked(file) {
        return Err(Stale::Replace);
    }
    if !has_limits {
        return Err(Stale::Damaged("its limits are out of range".into()));
    }
    if !has_length {
        let reason = format!("it is {length} bytes long, its header speaks of {}", places.total);
        return Err(Stale::Damaged(reason));
    }
    if soundness == Soundness::None {
        return Err(Stale::Damaged("its header contradicts itself".into()));
    }
    Ok((sealed, soundness))
}

/// Why the first two words of a header are not those of a segment that this version reads.
fn other_kind(path: &Path, sealed: &Sealed) -> Option<Error> {
    let not_usable =
        |reason: &str| Some(Error::NotUsable { path: path.into(), reason: reason.into() });
    let found = (sealed.word(WORD_LAYOUT) >> 32) as u32;
    if sealed.word(WORD_MAGIC) != MAGIC {
        not_usable("it does not begin like a segment")
    } else if found != LAYOUT_VERSION {
        Some(Error::OtherLayout { path: path.into(), found, expected: LAYOUT_VERSION })
    } else if sealed.word(WORD_LAYOUT) as u32 != layout_hash() {
        not_usable("its layout differs although the version is the same")
    } else {
        None
    }
}

/// Whether only a segment of this layout has such a name.
fn is_named_as_segment(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(&suffix()))
}

fn effective_user() -> u32 {
    // SAFETY: a system call without arguments.
    unsafe { libc::geteuid() }
}

fn folder_of(path: &Path) -> &Path {
    // Of a name alone it is the empty path.
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn make_directory(path: &Path) -> Result<(), Error> {
    let directory = folder_of(path);
    let fail = |stage, source| Error::Io { stage, path: directory.into(), source };
    match fs::DirBuilder::new().mode(0o700).recursive(true).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(fail("make directory", error))
        }
        _ => {
            let metadata = fs::metadata(directory).map_err(|e| fail("look at directory", e))?;
            let uid = effective_user();
            if metadata.uid() != uid || metadata.mode() & 0o022 != 0 {
                let mode = metadata.mode() & 0o7777;
                let reason = format!(
                    "the directory {} belongs to user {} with mode {mode:o}; it must be ours ({uid}) alone",
                    directory.display(),
                    metadata.uid()
                );
                return Err(Error::NotUsable { path: path.into(), reason });
            }
            Ok(())
        }
    }
}

/// Ends the names of files that are not segments yet.
const NEW: &str = ".new";

/// Makes the file under a name of its own and links it to `path`; somebody else's link there is as good. When something
/// came in between, nothing was made, and the caller looks again.
fn create(path: &Path, app: &str, options: &Options) -> Result<(), Error> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    sweep(path);
    let count = COUNT.fetch_add(1, StdOrdering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.{count}{NEW}", std::process::id()));
    let fail = |stage, path: &Path, source| Error::Io { stage, path: path.into(), source };
    let file = match open_new(&temporary) {
        // Of another process with our id, in another container.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other.map_err(|source| fail("create", &temporary, source))?,
    };
    match lock::try_lock(&file, lock::MAKER) {
        Ok(true) => {}
        // Somebody sweeps, and came before the lock.
        Ok(false) => return Ok(()),
        Err(source) => {
            let _ = fs::remove_file(&temporary);
            return Err(fail("lock", &temporary, source));
        }
    }
    // `file` holds the lock until the new one has its name, or is gone.
    let made = fill(&file, &temporary, app, options);
    let named = made.as_ref().map_or(Ok(()), |_| fs::hard_link(&temporary, path));
    let _ = fs::remove_file(&temporary);
    made?;
    match named.map_err(|error| (error.kind(), error)) {
        Ok(()) | Err((io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound, _)) => Ok(()),
        Err((_, source)) => Err(fail("name", path, source)),
    }
}

/// Removes what processes left that were killed while they made a segment: files that nobody holds the lock of.
fn sweep(path: &Path) {
    let entries = fs::read_dir(folder_of(path)).into_iter().flatten();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.contains(".seg.") && name.ends_with(NEW) {
            let left = open(&entry.path(), true);
            if left.is_ok_and(|file| lock::try_lock(&file, lock::MAKER).unwrap_or(false)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn open_new(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
        .open(path)
        .and_then(above_standard)?;
    let folder = fs::metadata(folder_of(path))?;
    let (mode, group) = (folder.mode(), file.metadata()?.gid());
    if mode & libc::S_ISGID != 0 && mode & libc::S_IRGRP != 0 && group == folder.gid() {
        file.set_permissions(fs::Permissions::from_mode(0o640))?;
    }
    Ok(file)
}

fn fill(file: &File, temporary: &Path, app: &str, options: &Options) -> Result<Region, Error> {
    let fail = |stage| move |source| Error::Io { stage, path: temporary.into(), source };
    let key = random_key().map_err(fail("draw a hash key for"))?;
    let places = Places::of(options);
    if places.total > file_bytes_max() {
        // Asked before: the system call would also send a signal that ends a process.
        return Err(fail("make room for")(io::Error::from_raw_os_error(libc::EFBIG)));
    }
    file.set_len(places.total).map_err(fail("make room for"))?;
    let region = Region::map(file, temporary, &places, true)?;
    region.commit(0, places.slots).map_err(fail("commit memory of"))?;
    region.word(WORD_EPOCH).store(1, Ordering::Relaxed);
    Sealed::new(app, options, boot_id(), key).put(&region);
    Ok(region)
}

/// From the kernel: a jail has no `/dev/urandom`.
fn random_key() -> io::Result<[u64; 2]> {
    let mut key = [0_u64; 2];
    loop {
        // SAFETY: 16 bytes of ours; so few are given whole or not at all.
        let given = unsafe { libc::getrandom(key.as_mut_ptr().cast(), 16, 0) };
        match given {
            16 => return Ok(key),
            _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return Err(io::Error::last_os_error()),
        }
    }
}

/// The largest file that this process may make.
fn file_bytes_max() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the kernel fills in a valid struct.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
    limit.rlim_cur
}

/// Takes a file away that nobody uses: one that a reboot left behind is removed, a damaged one gets another name. Only
/// one process gets to, only while nobody lives in it, and only while it is still that file.
fn replace(file: &File, path: &Path, damage: Option<String>) -> Result<(), Error> {
    let fail = |source| Error::Io { stage: "replace", path: path.into(), source };
    if !lock::try_lock(file, lock::REPLACE).map_err(fail)? {
        std::thread::yield_now();
        return Ok(());
    }
    if !lock::try_lock_all_slots(file).map_err(fail)? {
        return match damage {
            Some(reason) => Err(Error::Damaged { path: path.into(), reason }),
            None => Ok(()),
        };
    }
    let stale = file.metadata().map_err(fail)?;
    if leads_to(path, (stale.dev(), stale.ino())) != Some(true) {
        return Ok(());
    }
    match damage {
        None => fs::remove_file(path).map_err(fail),
        Some(_) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            fs::rename(path, path.with_file_name(format!("{name}.damaged"))).map_err(fail)
        }
    }
}

/// Differs after every boot of the machine; 0 when the kernel does not say.
fn boot_id() -> u128 {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0)
}

//! What this machine remembers of a producer: how much of which input its requests were made of.
//!
//! ```text
//! <state>/producers/<stream and id, hashed>        two slots, written in turn
//!   {"requests":8,"bytes":51200,"sum":"9f2c…"}     after 8 requests, so much of the input is sent
//!   {"requests":7,"bytes":44800,"sum":"01ab…"}
//! ```
//! A slot is on disk before its request is sent, so that whatever interrupts it the server has what
//! the newer slot says or what the older one says, and the newer request can be made again, byte
//! by byte. The server knows how many requests it has and nothing of the input: without this an
//! input that has grown, or another one, would lose what the count passes over.
//!
//! Whoever opens one removes others that came to their end long ago: without a journal its producer
//! is refused, so nothing is ever stored twice for want of it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use ring::digest;
use serde_json::{Value, json};
use weir_io::{
    File, World,
    disk::{Create, Lock},
    tasks,
};

use super::cut::Mark;
use crate::{config::Environment, wire::hex::hex};

/// Bytes of a slot: one sector, so that a write of one leaves the other alone.
const SLOT_BYTES: usize = 512;
/// Letters of a journal's name.
const NAME_LETTERS: usize = 32;
/// How long the journal stays of an input whose last request was answered.
const REST_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Journals that one call looks at: those behind its own, by name, so that others get others.
const LOOKS_MAX: usize = 200;
/// Attempts at a lock that somebody removes meanwhile.
const LOCK_ATTEMPTS: u32 = 4;

/// The directory for what is to be remembered, if the user has one.
pub(super) fn directory(environment: &Environment) -> Option<PathBuf> {
    let path = |name| environment.get(name).map(PathBuf::from);
    path("WEIR_STATE_DIR")
        .or_else(|| Some(path("XDG_STATE_HOME")?.join("weir")))
        .or_else(|| Some(path("HOME")?.join(".local/state/weir")))
}

/// What was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Requests, with this one.
    pub(super) requests: u64,
    /// Where in the input the last of them ends.
    pub(super) mark: Mark,
    /// Whether it closes the stream.
    pub(super) closed: bool,
    /// Whether the server has it for sure.
    pub(super) sure: bool,
}

/// Where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resume {
    /// What the server has for sure.
    pub(super) base: Option<Slot>,
    /// The request behind that, which was sent.
    pub(super) again: Option<Slot>,
}

/// The memory of one producer of one stream. Nobody else has it meanwhile.
pub(super) struct Journal {
    world: World,
    file: Arc<dyn File>,
    path: PathBuf,
    _lock: Box<dyn Lock>,
}

impl Journal {
    /// Opens the memory of the producer `id` of a stream; `of` tells it from all others.
    ///
    /// # Errors
    /// Another process has it, or the disk refuses.
    pub(super) async fn open(
        world: &World,
        directory: &Path,
        of: &str,
        id: &str,
    ) -> anyhow::Result<(Self, Resume)> {
        let name = digest::digest(&digest::SHA256, format!("{of}\n{id}").as_bytes());
        let name = hex(&name.as_ref()[..16]);
        let folder = directory.join("producers");
        let path = folder.join(&name);
        let lock = folder.join(format!("{name}.lock"));
        let (shared, known) = (world.clone(), path.clone());
        let opened = tasks::run(&*world.blocking, move || {
            let disk = &*shared.disk;
            disk.create_dir_all(&folder)?;
            let Some(lock) = hold(&shared, &lock)? else { return Ok(None) };
            // What can't be removed now is removed another time.
            drop(sweep(&shared, &folder, &name));
            let file = match disk.open_to_write(&known) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let file = disk.create(&known, Create::Private)?;
                    disk.sync_dir(&folder)?;
                    file
                }
                file => file?,
            };
            let bytes = content(&*file)?;
            io::Result::Ok(Some((lock, file, bytes)))
        });
        let opened = opened.await?.with_context(|| format!("cannot open {}", path.display()))?;
        let Some((lock, file, bytes)) = opened else {
            bail!("another process appends with the producer {id}: wait for it, or take another id")
        };
        let slots = bytes.chunks(SLOT_BYTES).filter_map(read);
        let resume = choose(slots.collect()).with_context(|| {
            format!("{} is damaged: remove it and take another --producer-id", path.display())
        })?;
        let world = world.clone();
        Ok((Self { world, file, path, _lock: lock }, resume))
    }

    /// Remembers a request that is about to be sent, or that the server has for sure.
    pub(super) async fn note(&self, slot: &Slot) -> anyhow::Result<()> {
        let Slot { requests, mark, closed, sure } = slot;
        let slot = json!({
            "requests": requests,
            "bytes": mark.bytes,
            "sum": hex(&mark.sum),
            "closed": closed,
            "sure": sure,
            "at": self.world.clock.wall_ms(),
        });
        let mut text = slot.to_string().into_bytes();
        assert!(text.len() < SLOT_BYTES, "numbers and a sum have a bound");
        text.resize(SLOT_BYTES - 1, b' ');
        text.push(b'\n');
        self.put(*requests, text).await
    }

    /// Forgets a request that was refused.
    pub(super) async fn forget(&self, requests: u64) -> anyhow::Result<()> {
        self.put(requests, vec![b' '; SLOT_BYTES]).await
    }

    /// Forgets everything.
    pub(super) async fn clear(&self) -> anyhow::Result<()> {
        self.forget(0).await?;
        self.forget(1).await
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    async fn put(&self, requests: u64, text: Vec<u8>) -> anyhow::Result<()> {
        let at = if requests.is_multiple_of(2) { 0 } else { SLOT_BYTES };
        let at = u64::try_from(at).expect("a slot's place fits");
        let file = Arc::clone(&self.file);
        let written = tasks::run(&*self.world.blocking, move || {
            file.write_all_at(&text, at)?;
            file.sync()
        });
        written.await?.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn content(file: &dyn File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(0).min(2 * SLOT_BYTES)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// The lock of a journal; `None` if another process has it. A lock whose file was removed before it
/// was taken locks nothing: the mark that is written into it is then not found at its path.
fn hold(world: &World, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
    for _ in 0..LOCK_ATTEMPTS {
        let Some(lock) = world.disk.lock(path)? else { return Ok(None) };
        let mark = format!("{:016x}", world.entropy.next_u64());
        lock.describe(&mark)?;
        match world.disk.open(path).and_then(|file| content(&*file)) {
            Ok(found) if found.starts_with(mark.as_bytes()) => return Ok(Some(lock)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(None)
}

/// Removes journals of inputs that came to their end long ago and that nobody has open.
fn sweep(world: &World, folder: &Path, own: &str) -> io::Result<()> {
    let now = world.clock.wall_ms();
    let listed = world.disk.list(folder)?;
    let names = listed.iter().filter_map(|path| path.file_name()?.to_str());
    let mut names: Vec<&str> = names.filter(|it| it.len() == NAME_LETTERS && *it != own).collect();
    names.sort_unstable();
    let (before, behind): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|it| *it < own);
    for name in behind.into_iter().chain(before).take(LOOKS_MAX) {
        let path = folder.join(name);
        if !is_over(&content(&*world.disk.open(&path)?)?, now) {
            continue;
        }
        let lock = folder.join(format!("{name}.lock"));
        let Some(held) = hold(world, &lock)? else { continue };
        // It may have been gone on with before it was locked.
        if is_over(&content(&*world.disk.open(&path)?)?, now) {
            world.disk.remove(&path)?;
            world.disk.remove(&lock)?;
        }
        drop(held);
    }
    Ok(())
}

/// Whether a journal's input came to its end so long ago that the journal can go. One that does not
/// say when stays.
fn is_over(bytes: &[u8], now: u64) -> bool {
    let slots = bytes.chunks(SLOT_BYTES).filter_map(|text| Some((read(text)?, written(text)?)));
    let last = slots.max_by_key(|(slot, _)| slot.requests);
    let rest_ms = u64::try_from(REST_MAX.as_millis()).expect("a month fits");
    last.is_some_and(|(slot, at)| slot.sure && at.saturating_add(rest_ms) < now)
}

/// When a slot was written.
fn written(text: &[u8]) -> Option<u64> {
    let slot: Value = serde_json::from_slice(text.trim_ascii()).ok()?;
    slot.get("at")?.as_u64()
}

/// What the two slots say. An error: they can't be of one journal.
fn choose(slots: Vec<Slot>) -> anyhow::Result<Resume> {
    let Some(last) = slots.iter().max_by_key(|slot| slot.requests).cloned() else {
        return Ok(Resume { base: None, again: None });
    };
    if last.sure {
        return Ok(Resume { base: Some(last), again: None });
    }
    let base = slots.into_iter().find(|slot| slot.requests + 1 == last.requests);
    if base.is_none() && last.requests != 1 {
        bail!("a request before number {} is not in it", last.requests);
    }
    Ok(Resume { base, again: Some(last) })
}

/// A slot, if it holds one.
fn read(text: &[u8]) -> Option<Slot> {
    let slot: Value = serde_json::from_slice(text.trim_ascii()).ok()?;
    let number = |name: &str| slot.get(name).and_then(Value::as_u64);
    let flag = |name: &str| slot.get(name).and_then(Value::as_bool);
    let sum = unhex(slot.get("sum")?.as_str()?)?;
    let mark = Mark { bytes: number("bytes")?, sum };
    Some(Slot { requests: number("requests")?, mark, closed: flag("closed")?, sure: flag("sure")? })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut sum = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in sum.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(requests: u64, sure: bool) -> Slot {
        let byte = u8::try_from(requests).expect("small");
        let mark = Mark { bytes: requests * 10, sum: [byte; 32] };
        Slot { requests, mark, closed: false, sure }
    }

    #[test]
    fn the_newer_slot_is_made_again_unless_it_is_sure() {
        for (slots, base, again) in [
            (vec![], None, None),
            (vec![slot(1, false)], None, Some(slot(1, false))),
            (vec![slot(1, true)], Some(slot(1, true)), None),
            (vec![slot(4, false), slot(3, false)], Some(slot(3, false)), Some(slot(4, false))),
            (vec![slot(4, true), slot(3, false)], Some(slot(4, true)), None),
        ] {
            assert_eq!(choose(slots).expect("sound"), Resume { base, again });
        }
        assert!(choose(vec![slot(4, false)]).is_err());
        assert!(choose(vec![slot(4, false), slot(1, false)]).is_err());
    }

    #[test]
    fn a_journal_goes_a_month_after_its_end_and_not_before() {
        const DAY: u64 = 86_400_000;
        let slot = |requests: u64, sure: bool, at: Option<u64>| {
            let sum = hex(&[7; 32]);
            let mut slot = json!({
                "requests": requests, "bytes": 9, "sum": sum, "closed": false, "sure": sure,
            });
            if let Some(at) = at {
                slot["at"] = at.into();
            }
            let mut text = slot.to_string().into_bytes();
            text.resize(SLOT_BYTES, b' ');
            text
        };
        for (slots, goes) in [
            (vec![slot(1, true, Some(0))], true),
            (vec![slot(2, true, Some(0)), slot(1, false, Some(0))], true),
            (vec![slot(1, true, Some(11 * DAY))], false),
            // Its last request may have to be made again.
            (vec![slot(2, false, Some(0)), slot(1, true, Some(0))], false),
            (vec![slot(1, true, None)], false),
            (vec![vec![b' '; SLOT_BYTES]], false),
            (vec![], false),
        ] {
            assert_eq!(is_over(&slots.concat(), 40 * DAY), goes, "{}", slots.len());
        }
        assert!(!is_over(&slot(1, true, Some(10 * DAY)), 40 * DAY), "not in the last moment");
    }

    #[test]
    fn what_is_no_slot_is_none() {
        let sum = hex(&[7; 32]);
        let text = format!(
            "{{\"requests\":1,\"bytes\":2,\"sum\":\"{sum}\",\"closed\":false,\"sure\":true}}   \n"
        );
        assert!(read(text.as_bytes()).is_some());
        for bad in ["", "{", "{}", "   ", &text[..50]] {
            assert!(read(bad.as_bytes()).is_none(), "{bad}");
        }
        assert_eq!(unhex(&hex(&[9; 32])), Some([9; 32]));
        assert_eq!(unhex("zz"), None);
    }

    #[test]
    fn the_directory_is_the_users() {
        let environment = |pairs: &[(&str, &str)]| -> Environment {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        for (pairs, expect) in [
            (&[("WEIR_STATE_DIR", "/s"), ("HOME", "/h")][..], Some("/s")),
            (&[("XDG_STATE_HOME", "/x"), ("HOME", "/h")], Some("/x/weir")),
            (&[("WEIR_STATE_DIR", ""), ("HOME", "/h")], Some("/h/.local/state/weir")),
            (&[("WEIR_STATE_DIR", " "), ("HOME", "/h")], Some("/h/.local/state/weir")),
            (&[], None),
        ] {
            assert_eq!(directory(&environment(pairs)), expect.map(PathBuf::from));
        }
    }
}

//! The file of an export that is not complete.
//!
//! ```text
//! FILE.partial           what came so far; locked while somebody writes it
//! FILE.partial.state     how much of it is whole, the offset behind that, and of which stream
//! ```
//! The state is there before the first record, so a partial file without one is somebody else's.
//! Records are synced before the state that counts them, so whatever interrupts it, the next call
//! cuts the partial file to what is whole and goes on there. The file gets its name at the end.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use weir_io::{
    Disk, File, World,
    disk::{Create, Lock},
    tasks,
};

/// Bytes of a state.
const STATE_BYTES_MAX: u64 = 64 << 10;

/// How much of a stream is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Where the stream is.
    pub(super) source: String,
    /// Which one of that name, if its server tells.
    pub(super) made: Option<String>,
    /// Whole bytes, and the offset behind them.
    pub(super) bytes: u64,
    pub(super) offset: Option<String>,
    /// Where the last page of them was read, and how many bytes it is of them.
    pub(super) page_from: Option<String>,
    pub(super) page_bytes: u64,
    /// Messages in the file, where that is known.
    pub(super) messages: Option<u64>,
}

impl State {
    fn to_text(&self) -> String {
        json!({
            "source": self.source,
            "made": self.made,
            "bytes": self.bytes,
            "offset": self.offset,
            "page_from": self.page_from,
            "page_bytes": self.page_bytes,
            "messages": self.messages,
        })
        .to_string()
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let state: Value = serde_json::from_slice(bytes).ok()?;
        let text = |name: &str| state.get(name).and_then(Value::as_str).map(str::to_owned);
        let number = |name: &str| state.get(name).and_then(Value::as_u64);
        let (bytes, offset) = (number("bytes")?, text("offset"));
        if bytes > 0 && offset.is_none() {
            return None;
        }
        Some(Self {
            source: text("source")?,
            made: text("made"),
            bytes,
            offset,
            page_from: text("page_from"),
            page_bytes: number("page_bytes").unwrap_or(0),
            messages: number("messages"),
        })
    }
}

/// A file that is not complete.
pub(super) struct Draft {
    world: World,
    target: PathBuf,
    partial: PathBuf,
    state_path: PathBuf,
    file: Arc<dyn File>,
    pub(super) state: State,
    /// Nobody else writes it.
    _lock: Box<dyn Lock>,
}

/// What to do with what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replace {
    /// A file that is complete stays, and so does a part of another stream.
    Nothing,
    /// Either goes.
    Anything,
}

impl Draft {
    /// Opens the part of `source` that is there, or begins one.
    ///
    /// # Errors
    /// The file is there, somebody else writes it, or it is a part of another stream.
    pub(super) async fn open(
        world: &World,
        target: &Path,
        source: &str,
        made: Option<String>,
        replace: Replace,
    ) -> anyhow::Result<Self> {
        let (partial, state_path) =
            (with_suffix(target, ".partial"), with_suffix(target, ".partial.state"));
        let disk = Arc::clone(&world.disk);
        let (there, draft, known) = (target.to_owned(), partial.clone(), state_path.clone());
        let new = State {
            source: source.to_owned(),
            made,
            bytes: 0,
            offset: None,
            page_from: None,
            page_bytes: 0,
            messages: Some(0),
        };
        let opened = tasks::run(&*world.blocking, move || {
            if replace == Replace::Nothing && disk.exists(&there)? {
                bail!("it is there already: take another name, or replace it with --force");
            }
            let Some(lock) = disk.lock(&draft)? else {
                bail!("another export writes {}: wait until it has ended", draft.display());
            };
            // Whoever had the lock may have come to the end meanwhile.
            if replace == Replace::Nothing && disk.exists(&there)? {
                bail!(
                    "it is there now, by another export: take another name, or replace it with \
                     --force"
                );
            }
            let file = disk.open_to_write(&draft)?;
            let state = match part(&*disk, &known, &new, &draft) {
                Err(_) if replace == Replace::Anything => None,
                part => part?,
            };
            if replace == Replace::Nothing && state.is_none() && !file.is_empty()? {
                bail!(
                    "{} is there and is no part of an export: move it away, take another name, or \
                     replace it with --force",
                    draft.display()
                );
            }
            let state = match state {
                Some(state) => state,
                None => {
                    self::replace(&*disk, &known, new.to_text().as_bytes())?;
                    new
                }
            };
            if file.len()? < state.bytes {
                bail!("{} was cut: remove it to begin anew", draft.display());
            }
            file.set_len(state.bytes)?;
            Ok((file, state, lock))
        });
        let (file, state, lock) = opened.await??;
        let (world, target) = (world.clone(), target.to_owned());
        Ok(Self { world, target, partial, state_path, file, state, _lock: lock })
    }

    /// The bytes of the last page, as they were written.
    pub(super) async fn page(&self) -> anyhow::Result<Vec<u8>> {
        let (file, State { bytes, page_bytes, .. }) = (Arc::clone(&self.file), self.state.clone());
        let read = tasks::run(&*self.world.blocking, move || {
            let mut page = vec![0; usize::try_from(page_bytes.min(bytes)).unwrap_or(0)];
            file.read_exact_at(&mut page, bytes - page_bytes.min(bytes))?;
            io::Result::Ok(page)
        });
        read.await?.with_context(|| format!("cannot read {}", self.partial.display()))
    }

    /// Begins anew.
    pub(super) async fn clear(&mut self) -> anyhow::Result<()> {
        let file = Arc::clone(&self.file);
        tasks::run(&*self.world.blocking, move || file.set_len(0)).await??;
        self.state = State {
            bytes: 0,
            offset: None,
            page_from: None,
            page_bytes: 0,
            messages: Some(0),
            ..self.state.clone()
        };
        Ok(())
    }

    /// Adds what was read at `from` and came before `offset`, durably: so many messages.
    pub(super) async fn add(
        &mut self,
        text: Vec<u8>,
        count: u64,
        from: String,
        offset: String,
    ) -> anyhow::Result<()> {
        let (disk, file, at) =
            (Arc::clone(&self.world.disk), Arc::clone(&self.file), self.state.bytes);
        let page_bytes = u64::try_from(text.len()).expect("a length fits");
        let messages = self.state.messages.map(|before| before + count);
        let (bytes, offset) = (at + page_bytes, Some(offset));
        let mut next = State { bytes, offset, messages, ..self.state.clone() };
        // A page without records says nothing of which stream it is.
        if page_bytes > 0 {
            (next.page_from, next.page_bytes) = (Some(from), page_bytes);
        }
        let (path, state) = (self.state_path.clone(), next.to_text());
        let written = tasks::run(&*self.world.blocking, move || {
            file.write_all_at(&text, at)?;
            // The state must never count what a crash could take back.
            file.sync()?;
            replace(&*disk, &path, state.as_bytes())
        });
        written.await?.with_context(|| format!("cannot write {}", self.partial.display()))?;
        self.state = next;
        Ok(())
    }

    /// Gives the file its name.
    pub(super) async fn finish(self) -> io::Result<()> {
        let disk = Arc::clone(&self.world.disk);
        let finished = tasks::run(&*self.world.blocking, move || {
            self.file.sync()?;
            disk.rename(&self.partial, &self.target)?;
            match disk.remove(&self.state_path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            disk.sync_dir(directory(&self.target))
        });
        finished.await.map_err(io::Error::other)?
    }
}

/// What an earlier call left of this stream.
fn part(disk: &dyn Disk, path: &Path, new: &State, draft: &Path) -> anyhow::Result<Option<State>> {
    let Some(state) = read_state(disk, path)? else { return Ok(None) };
    let draft = draft.display();
    // Nothing is written of it.
    if state.bytes == 0 {
        return Ok(Some(new.clone()));
    }
    if state.source != new.source {
        bail!("{draft} is of {}: remove it, or replace it with --force", state.source);
    }
    if state.made.is_some() && new.made.is_some() && state.made != new.made {
        bail!(REMADE);
    }
    Ok(Some(state))
}

/// Said of a part of a stream that is not there any more.
pub(super) const REMADE: &str = "what is there of it is of a stream that was deleted, and made \
                                 again since: keep FILE.partial under another name or replace it \
                                 with --force";

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn directory(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Replaces a small file as a whole.
fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = with_suffix(path, ".new");
    match disk.remove(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Names and offsets of a stream are as private as its records.
    let file = disk.create(&draft, Create::Private)?;
    file.write_all_at(bytes, 0)?;
    file.sync()?;
    disk.rename(&draft, path)
}

fn read_state(disk: &dyn Disk, path: &Path) -> anyhow::Result<Option<State>> {
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let length = file.len()?.min(STATE_BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(length).expect("a bounded length")];
    file.read_exact_at(&mut bytes, 0)?;
    // One that can't be read is none: the export begins anew.
    Ok(State::parse(&bytes))
}

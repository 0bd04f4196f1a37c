//! The file of an export that is not complete.
//!
//! ```text
//! FILE.partial           what came so far; locked while somebody writes it
//! FILE.partial.state     how much of it is whole, the offset behind that, where it begins, and of
//!                        which stream
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
    os::stream,
    tasks,
};

/// The offset before the first record, as the protocol has it.
pub(super) const START: &str = "-1";
/// Bytes of a state.
const STATE_BYTES_MAX: u64 = 64 << 10;

/// How much of a stream is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Where the stream is.
    pub(super) source: String,
    /// Its name. Older states have none.
    pub(super) stream: Option<String>,
    /// The offset that the file begins at. Older states do not say.
    pub(super) start: Option<String>,
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
            "stream": self.stream,
            "start": self.start,
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
            stream: text("stream"),
            start: text("start"),
            made: text("made"),
            bytes,
            offset,
            page_from: text("page_from"),
            page_bytes: number("page_bytes").unwrap_or(0),
            messages: number("messages"),
        })
    }
}

/// What is to be in a file.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Where the stream is.
    pub(super) source: String,
    /// Its name.
    pub(super) stream: String,
    /// Which one of that name, if its server tells.
    pub(super) made: Option<String>,
    /// The offset to begin at.
    pub(super) start: String,
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
    /// Opens the part of a stream that is there, or begins one.
    ///
    /// # Errors
    /// The file is there or is no file, somebody else writes it, or it is a part of another stream.
    pub(super) async fn open(
        world: &World,
        target: &Path,
        wanted: Wanted,
        replace: Replace,
    ) -> anyhow::Result<Self> {
        let (disk, target) = (Arc::clone(&world.disk), target.to_owned());
        let Wanted { source, stream, made, start } = wanted;
        let new = State {
            source,
            stream: Some(stream),
            start: Some(start),
            made,
            bytes: 0,
            offset: None,
            page_from: None,
            page_bytes: 0,
            messages: Some(0),
        };
        let opened = tasks::run(&*world.blocking, move || begin(&*disk, &target, new, replace));
        let Begun { target, partial, state_path, file, state, lock } = opened.await??;
        Ok(Self { world: world.clone(), target, partial, state_path, file, state, _lock: lock })
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

    /// Leaves nothing behind where nothing was written.
    pub(super) async fn leave(self) -> anyhow::Result<()> {
        if self.state.bytes > 0 {
            return Ok(());
        }
        let disk = Arc::clone(&self.world.disk);
        let removed = tasks::run(&*self.world.blocking, move || {
            remove(&*disk, &self.partial)?;
            remove(&*disk, &self.state_path)
        });
        Ok(removed.await??)
    }

    /// Gives the file its name.
    pub(super) async fn finish(self) -> io::Result<()> {
        let disk = Arc::clone(&self.world.disk);
        let finished = tasks::run(&*self.world.blocking, move || {
            self.file.sync()?;
            disk.rename(&self.partial, &self.target)?;
            remove(&*disk, &self.state_path)?;
            disk.sync_dir(directory(&self.target))
        });
        finished.await.map_err(io::Error::other)?
    }
}

/// A draft that is open.
struct Begun {
    target: PathBuf,
    partial: PathBuf,
    state_path: PathBuf,
    file: Arc<dyn File>,
    state: State,
    lock: Box<dyn Lock>,
}

fn begin(disk: &dyn Disk, target: &Path, new: State, replace: Replace) -> anyhow::Result<Begun> {
    // Behind a link is what is to be replaced, and the link stays.
    let Some(target) = stream::file_at(target)? else {
        bail!("it is there and is no file: take another name; `-` is the standard output");
    };
    let (partial, state_path) =
        (with_suffix(&target, ".partial"), with_suffix(&target, ".partial.state"));
    if replace == Replace::Nothing && disk.exists(&target)? {
        bail!("it is there already: take another name, or replace it with --force");
    }
    let Some(lock) = disk.lock(&partial)? else {
        bail!("another export writes {}: wait until it has ended", partial.display());
    };
    // Whoever had the lock may have come to the end meanwhile.
    if replace == Replace::Nothing && disk.exists(&target)? {
        bail!("it is there now, by another export: take another name, or replace it with --force");
    }
    let file = disk.open_to_write(&partial)?;
    let known = part(disk, &state_path, &new, &partial, file.len()?);
    let state = match known {
        Err(_) if replace == Replace::Anything => None,
        known => known?,
    };
    if replace == Replace::Nothing && state.is_none() && !file.is_empty()? {
        bail!(
            "{} is there and is no part of an export: move it away, take another name, or replace \
             it with --force",
            partial.display()
        );
    }
    let state = match state {
        Some(state) => state,
        None => {
            self::replace(disk, &state_path, new.to_text().as_bytes())?;
            new
        }
    };
    file.set_len(state.bytes)?;
    Ok(Begun { target, partial, state_path, file, state, lock })
}

/// What an earlier call left of this stream: the state of a part of so many bytes.
fn part(
    disk: &dyn Disk,
    path: &Path,
    new: &State,
    draft: &Path,
    length: u64,
) -> anyhow::Result<Option<State>> {
    let Some(state) = read_state(disk, path)? else { return Ok(None) };
    let draft = draft.display();
    // Nothing is written of it.
    if state.bytes == 0 {
        return Ok(Some(new.clone()));
    }
    let both_told = state.made.is_some() && new.made.is_some();
    // A server may have several URLs, and another one each time it starts.
    let is_of_it = match (&state.stream, both_told) {
        (Some(_), true) => state.stream == new.stream,
        _ => state.source == new.source,
    };
    if !is_of_it {
        bail!("{draft} is of {}: remove it, or replace it with --force", state.source);
    }
    if both_told && state.made != new.made {
        bail!(REMADE);
    }
    // What does not say where it begins is taken to begin where all do.
    let (began, wanted) = (state.start.as_deref().unwrap_or(START), new.start.as_deref());
    if wanted != Some(began) {
        bail!(
            "{draft} begins at {}, and this export at {}: go on with the first, take another name, \
             or begin anew with --force",
            place(began),
            place(wanted.unwrap_or(START)),
        );
    }
    if length < state.bytes {
        bail!(
            "{draft} was cut: {} bytes of it were written. Begin anew with --force, or remove it \
             and {}",
            state.bytes,
            path.display()
        );
    }
    Ok(Some(State { source: new.source.clone(), stream: new.stream.clone(), ..state }))
}

/// An offset as it is asked for.
fn place(offset: &str) -> String {
    match offset {
        START => "the start (no --from)".to_owned(),
        offset => format!("--from {offset}"),
    }
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

/// Removes a file that may not be there.
fn remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Replaces a small file as a whole.
fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = with_suffix(path, ".new");
    remove(disk, &draft)?;
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

//! `weir export`: a stream into a file, complete or not there.
//!
//! ```text
//! FILE.partial           what came so far
//! FILE.partial.state     how much of it is whole, and the offset behind that
//! ```
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
use weir_io::{Disk, File, World, disk::Create, tasks};

use super::{
    Context,
    exit::Exit,
    flags::ExportFlags,
    output::{Form, messages, one_line},
    progress::Progress,
};
use crate::client::{Follower, From, Live};

/// Bytes of a state.
const STATE_BYTES_MAX: u64 = 64 << 10;

pub(super) async fn run(context: Context, flags: ExportFlags) -> anyhow::Result<Exit> {
    let stream = context.client.stream(&flags.stream);
    let form = Form::of(&stream.head().await?.content_type);
    let source = format!("{}/{}", context.client.target(), stream.name());
    let draft = Draft::open(&context.world, &flags.file, &source, flags.force);
    let mut draft =
        draft.await.with_context(|| format!("cannot write {}", flags.file.display()))?;
    if draft.bytes > 0 {
        eprintln!("weir: {} bytes are there from before", draft.bytes);
    }
    let from = draft.offset.clone().map_or(From::Start, From::Offset);
    let mut follower = Follower::new(&stream, from, None, Live::No);
    let mut progress = Progress::new(None);
    progress.skip(draft.bytes);
    let mut records = 0_u64;
    while let Some(batch) = follower.next().await? {
        let (text, count) = match form {
            Form::Json => {
                let messages = messages(&batch.body)?;
                let lines = messages.iter().map(|message| one_line(message.get()) + "\n");
                (lines.collect::<String>().into_bytes(), messages.len())
            }
            Form::Text | Form::Binary => (batch.body.to_vec(), 0),
        };
        progress.add(u64::try_from(text.len()).expect("a length fits"));
        records += u64::try_from(count).expect("a count fits");
        draft.add(text, batch.next).await?;
        if context.interrupt.came() {
            progress.clear();
            eprintln!("weir: the same command goes on where this one ended");
            return Ok(Exit::Interrupted);
        }
    }
    progress.clear();
    let (bytes, offset) = (draft.bytes, draft.offset.clone());
    draft.finish().await.with_context(|| format!("cannot name {}", flags.file.display()))?;
    let fact = json!({
        "file": flags.file.display().to_string(),
        "bytes": bytes,
        "messages": (form == Form::Json).then_some(records),
        "offset": offset,
    });
    context.output.fact(&fact, offset.as_deref().unwrap_or("-"))?;
    Ok(Exit::Done)
}

/// A file that is not complete.
struct Draft {
    world: World,
    target: PathBuf,
    partial: PathBuf,
    state: PathBuf,
    file: Arc<dyn File>,
    source: String,
    /// Whole bytes, and the offset behind them.
    bytes: u64,
    offset: Option<String>,
}

impl Draft {
    async fn open(world: &World, target: &Path, source: &str, force: bool) -> anyhow::Result<Self> {
        let (partial, state) =
            (with_suffix(target, ".partial"), with_suffix(target, ".partial.state"));
        let disk = Arc::clone(&world.disk);
        let (there, draft, known, wanted) =
            (target.to_owned(), partial.clone(), state.clone(), source.to_owned());
        let opened = tasks::run(&*world.blocking, move || {
            if !force && disk.exists(&there)? {
                bail!("it is there already: --force replaces it");
            }
            let before = match disk.exists(&draft)? && disk.exists(&known)? {
                true => read_state(&*disk, &known)?,
                false => None,
            };
            Ok(match before {
                Some((source, bytes, offset)) if source == wanted => {
                    let file = disk.open_to_write(&draft)?;
                    if file.len()? < bytes {
                        bail!("{} was cut: remove it", draft.display());
                    }
                    file.set_len(bytes)?;
                    (file, bytes, Some(offset))
                }
                Some((source, ..)) => {
                    bail!("{} is of {source}: remove it first", draft.display());
                }
                None => (disk.create(&draft, Create::Truncate)?, 0, None),
            })
        });
        let (file, bytes, offset) = opened.await??;
        Ok(Self {
            world: world.clone(),
            target: target.to_owned(),
            partial,
            state,
            file,
            source: source.to_owned(),
            bytes,
            offset,
        })
    }

    /// Adds what came before `offset`, durably.
    async fn add(&mut self, text: Vec<u8>, offset: String) -> anyhow::Result<()> {
        let (disk, file, at) = (Arc::clone(&self.world.disk), Arc::clone(&self.file), self.bytes);
        let bytes = at + u64::try_from(text.len()).expect("a length fits");
        let state = json!({ "source": self.source, "bytes": bytes, "offset": offset }).to_string();
        let path = self.state.clone();
        let written = tasks::run(&*self.world.blocking, move || {
            file.write_all_at(&text, at)?;
            // The state must never count what a crash could take back.
            file.sync()?;
            replace(&*disk, &path, state.as_bytes())
        });
        written.await?.with_context(|| format!("cannot write {}", self.partial.display()))?;
        (self.bytes, self.offset) = (bytes, Some(offset));
        Ok(())
    }

    /// Gives the file its name.
    async fn finish(self) -> anyhow::Result<()> {
        let disk = Arc::clone(&self.world.disk);
        let finished = tasks::run(&*self.world.blocking, move || {
            self.file.sync()?;
            disk.rename(&self.partial, &self.target)?;
            if disk.exists(&self.state)? {
                disk.remove(&self.state)?;
            }
            disk.sync_dir(directory(&self.target))
        });
        Ok(finished.await??)
    }
}

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
    let file = disk.create(&draft, Create::Truncate)?;
    file.write_all_at(bytes, 0)?;
    file.sync()?;
    disk.rename(&draft, path)
}

fn read_state(disk: &dyn Disk, path: &Path) -> anyhow::Result<Option<(String, u64, String)>> {
    let file = disk.open(path)?;
    let length = file.len()?.min(STATE_BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(length).expect("a bounded length")];
    file.read_exact_at(&mut bytes, 0)?;
    // One that can't be read is none: the export begins anew.
    let Ok(state) = serde_json::from_slice::<Value>(&bytes) else { return Ok(None) };
    let text = |name: &str| state.get(name).and_then(Value::as_str).map(str::to_owned);
    let bytes = state.get("bytes").and_then(Value::as_u64);
    Ok(text("source")
        .zip(bytes)
        .zip(text("offset"))
        .map(|((source, bytes), offset)| (source, bytes, offset)))
}

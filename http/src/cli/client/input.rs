//! Bytes that come in: files and the standard input.
//!
//! Reading blocks, so it happens on the pool of blocking threads, one piece at a time. A read of
//! the standard input can't be taken back: whoever ends meanwhile does not wait for it.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use weir_io::{File, World, os::stream, tasks};

use super::exit::Told;

/// Bytes read at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Bytes of an input that is one request.
pub(super) const WHOLE_BYTES_MAX: usize = 64 << 20;

/// Where bytes come from.
pub(super) struct Input {
    world: World,
    source: Source,
}

enum Source {
    Standard,
    /// A pipe, a terminal: read until it ends.
    Stream {
        reader: Arc<Mutex<Box<dyn Read + Send>>>,
        path: PathBuf,
    },
    File {
        file: Arc<dyn File>,
        at: u64,
        bytes: u64,
        path: PathBuf,
    },
}

/// The failure to open a file, with what to do next if it is not there.
pub(super) fn explained(error: anyhow::Error, path: &Path, advice: &str) -> anyhow::Error {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    if kind != Some(io::ErrorKind::NotFound) {
        return error;
    }
    let (what, advice) = (format!("{} is no file", path.display()), advice.to_owned());
    error.context(Told { what, advice })
}

impl Input {
    /// The standard input.
    pub(super) const fn standard(world: World) -> Self {
        Self { world, source: Source::Standard }
    }

    /// A file, or the standard input if it is called `-`.
    pub(super) async fn open(world: &World, path: &Path) -> anyhow::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::standard(world.clone()));
        }
        let name = path.to_owned();
        let stream = tasks::run(&*world.blocking, move || stream::open(&name)).await?;
        if let Some(reader) = stream.with_context(|| format!("cannot read {}", path.display()))? {
            let reader = Arc::new(Mutex::new(reader));
            let source = Source::Stream { reader, path: path.to_owned() };
            return Ok(Self { world: world.clone(), source });
        }
        let (disk, name) = (Arc::clone(&world.disk), path.to_owned());
        let opened = tasks::run(&*world.blocking, move || {
            let file = disk.open(&name)?;
            let bytes = file.len()?;
            std::io::Result::Ok((file, bytes))
        });
        let (file, bytes) =
            opened.await?.with_context(|| format!("cannot read {}", path.display()))?;
        let source = Source::File { file, at: 0, bytes, path: path.to_owned() };
        Ok(Self { world: world.clone(), source })
    }

    /// What to call it.
    pub(super) fn name(&self) -> String {
        match &self.source {
            Source::Standard => "standard input".to_owned(),
            Source::Stream { path, .. } | Source::File { path, .. } => path.display().to_string(),
        }
    }

    /// Its length, if it has one.
    pub(super) const fn bytes(&self) -> Option<u64> {
        match &self.source {
            Source::Standard | Source::Stream { .. } => None,
            Source::File { bytes, .. } => Some(*bytes),
        }
    }

    /// The next piece, empty at the end.
    pub(super) async fn piece(&mut self) -> anyhow::Result<Vec<u8>> {
        match &mut self.source {
            Source::Standard => {
                let read = tasks::run(&*self.world.blocking, || {
                    let mut piece = vec![0; PIECE_BYTES];
                    let read = std::io::stdin().lock().read(&mut piece)?;
                    piece.truncate(read);
                    std::io::Result::Ok(piece)
                });
                read.await?.context("cannot read the standard input")
            }
            Source::Stream { reader, path } => {
                let reader = Arc::clone(reader);
                let read = tasks::run(&*self.world.blocking, move || {
                    let mut piece = vec![0; PIECE_BYTES];
                    let read = reader.lock().read(&mut piece)?;
                    piece.truncate(read);
                    std::io::Result::Ok(piece)
                });
                read.await?.with_context(|| format!("cannot read {}", path.display()))
            }
            Source::File { file, at, bytes, path } => {
                let left = usize::try_from(*bytes - *at).unwrap_or(usize::MAX);
                let (file, from) = (Arc::clone(file), *at);
                let read = tasks::run(&*self.world.blocking, move || {
                    let mut piece = vec![0; left.min(PIECE_BYTES)];
                    file.read_exact_at(&mut piece, from)?;
                    std::io::Result::Ok(piece)
                });
                let piece =
                    read.await?.with_context(|| format!("cannot read {}", path.display()))?;
                *at += u64::try_from(piece.len()).expect("a length fits");
                Ok(piece)
            }
        }
    }

    /// All of it.
    pub(super) async fn whole(mut self) -> anyhow::Result<Vec<u8>> {
        let mut whole = Vec::new();
        loop {
            let piece = self.piece().await?;
            if piece.is_empty() {
                return Ok(whole);
            }
            whole.extend_from_slice(&piece);
            if whole.len() > WHOLE_BYTES_MAX {
                bail!(
                    "an input of more than {} MiB can't be one request: cut it with --ndjson or \
                     --lines",
                    WHOLE_BYTES_MAX >> 20
                );
            }
        }
    }
}

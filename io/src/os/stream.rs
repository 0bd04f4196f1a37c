//! Paths that are no regular files: pipes, terminals, what `/dev/stdin` leads to. They have no length and
//! are read once, from the front. And what tells them from files.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// What to read from at a path that is no regular file; `None` if it is one. Opening a pipe waits until
/// somebody writes to it.
///
/// # Errors
/// There is nothing, it is a directory, or the system refuses.
pub fn open(path: &Path) -> io::Result<Option<Box<dyn Read + Send>>> {
    if fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    Ok(Some(Box::new(File::open(path)?)))
}

/// The regular file that a path leads to, or that can be made there; `None` if something else is there.
///
/// # Errors
/// It is a link to what is not there, or the system refuses.
pub fn file_at(path: &Path) -> io::Result<Option<PathBuf>> {
    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(path.to_owned())),
        there => there?,
    };
    if !there.is_symlink() {
        return Ok(there.is_file().then(|| path.to_owned()));
    }
    let real = fs::canonicalize(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::new(error.kind(), "it is a link to something that is not there")
        }
        _ => error,
    })?;
    Ok(fs::metadata(&real)?.is_file().then_some(real))
}

//! Paths that are no regular files: pipes, terminals, what `/dev/stdin` leads to. They have no length and
//! are read once, from the front.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
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

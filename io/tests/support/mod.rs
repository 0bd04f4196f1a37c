//! What the tests on the system's own disk share.

use std::path::PathBuf;

use weir_io::{Disk as _, os};

/// A directory that is removed with everything in it.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Scratch {
        let unique = format!("weir-io-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(unique);
        os::OsDisk.create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

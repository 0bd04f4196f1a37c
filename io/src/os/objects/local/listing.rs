//! A page of a listing, out of the directories that keys with slashes make.

use std::{io, path::Path};

use super::{Shelf, failed, is_absent};
use crate::objects::{Key, Meta, ObjectError};

/// Collects a page in the order of keys, looking at no more names than that takes.
pub(super) struct Listing<'a> {
    pub(super) shelf: &'a Shelf,
    pub(super) prefix: String,
    pub(super) after: Option<Key>,
    pub(super) limit: usize,
    pub(super) found: Vec<Meta>,
}

impl Listing<'_> {
    /// Walks the directory whose keys begin with `base`, which ends with a slash or is empty.
    pub(super) fn walk(&mut self, base: &str) -> Result<(), ObjectError> {
        let names = match self.shelf.disk.list(&self.shelf.root.join(base)) {
            Err(error) if is_absent(&error) => return Ok(()),
            listed => listed.map_err(failed)?,
        };
        let mut names: Vec<String> =
            names.iter().filter_map(|path| self.name(base, path)).collect();
        names.sort();
        let mut rest = &names[..];
        while let Some(first) = rest.first()
            && self.found.len() < self.limit
        {
            // A directory sorts as if its name ended with a slash, so only the names that
            // continue this one (`a`, `a-b`) may have to change places with it.
            let kin = rest.iter().take_while(|name| name.starts_with(first.as_str())).count();
            let (group, others) = rest.split_at(kin);
            rest = others;
            self.walk_group(group)?;
        }
        Ok(())
    }

    fn walk_group(&mut self, group: &[String]) -> Result<(), ObjectError> {
        let mut entries: Vec<(String, Option<u64>)> = Vec::with_capacity(group.len());
        for name in group {
            let path = self.shelf.root.join(name);
            match self.shelf.disk.list(&path) {
                Ok(_) => entries.push((format!("{name}/"), None)),
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    match self.shelf.disk.open(&path).and_then(|file| file.len()) {
                        Ok(size) => entries.push((name.clone(), Some(size))),
                        // Deleted since the directory was read.
                        Err(error) if is_absent(&error) => {}
                        Err(error) => return Err(failed(error)),
                    }
                }
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        entries.sort();
        for (name, size) in entries {
            if self.found.len() == self.limit {
                return Ok(());
            }
            match size {
                None => self.walk(&name)?,
                Some(size) => self.take(name, size),
            }
        }
        Ok(())
    }

    fn take(&mut self, name: String, size: u64) {
        // Files that are no objects are somebody else's.
        let Ok(key) = Key::new(name) else { return };
        let after = self.after.as_ref().is_none_or(|after| key > *after);
        if after && key.as_str().starts_with(&self.prefix) {
            self.found.push(Meta { key, size, etag: None });
        }
    }

    /// The key or directory that `path` stands for, unless nothing asked for can lie there.
    fn name(&self, base: &str, path: &Path) -> Option<String> {
        let last = path.file_name()?.to_str()?;
        if last.starts_with('.') {
            return None;
        }
        let name = format!("{base}{last}");
        let wanted = name.starts_with(&self.prefix) || self.prefix.starts_with(&name);
        // All keys at or below the name are smaller than the name followed by the character
        // after the slash.
        let after = self.after.as_ref().is_none_or(|it| format!("{name}0").as_str() > it.as_str());
        (wanted && after).then_some(name)
    }
}

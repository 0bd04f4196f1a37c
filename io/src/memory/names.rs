//! The directory tree: which names exist, and which of them a power cut leaves.
//!
//! Same shape as a file's bytes: a volatile tree, a durable tree, and the changes between
//! them in order. Syncing a directory makes the changes of its own entries durable; a power
//! cut keeps each other change with the cut's probability, in order. A name whose directory
//! did not survive is gone with it.

use std::{
    collections::BTreeMap,
    io,
    path::{Component, Path, PathBuf},
};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::content::Cut;

/// Identity of a file, kept over renames, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(pub(super) u64);

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    File(FileId),
    Directory,
}

#[derive(Debug)]
enum Change {
    Link { path: PathBuf, target: Target },
    Unlink { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf, target: Target },
}

type Tree = BTreeMap<PathBuf, Target>;

/// All names of a drive.
#[derive(Debug)]
pub(super) struct Names {
    volatile: Tree,
    durable: Tree,
    pending: Vec<Change>,
}

impl Names {
    pub(super) fn new() -> Names {
        let root = Tree::from([(PathBuf::from("/"), Target::Directory)]);
        Names { volatile: root.clone(), durable: root, pending: Vec::new() }
    }

    pub(super) fn get(&self, path: &Path) -> Option<Target> {
        self.volatile.get(path).copied()
    }

    /// The file called `path`.
    pub(super) fn file(&self, path: &Path) -> io::Result<FileId> {
        match self.get(path) {
            Some(Target::File(id)) => Ok(id),
            Some(Target::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// A name that `file` has now.
    pub(super) fn name_of(&self, file: FileId) -> Option<&Path> {
        let target = Target::File(file);
        let named = self.volatile.iter().find(|(_, named)| **named == target);
        named.map(|(path, _)| path.as_path())
    }

    /// Every name but that of the root, parents first.
    pub(super) fn everything(&self) -> Vec<(PathBuf, Target)> {
        let all = self.volatile.iter().filter(|(path, _)| path.parent().is_some());
        all.map(|(path, target)| (path.clone(), *target)).collect()
    }

    /// Makes all entries of all directories durable.
    pub(super) fn sync_all(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    pub(super) fn require_directory(&self, path: &Path) -> io::Result<()> {
        match self.get(path) {
            Some(Target::Directory) => Ok(()),
            Some(Target::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The names in `path`, sorted.
    pub(super) fn children<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a Path> {
        self.volatile.keys().map(PathBuf::as_path).filter(move |name| name.parent() == Some(path))
    }

    pub(super) fn link(&mut self, path: PathBuf, target: Target) {
        self.change(Change::Link { path, target });
    }

    pub(super) fn unlink(&mut self, path: PathBuf) {
        self.change(Change::Unlink { path });
    }

    /// Renames a file, or a directory with all that is in it. What was not yet durable in the
    /// directory moves along and stays so.
    pub(super) fn rename(&mut self, from: PathBuf, to: PathBuf, target: Target) {
        if target == Target::Directory {
            self.pending.iter_mut().for_each(|change| change.follow(&from, &to));
        }
        self.change(Change::Rename { from, to, target });
    }

    /// Makes the entries of one directory durable.
    pub(super) fn sync(&mut self, directory: &Path) {
        let mut rest: Vec<Change> = Vec::new();
        for change in self.pending.drain(..) {
            if !change.touches(directory) {
                rest.push(change);
                continue;
            }
            if let Change::Rename { from, .. } = &change {
                // The file moved for good: its first name, in another directory and not yet
                // synced there, must not come back beside the second one.
                rest.retain(|earlier| !earlier.names(from));
            }
            change.apply(&mut self.durable);
        }
        self.pending = rest;
    }

    /// Power is lost and comes back.
    pub(super) fn cut(&mut self, cut: Cut, chance: &mut ChaCha8Rng) {
        for change in self.pending.drain(..) {
            if chance.random_bool(cut.keep) {
                change.apply(&mut self.durable);
            }
        }
        let mut kept = Tree::new();
        for (path, target) in &self.durable {
            // Parents sort before their children, so they have been decided already.
            let parent = path.parent().map(|parent| kept.get(parent));
            if matches!(parent, None | Some(Some(Target::Directory))) {
                kept.insert(path.clone(), *target);
            }
        }
        self.volatile.clone_from(&kept);
        self.durable = kept;
    }

    /// Whether a name, now or after a power cut, may stand for `file`.
    pub(super) fn mentions(&self, file: FileId) -> bool {
        let target = Target::File(file);
        self.volatile.values().any(|named| *named == target)
            || self.durable.values().any(|named| *named == target)
            || self.pending.iter().any(|change| change.target() == Some(target))
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.volatile);
        self.pending.push(change);
    }
}

impl Change {
    fn apply(&self, tree: &mut Tree) {
        match self {
            Change::Link { path, target } => {
                tree.insert(path.clone(), *target);
            }
            Change::Unlink { path } => {
                tree.remove(path);
            }
            Change::Rename { from, to, target: Target::Directory } => {
                let below = |path: &&PathBuf| path.starts_with(from);
                let moved: Vec<PathBuf> = tree.keys().filter(below).cloned().collect();
                for path in moved {
                    let target = tree.remove(&path).expect("listed above");
                    tree.insert(moved_path(&path, from, to), target);
                }
            }
            Change::Rename { from, to, target } => {
                tree.remove(from);
                tree.insert(to.clone(), *target);
            }
        }
    }

    /// A directory was renamed: what is to happen below it happens under its new name.
    fn follow(&mut self, from: &Path, to: &Path) {
        let follow = |path: &mut PathBuf| {
            if path.starts_with(from) && path != from {
                *path = moved_path(path, from, to);
            }
        };
        match self {
            Change::Link { path, .. } | Change::Unlink { path } => follow(path),
            Change::Rename { from, to, .. } => {
                follow(from);
                follow(to);
            }
        }
    }

    fn touches(&self, directory: &Path) -> bool {
        match self {
            Change::Link { path, .. } | Change::Unlink { path } => path.parent() == Some(directory),
            Change::Rename { from, to, .. } => {
                from.parent() == Some(directory) || to.parent() == Some(directory)
            }
        }
    }

    fn names(&self, name: &Path) -> bool {
        match self {
            Change::Link { path, .. } | Change::Unlink { path } => path == name,
            Change::Rename { to, .. } => to == name,
        }
    }

    fn target(&self) -> Option<Target> {
        match self {
            Change::Link { target, .. } => Some(*target),
            Change::Unlink { .. } => None,
            Change::Rename { target, .. } => Some(*target),
        }
    }
}

/// What `path`, at or below `from`, is called once `from` is `to`.
fn moved_path(path: &Path, from: &Path, to: &Path) -> PathBuf {
    let rest = path.strip_prefix(from).expect("it lies below");
    // An empty rest would add a slash.
    if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) }
}

/// `path` from the root, without `.` and `..`; a relative one starts at the root.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    normal
}

//! The drive behind a [`MemoryDisk`]: its medium, its power and its faults.
//!
//! The harness holds a [`Drive`]; the machine holds disks mounted from it. A cut is asked
//! for in two steps, because a dying machine still runs destructors: [`Drive::kill`] makes
//! every later call fail and change nothing, then, with the machine's futures dropped,
//! [`Drive::power_cycle`] or [`Drive::restart_process`] decides what is left. A disk mounted
//! before stays dead for ever.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
};

use parking_lot::Mutex;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use tokio::sync::Notify;

use super::{
    Cut, MemoryDisk, STREAM_DRIVE, Trace, chance,
    content::Content,
    faults::{Faults, broken, dead, no_space},
    names::{FileId, Names, Target, normal},
};

/// A simulated drive, for the harness.
#[derive(Clone)]
pub struct Drive {
    state: Arc<Mutex<State>>,
}

impl Drive {
    /// An empty healthy drive.
    #[must_use]
    pub fn new(seed: u64) -> Drive {
        let state = State {
            files: BTreeMap::new(),
            names: Names::new(),
            locked: BTreeSet::new(),
            next_file: 0,
            faults: Faults::default(),
            unreadable: BTreeSet::new(),
            chance: chance(seed, STREAM_DRIVE),
            trace: Trace::new(),
            mutations: 0,
            counts: BTreeMap::new(),
            written_bytes: 0,
            kill_at: None,
            trap: None,
            killed: false,
            died: Arc::new(Notify::new()),
            life: 0,
        };
        Drive { state: Arc::new(Mutex::new(state)) }
    }

    /// The drive as one life of the machine sees it.
    ///
    /// # Panics
    /// The drive is dead.
    #[must_use]
    pub fn mount(&self) -> MemoryDisk {
        let state = self.state.lock();
        assert!(!state.killed, "a dead drive is power-cycled before it is mounted again");
        MemoryDisk::new(Arc::clone(&self.state), state.life)
    }

    /// The faults of now.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.state.lock().faults
    }

    /// Sets the faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// How many changing operations were asked for so far: each is a point to die at.
    #[must_use]
    pub fn mutations(&self) -> u64 {
        self.state.lock().mutations
    }

    /// How many operations of a kind were asked for so far.
    #[must_use]
    pub fn count(&self, op: Op) -> u64 {
        self.state.lock().counts.get(&op).copied().unwrap_or(0)
    }

    /// How many bytes were written so far.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.state.lock().written_bytes
    }

    /// Kills the machine inside the `n`-th changing operation from now, counted from one. That
    /// operation may or may not take place; nobody learns which.
    pub fn kill_in(&self, n: u64) {
        let mut state = self.state.lock();
        state.kill_at = Some(state.mutations + n);
    }

    /// Kills the machine at a named moment. One at a time: the last one asked for counts, and a
    /// restart forgets it.
    pub fn kill_at(&self, moment: Moment) {
        self.state.lock().trap = Some(moment);
    }

    /// Kills the machine now: nothing mounted changes anything from here on.
    pub fn kill(&self) {
        self.state.lock().die();
    }

    /// Waits until the machine is killed.
    pub async fn death(&self) {
        let died = Arc::clone(&self.state.lock().died);
        let mut told = std::pin::pin!(died.notified());
        told.as_mut().enable();
        if !self.is_dead() {
            told.await;
        }
    }

    /// Whether the machine was killed and not yet restarted.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state.lock().killed
    }

    /// The power went and is back: of everything not synced an arbitrary part is left.
    pub fn power_cycle(&self) {
        let cut = Cut::draw(&mut self.state.lock().chance);
        self.cut_power(cut);
    }

    /// The same with a given cruelty.
    pub fn cut_power(&self, cut: Cut) {
        let state = &mut *self.state.lock();
        state.names.cut(cut, &mut state.chance);
        for inode in state.files.values_mut() {
            inode.content.cut(cut, &mut state.chance);
        }
        state.next_life();
    }

    /// The process died and starts again on a machine that kept running: everything written
    /// is there, and none of it more durable than before.
    pub fn restart_process(&self) {
        self.state.lock().next_life();
    }

    /// Inverts one bit of a file, on the medium too.
    ///
    /// # Errors
    /// There is no such file or no such byte in it.
    pub fn flip_bit(&self, path: &Path, byte: u64, bit: u8) -> io::Result<()> {
        let state = &mut *self.state.lock();
        let id = state.names.file(&normal(path))?;
        if state.content(id).flip(place(byte)?, bit) {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// From now on every read of a file fails, or none does any more for this reason.
    ///
    /// # Errors
    /// There is no such file.
    pub fn set_readable(&self, path: &Path, readable: bool) -> io::Result<()> {
        let state = &mut *self.state.lock();
        let id = state.names.file(&normal(path))?;
        match readable {
            true => state.unreadable.remove(&id),
            false => state.unreadable.insert(id),
        };
        Ok(())
    }

    /// A healthy drive of its own with the same files, all of them durable: what somebody gets who
    /// copies the disk of a machine.
    #[must_use]
    pub fn copied(&self, seed: u64) -> Drive {
        let copy = Drive::new(seed);
        let (state, mut target) = (self.state.lock(), copy.state.lock());
        for (path, named) in state.names.everything() {
            let to = match named {
                Target::Directory => Target::Directory,
                Target::File(id) => {
                    let made = target.new_file();
                    let bytes = state.files.get(&id).map_or(&[][..], |file| file.content.read(0));
                    target.content(made).write(0, bytes);
                    target.content(made).sync();
                    Target::File(made)
                }
            };
            target.names.link(path, to);
        }
        target.names.sync_all();
        drop(target);
        copy
    }

    /// Bytes of all files, holes not counted.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used_bytes()
    }

    /// The hash of everything the drive was asked, in order, and of what it answered.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.state.lock().trace.value()
    }

    /// [`Drive::trace`] and how far the drive's chance was drawn.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let state = self.state.lock();
        let mut trace = state.trace;
        trace.add(state.chance.clone().next_u64());
        trace.value()
    }
}

/// A moment that has a name: just before or just after the `nth` operation, from one, of a kind on
/// files or directories whose path ends so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Which kind; a changing one.
    pub op: Op,
    /// What the path ends with.
    pub path: &'static str,
    /// The how manieth from now; one is the next.
    pub nth: u64,
    /// On which side of it.
    pub side: Side,
}

/// A side of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It does not take place.
    Before,
    /// It has taken place, and nobody was told.
    After,
}

/// What an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "named as what they do")]
pub enum Op {
    Open,
    Create,
    CreateDir,
    SyncDir,
    Rename,
    Remove,
    List,
    Exists,
    Lock,
    Read,
    Write,
    Resize,
    Len,
    Sync,
    Link,
    Allocated,
}

/// Everything a drive is.
pub(super) struct State {
    files: BTreeMap<FileId, Inode>,
    pub(super) names: Names,
    pub(super) locked: BTreeSet<FileId>,
    next_file: u64,
    pub(super) faults: Faults,
    /// Files of which every read fails.
    pub(super) unreadable: BTreeSet<FileId>,
    chance: ChaCha8Rng,
    pub(super) trace: Trace,
    mutations: u64,
    counts: BTreeMap<Op, u64>,
    written_bytes: u64,
    kill_at: Option<u64>,
    trap: Option<Moment>,
    killed: bool,
    /// Rings when the machine is killed.
    died: Arc<Notify>,
    /// Restarts so far. Handles of an earlier life are dead.
    life: u64,
}

#[derive(Default)]
struct Inode {
    content: Content,
    opened: u32,
}

impl State {
    pub(super) fn is_dead(&self, life: u64) -> bool {
        self.killed || self.life != life
    }

    pub(super) fn require_alive(&self, life: u64) -> io::Result<()> {
        if self.is_dead(life) { Err(dead()) } else { Ok(()) }
    }

    fn die(&mut self) {
        self.killed = true;
        self.died.notify_waiters();
    }

    /// Runs one changing operation: counts it, kills the machine in it if it is the chosen
    /// one or at the chosen side of it, fails it with `probability`, or lets it happen.
    pub(super) fn mutate<R>(
        &mut self,
        life: u64,
        probability: f64,
        struck: Option<Side>,
        happen: impl FnOnce(&mut State) -> io::Result<R>,
    ) -> io::Result<R> {
        self.require_alive(life)?;
        self.mutations += 1;
        if let Some(side) = struck {
            if side == Side::After {
                // The caller is dead: nobody learns how it went.
                drop(happen(self));
            }
            self.die();
            return Err(dead());
        }
        if self.kill_at == Some(self.mutations) {
            self.kill_at = None;
            self.die();
            if self.chance.random_bool(0.5) {
                // The caller is dead: whether it worked is nobody's to know.
                drop(happen(self));
            }
            return Err(dead());
        }
        if self.roll(probability) {
            return Err(broken("the simulated drive failed"));
        }
        happen(self)
    }

    /// Whether the machine dies at this operation, and on which side of it.
    pub(super) fn strikes(&mut self, life: u64, op: Op, path: &Path) -> Option<Side> {
        if self.is_dead(life) {
            return None;
        }
        let trap = self.trap.as_mut()?;
        if trap.op != op || !path.to_string_lossy().ends_with(trap.path) {
            return None;
        }
        trap.nth = trap.nth.saturating_sub(1);
        if trap.nth > 0 {
            return None;
        }
        self.trap.take().map(|trap| trap.side)
    }

    /// The same of an operation on an open file; one that has no name any more is nobody's moment.
    pub(super) fn strikes_file(&mut self, life: u64, op: Op, id: FileId) -> Option<Side> {
        self.trap?;
        let path = self.names.name_of(id)?.to_owned();
        self.strikes(life, op, &path)
    }

    pub(super) fn roll(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.chance.random_bool(probability)
    }

    pub(super) fn note(&mut self, op: Op, subject: u64, place: u64, bytes: &[u8]) {
        *self.counts.entry(op).or_default() += 1;
        if op == Op::Write {
            self.written_bytes += u64::try_from(bytes.len()).expect("usize fits u64");
        }
        self.trace.add(op as u64);
        self.trace.add(subject);
        self.trace.add(place);
        self.trace.add_bytes(bytes);
    }

    pub(super) fn new_file(&mut self) -> FileId {
        let id = FileId(self.next_file);
        self.next_file += 1;
        self.files.insert(id, Inode::default());
        id
    }

    pub(super) fn content(&mut self, id: FileId) -> &mut Content {
        &mut self.files.get_mut(&id).expect("a named or opened file is kept").content
    }

    pub(super) fn opened(&mut self, id: FileId) {
        self.files.get_mut(&id).expect("only a named file is opened").opened += 1;
    }

    pub(super) fn closed(&mut self, id: FileId, life: u64) {
        // A restart has closed everything already.
        if self.life == life
            && let Some(inode) = self.files.get_mut(&id)
        {
            inode.opened -= 1;
            if inode.opened == 0 {
                self.forget_if_lost(id);
            }
        }
    }

    /// Writes, as far as there is space.
    pub(super) fn write(&mut self, id: FileId, at: usize, bytes: &[u8]) -> io::Result<()> {
        let grown = self.content(id).unallocated(at..at + bytes.len());
        let grown = u64::try_from(grown).expect("lengths fit 64 bits");
        if self.roll(self.faults.full) || self.lacks(grown) {
            if self.chance.random_bool(0.5) && !bytes.is_empty() {
                // Never more than the free space, never all of it, and nothing where the file has bytes
                // already: in place there is no lack of room, and elsewhere the new bytes are
                // allotted before the old ones go. SQLite's commits count on that: what is left of a
                // refused one must not be whole.
                let inside = at + bytes.len() <= self.content(id).len();
                let fits = if self.lacks(grown) || inside { 0 } else { bytes.len() - 1 };
                let part = self.chance.random_range(0..=fits);
                self.write_within(id, at, &bytes[..part]);
            }
            return Err(no_space());
        }
        self.write_within(id, at, bytes);
        Ok(())
    }

    pub(super) fn resize(&mut self, id: FileId, len: usize) -> io::Result<()> {
        // What it grows by is a hole, which takes no room.
        self.content(id).resize(len);
        Ok(())
    }

    pub(super) fn sync(&mut self, id: FileId) -> io::Result<()> {
        let faults = self.faults;
        if self.roll(faults.sync_lies) {
            return Ok(());
        }
        let State { files, chance, .. } = self;
        let content = &mut files.get_mut(&id).expect("an opened file is kept").content;
        if faults.sync > 0.0 && chance.random_bool(faults.sync) {
            if faults.sync_forgets > 0.0 && chance.random_bool(faults.sync_forgets) {
                content.sync_forgetting(chance);
            } else if faults.sync_late > 0.0 && chance.random_bool(faults.sync_late) {
                crate::sometimes!("a sync that failed had kept everything");
                content.sync();
            }
            return Err(broken("the simulated drive failed to sync"));
        }
        content.sync();
        Ok(())
    }

    /// Frees files that neither a name nor a handle leads to.
    pub(super) fn forget_lost(&mut self) {
        let ids: Vec<FileId> = self.files.keys().copied().collect();
        for id in ids {
            self.forget_if_lost(id);
        }
    }

    fn forget_if_lost(&mut self, id: FileId) {
        let lost = self.files.get(&id).is_some_and(|inode| inode.opened == 0);
        if lost && !self.names.mentions(id) {
            self.files.remove(&id);
        }
    }

    fn write_within(&mut self, id: FileId, at: usize, bytes: &[u8]) {
        self.content(id).write(at, bytes);
    }

    fn lacks(&self, grown: u64) -> bool {
        self.faults
            .capacity_bytes
            .is_some_and(|capacity| grown > 0 && self.used_bytes() + grown > capacity)
    }

    /// Counted anew each time: a cut changes lengths behind everybody's back.
    fn used_bytes(&self) -> u64 {
        let lens = self.files.values().map(|inode| inode.content.allocated());
        lens.map(|len| u64::try_from(len).expect("lengths fit 64 bits")).sum()
    }

    fn next_life(&mut self) {
        self.life += 1;
        self.killed = false;
        self.kill_at = None;
        self.trap = None;
        self.locked.clear();
        for inode in self.files.values_mut() {
            inode.opened = 0;
        }
        self.forget_lost();
    }
}

/// An offset or length as an index of memory.
pub(super) fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

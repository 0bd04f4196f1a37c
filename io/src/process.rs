//! What the system knows of this process.

/// Asks the system about this process.
pub trait Process: Send + Sync {
    /// The memory it occupies. `None` if the system does not tell.
    fn memory(&self) -> Option<Memory>;
}

/// The memory that a process occupies, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of it that is in RAM.
    pub resident: u64,
    /// The most that ever was.
    pub resident_max: u64,
    /// Of what is resident: its own, which no file stands behind.
    pub anonymous: u64,
    /// Of what is resident: pages of files.
    pub file: u64,
    /// Of what is resident: memory shared with other processes.
    pub shared: u64,
}

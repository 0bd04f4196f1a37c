//! Every bound that is a constant. Those an operator may turn are in `config.rs`.

/// Longest stream name in bytes.
pub const NAME_BYTES_MAX: usize = 1024;
/// Longest content type in bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 256;
/// Longest producer id in bytes.
pub const PRODUCER_ID_BYTES_MAX: usize = 256;
/// Longest `Stream-Seq` in bytes.
pub const STREAM_SEQ_BYTES_MAX: usize = 1024;
/// Longest routing key in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Greatest producer epoch and sequence: what a JSON number holds exactly (protocol §6.1).
pub const PRODUCER_NUMBER_MAX: u64 = (1 << 53) - 1;
/// How many end offsets of its own a producer's duplicate can be answered with.
pub const PRODUCER_ENDS_KEPT: usize = 16;
/// Producers of one stream.
pub const PRODUCERS_PER_STREAM_MAX: u32 = 10_000;
/// Longest sliding window in seconds: 1,000 years.
pub const TTL_SECONDS_MAX: u64 = 1000 * 366 * 86_400;
/// Deepest nesting of a JSON message.
pub const JSON_DEPTH_MAX: usize = 256;
/// Appends in one commit.
pub const GROUP_ENTRIES_MAX: usize = 1024;
/// Bytes in one commit, a single larger append excepted.
pub const GROUP_BYTES_MAX: usize = 4 << 20;
/// Forks of forks of forks: what a deletion may end at once.
pub const FORK_DEPTH_MAX: u32 = 4096;
/// Streams a fork may draw on, itself not counted.
pub const FORK_RUNS_MAX: usize = 512;
/// Subscriptions of a store.
pub const SUBSCRIPTIONS_MAX: usize = 100_000;
/// Streams that one subscription links by name.
pub const EXPLICIT_LINKS_MAX: usize = 10_000;
/// Streams of which touches are remembered that the log could not take.
pub const TOUCHES_OWED_MAX: usize = 10_000;
/// Acks in one report.
pub const ACKS_MAX: usize = 10_000;
/// Raw bytes a block of a segment aims at.
pub const BLOCK_BYTES_TARGET: usize = 64 << 10;
/// Most records in one block part, so that a part's tables stay small.
pub const BLOCK_RECORDS_MAX: usize = 16 << 10;
/// Files that one page of a manifest lists.
pub const PAGE_ENTRIES: usize = 4096;
/// Bytes of a manifest.
pub const MANIFEST_BYTES_MAX: usize = 1 << 20;

/// Uploads at a time.
pub const UPLOADS_MAX: usize = 8;

const _: () = assert!(BLOCK_BYTES_TARGET * 16 <= GROUP_BYTES_MAX);
/// The shortest grace period that a store may be given: what no manifest names is kept for as long.
pub const GC_GRACE_MIN: std::time::Duration = std::time::Duration::from_secs(60);

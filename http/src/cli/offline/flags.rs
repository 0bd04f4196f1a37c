//! The command lines of the commands that work without a server, and of a server that begins by
//! restoring its store.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use weir_engine::types::WallMs;

use crate::{
    cli::{flags::parse_duration, store::StoreFlags},
    wire::date,
};

/// What can be done without a server.
#[derive(Clone, Debug, Subcommand)]
pub enum OfflineCommand {
    /// Make a new store out of what the bucket has. Ends with 3 if some of it could not be
    /// restored
    Bootstrap(BootstrapFlags),
    /// Look for damage, change nothing. Ends with 3 if there is some
    Verify(VerifyFlags),
    /// Print what is stored in readable form. Ends with 3 if some of it can't be read
    Inspect(InspectFlags),
    /// Objects of the bucket that are no longer needed
    Gc(GcFlags),
}

/// Where a store and its bucket are.
#[derive(Clone, Debug, Args)]
pub struct PlaceFlags {
    /// Directory of everything stored [env: DS_ROOT] [default: ./weir-data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    #[command(flatten)]
    pub store: StoreFlags,
}

/// What to restore, and over what.
#[derive(Clone, Copy, Debug, Args)]
pub struct RestoreFlags {
    /// Restore what a manifest says that is still kept: the generation of this number, or the
    /// newest one that was there at this time (2026-11-20T08:30:00Z)
    #[arg(long, value_name = "GENERATION|TIME", value_parser = parse_moment)]
    pub at: Option<Moment>,

    /// Restore the rest if some of it is damaged or missing
    #[arg(long)]
    pub partial: bool,

    /// Restore in place of a store that is there: its directory is renamed, never deleted
    #[arg(long)]
    pub force: bool,

    /// What the server will be started with: segments that may hold what was deleted take turns over
    /// this time to be written anew
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_duration)]
    pub erase_within: Duration,
}

/// Flags of `weir bootstrap`.
#[derive(Clone, Debug, Args)]
pub struct BootstrapFlags {
    #[command(flatten)]
    pub place: PlaceFlags,

    /// Say what would be restored and what could not, change nothing
    #[arg(long, conflicts_with_all = ["force", "partial"])]
    pub check: bool,

    /// Report in JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub restore: RestoreFlags,
}

/// Flags of a server that restores its store before it serves.
#[derive(Clone, Copy, Debug, Args)]
pub struct ServeBootstrapFlags {
    /// Make the store out of what the bucket has before anything is served
    #[arg(long, alias = "bootstrap-from-r2")]
    pub bootstrap: bool,

    /// With --bootstrap: restore what a manifest says that is still kept: the generation of this
    /// number, or the newest one that was there at this time
    #[arg(long, value_name = "GENERATION|TIME", value_parser = parse_moment, requires = "bootstrap")]
    pub at: Option<Moment>,

    /// With --bootstrap: restore the rest if some of it is damaged or missing
    #[arg(long, requires = "bootstrap")]
    pub partial: bool,

    /// With --bootstrap: restore in place of a store that is there, whose directory is renamed
    #[arg(long, requires = "bootstrap")]
    pub force: bool,
}

/// Flags of `weir verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyFlags {
    #[command(flatten)]
    pub place: PlaceFlags,

    /// Look at the data directory only
    #[arg(long, group = "depth")]
    pub local: bool,

    /// Look at the bucket only
    #[arg(long, group = "depth")]
    pub remote: bool,

    /// Look at both and read every byte of every object
    #[arg(long, group = "depth")]
    pub deep: bool,

    /// Report in JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags of `weir inspect`.
#[derive(Clone, Debug, Args)]
pub struct InspectFlags {
    /// What is to be printed
    #[arg(value_enum)]
    pub what: Stored,

    /// The file: from the data directory, or an object of the bucket that was copied out. What is
    /// unpublished is looked for in a data directory
    #[arg(value_name = "FILE|DIR")]
    pub place: PathBuf,

    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,

    /// Leave out this many records, rows or entries
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub skip: u64,

    /// Print no more records, rows or entries than this
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<u64>,
}

/// Flags of `weir gc`.
#[derive(Clone, Debug, Args)]
pub struct GcFlags {
    #[command(flatten)]
    pub place: PlaceFlags,

    /// Say what a server would delete. Deleting is the server's alone, so this must be given
    #[arg(long, required = true)]
    pub dry_run: bool,

    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Kinds of what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stored {
    /// Records of streams
    Segment,
    /// What a bucket has, as of one generation
    Manifest,
    /// State of streams
    Rows,
    /// The log: the SQLite file of a store
    Log,
    /// What a store has that its newest manifest does not show: of one that was overtaken, too
    Unpublished,
}

impl Stored {
    /// Its name, as the command line has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Segment => "segment",
            Self::Manifest => "manifest",
            Self::Rows => "rows",
            Self::Log => "log",
            Self::Unpublished => "unpublished",
        }
    }
}

/// Which manifest of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The one with this number.
    Generation(u64),
    /// The newest that is not younger.
    Time(WallMs),
}

fn parse_moment(text: &str) -> Result<Moment, String> {
    if !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit()) {
        let generation = text.parse().ok().filter(|it| *it > 0);
        return generation
            .map(Moment::Generation)
            .ok_or_else(|| "generations are counted from 1".to_owned());
    }
    date::parse(text)
        .map(Moment::Time)
        .ok_or_else(|| "want a generation or a time: 17, 2026-11-20T08:30:00Z".to_owned())
}

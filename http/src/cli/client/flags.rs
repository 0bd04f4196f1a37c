//! Flags of the commands that talk to a server.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

mod sub;
mod values;

pub use self::sub::{SubCommand, SubCreateFlags, SubFlags, SubLsFlags, SubPullFlags};
use self::values::{
    SEQ_MAX, parse_batch, parse_end, parse_lines, parse_retention, parse_stream, parse_ttl,
    parse_type,
};
use super::since::{self, Origin};
use crate::{bench::flags::TargetFlags, cli::flags::parse_duration};

/// What can be asked of a server.
#[derive(Clone, Debug, Subcommand)]
pub enum ClientCommand {
    /// Create a stream; one that is there and the same is fine
    Create(CreateFlags),
    /// Append messages, files, or what comes in by the standard input
    Append(AppendFlags),
    /// Print what a stream holds
    Read(ReadFlags),
    /// Print the last messages of a stream; with -f, follow it
    Tail(TailFlags),
    /// Say what a stream is and where it ends
    Head(StreamFlags),
    /// List streams by name (servers that can)
    Ls(LsFlags),
    /// Close a stream: nothing can be appended any more
    Close(StreamFlags),
    /// Delete streams
    Rm(RmFlags),
    /// Create a stream that begins as another one
    Fork(ForkFlags),
    /// Subscriptions
    #[command(subcommand)]
    Sub(SubCommand),
    /// What the server tells of a stream, or of itself (servers that can)
    Details(DetailsFlags),
    /// Append a file of one JSON message a line; called again, it goes on where it was
    Import(ImportFlags),
    /// Write a stream to a file, one JSON message a line; called again, it goes on where it was
    Export(ExportFlags),
}

impl ClientCommand {
    /// The server that is asked.
    pub(super) const fn server(&self) -> &ServerFlags {
        match self {
            Self::Create(flags) => &flags.on.server,
            Self::Append(flags) => &flags.on.server,
            Self::Read(flags) => &flags.on.server,
            Self::Tail(flags) => &flags.on.server,
            Self::Head(flags) | Self::Close(flags) => &flags.server,
            Self::Ls(flags) => &flags.server,
            Self::Rm(flags) => &flags.server,
            Self::Fork(flags) => &flags.server,
            Self::Sub(command) => command.server(),
            Self::Details(flags) => &flags.server,
            Self::Import(flags) => &flags.on.server,
            Self::Export(flags) => &flags.on.server,
        }
    }

    /// Whether it asks once and prints the answer.
    pub(super) const fn only_asks(&self) -> bool {
        matches!(
            self,
            Self::Head(_) | Self::Ls(_) | Self::Details(_) | Self::Sub(SubCommand::Ls(_))
        )
    }

    /// Whether it reads and says where it was when it is told to end.
    pub(super) const fn only_reads(&self) -> bool {
        matches!(self, Self::Read(_) | Self::Tail(_) | Self::Export(_))
    }
}

/// The server, and how to show what it says.
#[derive(Clone, Debug, Args)]
pub struct ServerFlags {
    /// The server.
    #[command(flatten)]
    pub target: TargetFlags,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// How long to try again what can be tried again, also the first connection while no server
    /// runs there [default: 30s, and not at all where the first connection is refused]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub retry_for: Option<Duration>,
}

/// A stream of a server.
#[derive(Clone, Debug, Args)]
pub struct StreamFlags {
    /// The server.
    #[command(flatten)]
    pub server: ServerFlags,

    /// Name of the stream
    #[arg(value_name = "STREAM", value_parser = parse_stream)]
    pub stream: String,
}

/// What a new stream is to be.
#[derive(Clone, Debug, Args)]
pub struct LifeFlags {
    /// How long it stays without use: 30m, 7d
    #[arg(long, value_name = "TIME", value_parser = parse_ttl, conflicts_with = "expires_at")]
    pub ttl: Option<Duration>,

    /// When it goes: 2027-01-01T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_end)]
    pub expires_at: Option<String>,

    /// What it lets go of: "max-age=7d; max-bytes=1000000" (servers that can)
    #[arg(long, value_name = "LIMITS", value_parser = parse_retention)]
    pub retention: Option<String>,
}

/// Flags of `weir create`.
#[derive(Clone, Debug, Args)]
pub struct CreateFlags {
    /// The stream.
    #[command(flatten)]
    pub on: StreamFlags,

    /// Content type, or `json`, `text`, `binary`
    #[arg(long = "type", value_name = "TYPE", default_value = "json", value_parser = parse_type)]
    pub content_type: String,

    /// Its end.
    #[command(flatten)]
    pub life: LifeFlags,

    /// What it begins with
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,

    /// Close it at once
    #[arg(long)]
    pub closed: bool,
}

/// Flags of `weir append`.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("cut").args(["ndjson", "lines"]))]
pub struct AppendFlags {
    /// The stream.
    #[command(flatten)]
    pub on: StreamFlags,

    /// Files, each one request, or with --ndjson or --lines line by line; none or `-` is the
    /// standard input
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// A message, instead of files
    #[arg(short, long, value_name = "TEXT", conflicts_with = "files")]
    pub message: Vec<String>,

    /// Each line is a JSON message
    #[arg(long, conflicts_with_all = ["lines", "message"])]
    pub ndjson: bool,

    /// Each line is a record, its line break included
    #[arg(long, conflicts_with = "message")]
    pub lines: bool,

    /// Most lines in a request; there are fewer if no more come, or at 1 MiB
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "500",
        value_parser = parse_batch,
        requires = "cut"
    )]
    pub batch: usize,

    /// Append exactly once: what got no answer is sent again, and the same command with the same
    /// input again appends what is missing, also behind what it has grown by. Another input is
    /// refused: it needs another ID. What was sent is remembered in [env: WEIR_STATE_DIR], or else
    /// with the state of the user
    #[arg(long, value_name = "ID")]
    pub producer_id: Option<String>,

    /// Number of the first -m among the messages of the producer, from 0. A message whose number
    /// the stream has is not appended again: the same command again is safe, and the next message
    /// has the next number
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(..=SEQ_MAX),
        requires_all = ["producer_id", "message"],
        conflicts_with = "close"
    )]
    pub producer_seq: Option<u64>,

    /// Key of the records (servers that have keys)
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,

    /// Create the stream if it is not there
    #[arg(long)]
    pub create: bool,

    /// Content type of a stream that is created, or `json`, `text`, `binary`
    #[arg(long = "type", value_name = "TYPE", default_value = "json", value_parser = parse_type)]
    pub content_type: String,

    /// Close the stream behind it
    #[arg(long)]
    pub close: bool,
}

/// Where to read.
#[derive(Clone, Debug, Args)]
pub struct FromFlags {
    /// Where to begin: `start`, `now`, or an offset that the server named
    #[arg(long, value_name = "WHERE", conflicts_with = "since", allow_hyphen_values = true)]
    pub from: Option<String>,

    /// Begin with what came since: 10m ago, or 2026-11-20T08:30:00Z (servers that can)
    #[arg(long, value_name = "TIME", value_parser = since::parse)]
    pub since: Option<Origin>,

    /// Records of this key only (servers that have keys)
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,

    /// Print bytes as they are stored, on a terminal too
    #[arg(long, conflicts_with = "json")]
    pub raw: bool,
}

/// Flags of `weir read`.
#[derive(Clone, Debug, Args)]
pub struct ReadFlags {
    /// The stream.
    #[command(flatten)]
    pub on: StreamFlags,

    /// Where.
    #[command(flatten)]
    pub from: FromFlags,
}

/// Flags of `weir tail`.
#[derive(Clone, Debug, Args)]
pub struct TailFlags {
    /// The stream.
    #[command(flatten)]
    pub on: StreamFlags,

    /// Where; with -f `now`, if nothing is said.
    #[command(flatten)]
    pub from: FromFlags,

    /// Print the last messages only, or lines of a stream that is text [default: 10, without -f,
    /// --from and --since]. What is bytes is printed whole
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = parse_lines)]
    pub lines: Option<usize>,

    /// Go on with what comes, until the stream is closed
    #[arg(short, long)]
    pub follow: bool,

    /// How to wait for it [default: sse; long-poll for a stream that is text, whose line breaks an
    /// event stream does not keep as they are]
    #[arg(long, value_enum, value_name = "MODE")]
    pub live: Option<LiveFlag>,
}

/// How to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LiveFlag {
    /// An event stream; long-polls if the server has none
    Sse,
    /// One long-poll after the other
    LongPoll,
}

/// Flags of `weir ls`.
#[derive(Clone, Debug, Args)]
pub struct LsFlags {
    /// The server.
    #[command(flatten)]
    pub server: ServerFlags,

    /// Streams whose names begin so
    #[arg(value_name = "PREFIX", default_value = "")]
    pub prefix: String,
}

/// Flags of `weir rm`.
#[derive(Clone, Debug, Args)]
pub struct RmFlags {
    /// The server.
    #[command(flatten)]
    pub server: ServerFlags,

    /// Names of the streams
    #[arg(value_name = "STREAM", required = true, value_parser = parse_stream)]
    pub streams: Vec<String>,

    /// What is not there is fine
    #[arg(short, long)]
    pub force: bool,
}

/// Flags of `weir fork`.
#[derive(Clone, Debug, Args)]
pub struct ForkFlags {
    /// The server.
    #[command(flatten)]
    pub server: ServerFlags,

    /// Name of the stream that is there
    #[arg(value_name = "SOURCE", value_parser = parse_stream)]
    pub source: String,

    /// Name of the new one
    #[arg(value_name = "STREAM", value_parser = parse_stream)]
    pub stream: String,

    /// Where it goes its own way: `start`, `now`, or an offset that the server named [default: now]
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    pub at: Option<String>,

    /// So many messages (bytes, if it is not JSON) behind that
    #[arg(long, value_name = "COUNT", requires = "at")]
    pub plus: Option<u64>,

    /// Its end.
    #[command(flatten)]
    pub life: LifeFlags,
}

/// Flags of `weir details`.
#[derive(Clone, Debug, Args)]
pub struct DetailsFlags {
    /// The server.
    #[command(flatten)]
    pub server: ServerFlags,

    /// Name of the stream [default: the server itself]
    #[arg(value_name = "STREAM", value_parser = parse_stream)]
    pub stream: Option<String>,
}

/// Flags of `weir import`.
#[derive(Clone, Debug, Args)]
pub struct ImportFlags {
    /// The stream, created if it is not there.
    #[command(flatten)]
    pub on: StreamFlags,

    /// The file: a JSON message a line, or any bytes for a stream that is not JSON
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Content type of a stream that is created, or `json`, `text`, `binary`
    #[arg(long = "type", value_name = "TYPE", default_value = "json", value_parser = parse_type)]
    pub content_type: String,

    /// Most lines in a request
    #[arg(long, value_name = "COUNT", default_value = "1000", value_parser = parse_batch)]
    pub batch: usize,

    /// Remember what is done under this name, and go on behind what was imported when the file has
    /// grown [default: made of the file's content, so that another file is another import]
    #[arg(long, value_name = "ID")]
    pub producer_id: Option<String>,

    /// Close the stream behind it
    #[arg(long)]
    pub close: bool,
}

/// Flags of `weir export`.
#[derive(Clone, Debug, Args)]
pub struct ExportFlags {
    /// The stream.
    #[command(flatten)]
    pub on: StreamFlags,

    /// The file; until it is complete it is called FILE.partial. `-` is the standard output
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Replace a file that is there, and a part of another stream
    #[arg(short, long)]
    pub force: bool,

    /// Begin at this offset
    #[arg(long, value_name = "OFFSET", allow_hyphen_values = true)]
    pub from: Option<String>,
}

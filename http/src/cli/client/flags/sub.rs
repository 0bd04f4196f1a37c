//! Flags of the commands about subscriptions.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};

use super::ServerFlags;
use crate::cli::flags::parse_duration;

/// What can be done with subscriptions.
#[derive(Clone, Debug, Subcommand)]
pub enum SubCommand {
    /// Create a subscription: streams that call somebody when there is something new
    Create(SubCreateFlags),
    /// Show a subscription and its streams
    Ls(SubLsFlags),
    /// Delete a subscription
    Rm(SubFlags),
    /// Take the work of a subscription, print its messages, and ack them
    Pull(SubPullFlags),
}

impl SubCommand {
    pub(in crate::cli::client) const fn server(&self) -> &ServerFlags {
        match self {
            Self::Create(flags) => &flags.on.server,
            Self::Ls(flags) => &flags.server,
            Self::Rm(flags) => &flags.server,
            Self::Pull(flags) => &flags.on.server,
        }
    }
}

/// A subscription.
#[derive(Clone, Debug, Args)]
pub struct SubFlags {
    /// The server.
    #[command(flatten)]
    pub server: ServerFlags,

    /// Name of the subscription
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Flags of `weir sub ls`.
#[derive(Clone, Debug, Args)]
pub struct SubLsFlags {
    /// The server.
    #[command(flatten)]
    pub server: ServerFlags,

    /// Name of the subscription: the protocol has no list of them
    #[arg(value_name = "ID")]
    pub id: Option<String>,
}

/// Flags of `weir sub create`.
#[derive(Clone, Debug, Args)]
#[command(
    group = ArgGroup::new("which").args(["pattern", "stream"]).multiple(true).required(true),
    group = ArgGroup::new("how").args(["webhook", "wake_stream"]).required(true),
)]
pub struct SubCreateFlags {
    /// The subscription.
    #[command(flatten)]
    pub on: SubFlags,

    /// Streams whose names match: `*` is one part, `**` any number of them
    #[arg(long, value_name = "PATTERN")]
    pub pattern: Option<String>,

    /// A stream; may be given several times
    #[arg(long, value_name = "STREAM")]
    pub stream: Vec<String>,

    /// Call this URL when there is work
    #[arg(long, value_name = "URL")]
    pub webhook: Option<String>,

    /// Append a message to this stream when there is work, for `weir sub pull`
    #[arg(long, value_name = "STREAM")]
    pub wake_stream: Option<String>,

    /// How long a worker may be silent
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub lease: Option<Duration>,

    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
}

/// Flags of `weir sub pull`.
#[derive(Clone, Debug, Args)]
pub struct SubPullFlags {
    /// The subscription.
    #[command(flatten)]
    pub on: SubFlags,

    /// Who takes the work
    #[arg(long, value_name = "NAME", default_value = "weir")]
    pub worker: String,

    /// Give the work back after printing it
    #[arg(long)]
    pub no_ack: bool,

    /// Go on with what comes
    #[arg(short, long, conflicts_with = "no_ack")]
    pub follow: bool,
}

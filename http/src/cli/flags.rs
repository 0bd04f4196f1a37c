//! The command line, as `--help` explains it.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use weir_engine::types::OffsetFormat;

use super::{
    client::flags::ClientCommand,
    local::LocalCommand,
    offline::flags::{OfflineCommand, ServeBootstrapFlags},
    store::{PublishFlags, StoreFlags},
};
use crate::{
    bench::flags::BenchFlags,
    config::Network,
    wire::duration::{self, Bare},
};

/// A durable-streams server that keeps what it acknowledges.
#[derive(Debug, Parser)]
#[command(name = "weir", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (what `weir` alone does)
    Serve(Box<ServeFlags>),
    /// The keys that webhooks are signed with
    #[command(subcommand)]
    Keys(KeysCommand),
    #[command(flatten)]
    Offline(OfflineCommand),
    /// Measure a server: this one or any other of the protocol
    Bench(Box<BenchFlags>),
    #[command(flatten)]
    Client(Box<ClientCommand>),
    /// A server for development, with everything in one SQLite file
    #[command(subcommand)]
    Local(LocalCommand),
}

/// What is asked of no server.
#[derive(Clone, Debug)]
pub enum Aside {
    /// Something about the keys.
    Keys(KeysCommand),
    /// Something about a store or a bucket.
    Offline(Box<OfflineCommand>),
    /// A load for a server.
    Bench(Box<BenchFlags>),
    /// Something of a server.
    Client(Box<ClientCommand>),
    /// Something about local servers.
    Local(LocalCommand),
}

/// What can be done with the keys.
#[derive(Clone, Debug, Subcommand)]
pub enum KeysCommand {
    /// Sign with a new key from now on; the one before is published for ten more minutes. A
    /// running server follows within a minute
    Rotate {
        /// Directory of everything stored [env: DS_ROOT] [default: ./weir-data]
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
}

impl Cli {
    /// The flags of the server, however it was called.
    ///
    /// # Errors
    /// Something else was asked for.
    pub fn into_serve(self) -> Result<ServeFlags, Aside> {
        match self.command {
            Some(Command::Serve(flags)) => Ok(*flags),
            Some(Command::Keys(command)) => Err(Aside::Keys(command)),
            Some(Command::Offline(command)) => Err(Aside::Offline(Box::new(command))),
            Some(Command::Bench(flags)) => Err(Aside::Bench(flags)),
            Some(Command::Client(command)) => Err(Aside::Client(command)),
            Some(Command::Local(command)) => Err(Aside::Local(command)),
            None => Ok(self.serve),
        }
    }
}

/// Flags of `weir serve`. Durations are written 500ms, 3s, 2m, 1h; sizes 4096, 64KiB, 10MiB.
#[derive(Clone, Debug, Args)]
pub struct ServeFlags {
    /// Address to listen on [env: DS_HOST] [default: 127.0.0.1]. Any but a loopback address
    /// needs --auth-strategy or --no-auth
    #[arg(long, value_name = "ADDRESS")]
    pub host: Option<String>,

    /// Port to listen on; 0 takes a free one [env: PORT] [default: 8080]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,

    /// Directory of everything stored, created if missing; one server at a time
    /// [env: DS_ROOT] [default: ./weir-data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Where sealed segments are kept for good.
    #[command(flatten)]
    pub store: StoreFlags,

    /// How they get there.
    #[command(flatten)]
    pub publish: PublishFlags,

    /// Whether the store is made of them first.
    #[command(flatten)]
    pub bootstrap: ServeBootstrapFlags,

    /// Let everybody ask who can connect
    #[arg(long)]
    pub no_auth: bool,

    /// Who may ask: `api-key` wants `Authorization: Bearer` with the value of the environment
    /// variable API_KEY (at least 10 characters). /health needs no key
    #[arg(long, value_enum, value_name = "STRATEGY")]
    pub auth_strategy: Option<AuthStrategy>,

    /// How long a long-poll waits that does not say
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    pub long_poll_timeout: Duration,

    /// The longest wait a long-poll may ask for
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub long_poll_max: Duration,

    /// Age at which an event stream ends, so that caches can collapse its readers; clients
    /// reconnect where it ended
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub sse_recycle: Duration,

    /// Longest silence of an event stream: a comment is sent then
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_duration)]
    pub sse_keepalive: Duration,

    /// How offsets are written; both forms are always read
    #[arg(long, value_enum, default_value = "reference")]
    pub offset_format: OffsetSpelling,

    /// Unsealed record bytes in memory that start a seal; twice as much refuses appends
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size)]
    pub memtable_bytes: usize,

    /// Bytes of local copies of what the bucket holds too; those unused for longest go when there
    /// are more
    #[arg(long, value_name = "SIZE", default_value = "10GiB", value_parser = parse_size)]
    pub cache_bytes: usize,

    /// Age of the oldest unsealed record that starts a seal
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub seal_age: Duration,

    /// Time within which the bytes of a record leave the disk after it was deleted, or after its
    /// stream let it go
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_duration)]
    pub erase_within: Duration,

    /// Largest request body, at most 64MiB [env: DS_APPEND_MAX_BODY_BYTES] [default: 10MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub body_max: Option<usize>,

    /// Most record bytes in one answer of a read [env: DS_READ_MAX_BYTES] [default: 4MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub read_bytes_max: Option<usize>,

    /// URL under which clients see this server, for the URLs in its answers; its host is also
    /// accepted in requests
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,

    /// Address or network of a proxy whose `Forwarded` or `X-Forwarded-Proto` and -Host headers
    /// say where clients see this server; may be given several times
    #[arg(long, value_name = "CIDR")]
    pub trusted_proxy: Vec<Network>,

    /// Open connections; more are turned away with 503
    #[arg(long, value_name = "COUNT", default_value_t = 65_536)]
    pub connections_max: u32,

    /// Time after which a connection without a request is closed
    /// [env: DS_HTTP_IDLE_TIMEOUT_SECONDS] [default: 180s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub idle_timeout: Option<Duration>,

    /// Allow webhooks to loopback addresses, for development; without it they go to public
    /// addresses by https only
    #[arg(long)]
    pub allow_loopback_webhooks: bool,

    /// How long a webhook's receiver may take for its answer
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_duration)]
    pub webhook_timeout: Duration,

    /// Sign webhooks with this Ed25519 key in PEM (openssl genpkey -algorithm ed25519) instead
    /// of one that the server makes and keeps in DIR/store/keys
    #[arg(long, value_name = "FILE")]
    pub signing_key: Option<PathBuf>,

    /// What to log, to stderr: a level, or filters like `weir_http=debug,info`
    /// [env: RUST_LOG] [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// How requests prove who sends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuthStrategy {
    /// One key for everybody
    ApiKey,
}

/// How offsets are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OffsetSpelling {
    /// 0000000000000000_0000000000000002
    Reference,
    /// 0000000000000000000G000000
    Peer,
}

impl From<OffsetSpelling> for OffsetFormat {
    fn from(spelling: OffsetSpelling) -> Self {
        match spelling {
            OffsetSpelling::Reference => Self::Reference,
            OffsetSpelling::Peer => Self::Peer,
        }
    }
}

pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text, Bare::Refused)
        .ok_or_else(|| "want a number and a unit: 500ms, 3s, 2m, 1h".to_owned())
}

pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let number: Option<usize> = number.parse().ok();
    number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| "want a number of bytes: 4096, 64KiB, 10MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_flag_is_explained() {
        let mut command = Cli::command();
        command.build();
        let serve = command.find_subcommand("serve").expect("there");
        serve.clone().debug_assert();
        for flag in serve.get_arguments() {
            assert!(flag.get_help().is_some(), "{flag:?}");
        }
    }

    #[test]
    fn bare_weir_is_weir_serve() {
        let bare = Cli::try_parse_from(["weir", "--port", "7"]).expect("valid").into_serve();
        let bare = bare.expect("a server");
        let serve = Cli::try_parse_from(["weir", "serve", "--port", "7"]).expect("valid");
        assert_eq!((bare.port, serve.into_serve().expect("a server").port), (Some(7), Some(7)));
    }

    #[test]
    fn sizes_have_units() {
        for (text, expect) in [
            ("4096", Some(4096)),
            ("64KiB", Some(65_536)),
            ("10MiB", Some(10_485_760)),
            ("1GiB", Some(1 << 30)),
            ("1MB", None),
            ("", None),
            ("-1", None),
            ("99999999999999999999", None),
            ("99999999999999GiB", None),
        ] {
            assert_eq!(parse_size(text).ok(), expect, "{text}");
        }
    }
}

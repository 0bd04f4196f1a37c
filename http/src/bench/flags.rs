//! Flags of `weir bench`.

use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};

use super::{append, record, tail::Live};
use crate::{
    cli::flags::{parse_duration, parse_size},
    client::{BadUrl, ROOT, Target},
    config::Environment,
};

/// Where a server is that nobody names.
const URL: &str = "http://127.0.0.1:8080";

/// Measure a server: this one or any other of the protocol. Times are from before a request is sent
/// until its answer is read
#[derive(Clone, Debug, Args)]
pub struct BenchFlags {
    #[command(subcommand)]
    pub(super) command: BenchCommand,
}

/// What can be measured.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Append records, and read them back to see that none is lost
    Append(AppendFlags),
    /// Create streams, and delete them afterwards
    Create(CreateFlags),
    /// Fill streams and read them from the beginning to the end, again and again
    Read(ReadFlags),
    /// Append on a schedule while readers wait: how long records take to them
    Tail(TailFlags),
    /// Append, wait and catch up, all at once
    Mixed(MixedFlags),
    /// Be a server that reads each body, does nothing and answers 204: what any other is measured
    /// against. Streams are not read back from it: use --no-verify
    Ceiling(CeilingFlags),
}

/// Which server, and how its streams are named.
#[derive(Clone, Debug, Args)]
pub struct TargetFlags {
    /// URL of the server; a path in it is where its streams are [env: WEIR_URL]
    /// [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    pub url: Option<String>,

    /// Path of the server that its streams are under [default: that of the URL, or /v1/stream]
    #[arg(long, value_name = "PATH")]
    pub root: Option<String>,

    /// Key that the server wants: a bearer token, or a whole value of `Authorization`
    /// [env: WEIR_AUTH]
    #[arg(long, value_name = "KEY")]
    pub auth: Option<String>,
}

impl TargetFlags {
    /// The server they name; what they leave open `environment` says.
    ///
    /// # Errors
    /// The URL or the key makes no sense.
    pub fn target(&self, environment: &Environment) -> anyhow::Result<Target> {
        debug_assert_eq!(ROOT, "/v1/stream", "the help says so");
        let root = self.root.as_deref();
        let target = match (&self.url, environment.get("WEIR_URL")) {
            (Some(url), _) => Target::parse(url, root)?,
            (None, Some(url)) => Target::parse(url.trim(), root).context("WEIR_URL")?,
            (None, None) => Target::parse(URL, root)?,
        };
        match (&self.auth, environment.get("WEIR_AUTH")) {
            (Some(auth), _) => Ok(target.with_auth(Some(auth))?),
            (None, Some(auth)) => target.with_auth(Some(auth)).context("WEIR_AUTH"),
            (None, None) => Ok(target),
        }
    }
}

/// How long, from where, and what becomes of it.
#[derive(Clone, Debug, Args)]
pub(super) struct RunFlags {
    #[command(flatten)]
    pub(super) target: TargetFlags,

    /// How long is measured
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_measured)]
    pub(super) seconds: Duration,

    /// How long it runs before that
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = parse_seconds)]
    pub(super) warm_up: Duration,

    /// Threads of the generator, each with a runtime of its own [default: one per core]
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub(super) threads: Option<usize>,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,

    /// Process of the server, to show what it uses
    #[arg(long, value_name = "PID")]
    pub(super) server_pid: Option<u32>,

    /// Name of the run, in the names of its streams [default: a new one]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub(super) name: Option<String>,

    /// Leave the streams there
    #[arg(long)]
    pub(super) keep: bool,

    /// Delete the streams of a run of this name that were kept, before it begins
    #[arg(long, requires = "name")]
    pub(super) replace: bool,

    /// Do not read back what was written
    #[arg(long)]
    pub(super) no_verify: bool,
}

/// What is written.
#[derive(Clone, Debug, Args)]
pub(super) struct WriteFlags {
    /// Streams
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = parse_count)]
    pub(super) streams: usize,

    /// Bytes of a record, at least 53
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = parse_record_bytes)]
    pub(super) bytes: usize,

    /// Records in a request
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = parse_count)]
    pub(super) batch: usize,

    /// Content type of the streams
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    pub(super) content_type: String,

    /// Send producer headers, and send again what got no answer
    #[arg(long)]
    pub(super) producers: bool,

    /// Which of its streams a connection writes to next
    #[arg(long, value_enum, value_name = "ORDER", default_value = "round")]
    pub(super) order: OrderFlag,
}

/// Flags of `weir bench append`.
#[derive(Clone, Debug, Args)]
pub(super) struct AppendFlags {
    #[command(flatten)]
    pub(super) run: RunFlags,

    #[command(flatten)]
    pub(super) write: WriteFlags,

    /// Connections, each with one request on the way at a time
    #[arg(long, value_name = "COUNT", default_value = "64", value_parser = parse_count)]
    pub(super) connections: usize,

    /// Requests a second, on a schedule that no slow answer delays; times count from when a
    /// request was due [default: each as soon as the one before is answered]
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(super) rate: Option<f64>,
}

/// Flags of `weir bench create`.
#[derive(Clone, Debug, Args)]
pub(super) struct CreateFlags {
    #[command(flatten)]
    pub(super) run: RunFlags,

    /// Connections, each with one request on the way at a time
    #[arg(long, value_name = "COUNT", default_value = "64", value_parser = parse_count)]
    pub(super) connections: usize,

    /// Most streams it makes
    #[arg(long, value_name = "COUNT", default_value = "10_000_000", value_parser = parse_count)]
    pub(super) streams: usize,

    /// Content type of the streams
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    pub(super) content_type: String,
}

/// Flags of `weir bench read`.
#[derive(Clone, Debug, Args)]
pub(super) struct ReadFlags {
    #[command(flatten)]
    pub(super) run: RunFlags,

    /// Readers, each with a connection
    #[arg(long, value_name = "COUNT", default_value = "4", value_parser = parse_count)]
    pub(super) connections: usize,

    /// Streams
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = parse_count)]
    pub(super) streams: usize,

    /// Bytes in each stream
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    pub(super) size: usize,

    /// Bytes of a record, at least 53
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = parse_record_bytes)]
    pub(super) bytes: usize,

    /// Content type of the streams
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    pub(super) content_type: String,

    /// Give records keys, so many, and read those of one key (servers that have keys)
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub(super) keys: Option<usize>,
}

/// Readers that wait.
#[derive(Clone, Debug, Args)]
pub(super) struct LiveFlags {
    /// Readers that wait, over all streams
    #[arg(long, value_name = "COUNT", default_value = "100", value_parser = parse_count)]
    pub(super) readers: usize,

    /// How they wait
    #[arg(long, value_enum, value_name = "MODE", default_value = "sse")]
    pub(super) live: Live,
}

/// Flags of `weir bench tail`.
#[derive(Clone, Debug, Args)]
pub(super) struct TailFlags {
    #[command(flatten)]
    pub(super) run: RunFlags,

    #[command(flatten)]
    pub(super) write: WriteFlags,

    #[command(flatten)]
    pub(super) live: LiveFlags,

    /// Connections that append
    #[arg(long, value_name = "COUNT", default_value = "4", value_parser = parse_count)]
    pub(super) connections: usize,

    /// Requests a second of all writers, on a schedule that no slow answer delays
    #[arg(long, value_name = "RATE", default_value = "100", value_parser = parse_rate)]
    pub(super) rate: f64,
}

/// Flags of `weir bench mixed`.
#[derive(Clone, Debug, Args)]
pub(super) struct MixedFlags {
    #[command(flatten)]
    pub(super) run: RunFlags,

    #[command(flatten)]
    pub(super) write: WriteFlags,

    #[command(flatten)]
    pub(super) live: LiveFlags,

    /// Connections that append
    #[arg(long, value_name = "COUNT", default_value = "64", value_parser = parse_count)]
    pub(super) connections: usize,

    /// Readers that catch up, again and again
    #[arg(long, value_name = "COUNT", default_value = "4", value_parser = parse_count)]
    pub(super) scanners: usize,

    /// Requests a second of all writers [default: each as soon as the one before is answered]
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(super) rate: Option<f64>,
}

/// Flags of `weir bench ceiling`.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct CeilingFlags {
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(super) port: u16,

    /// Threads [default: one per core]
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub(super) threads: Option<usize>,

    /// A runtime for each thread, instead of one for all
    #[arg(long)]
    pub(super) apart: bool,
}

/// Orders of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OrderFlag {
    /// One after the other
    Round,
    /// Any
    Random,
}

impl From<OrderFlag> for append::Order {
    fn from(flag: OrderFlag) -> Self {
        match flag {
            OrderFlag::Round => Self::Round,
            OrderFlag::Random => Self::Random,
        }
    }
}

fn parse_url(text: &str) -> Result<String, BadUrl> {
    Target::parse(text, None).map(|_| text.to_owned())
}

/// Rates over no time say nothing.
fn parse_measured(text: &str) -> Result<Duration, String> {
    match parse_seconds(text)? {
        Duration::ZERO => Err("want more than no time: 10, 0.5, 2m".to_owned()),
        time => Ok(time),
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse().ok().and_then(|it| Duration::try_from_secs_f64(it).ok());
    let time = number.or_else(|| parse_duration(text).ok());
    time.filter(|it| *it <= Duration::from_secs(86_400))
        .ok_or_else(|| "want seconds up to a day: 10, 0.5, 2m".to_owned())
}

fn parse_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    match text.len() {
        1..=32 if text.bytes().all(plain) => Ok(text.to_owned()),
        _ => Err("want up to 32 letters and digits".to_owned()),
    }
}

fn parse_count(text: &str) -> Result<usize, String> {
    let number = text.replace('_', "").parse();
    number
        .ok()
        .filter(|it| (1..=10_000_000).contains(it))
        .ok_or_else(|| "want a number from 1 to 10 million".to_owned())
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.replace('_', "").parse();
    number
        .ok()
        .filter(|it: &f64| it.is_finite() && *it >= 0.01)
        .ok_or_else(|| "want requests a second: 0.5, 1000".to_owned())
}

fn parse_record_bytes(text: &str) -> Result<usize, String> {
    let bytes = parse_size(text)?;
    match bytes {
        record::BYTES_MIN..=0x400_0000 => Ok(bytes),
        _ => Err(format!("want {} bytes to 64MiB: a record says who wrote it", record::BYTES_MIN)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(flag: Option<&str>, environment: &[(&str, &str)], expect: &str, auth: Option<&str>) {
        let url = flag.map(str::to_owned);
        let flags = TargetFlags { url, root: None, auth: None };
        let pairs =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let target = flags.target(&pairs.collect()).expect("a server");
        assert_eq!(target.to_string(), expect, "{environment:?}");
        assert_eq!(target.auth.as_deref(), auth, "{environment:?}");
    }

    #[test]
    fn what_is_blank_in_the_environment_names_no_server_and_no_key() {
        let usual = "http://127.0.0.1:8080/v1/stream";
        check(None, &[], usual, None);
        for blank in ["", " ", "\t \n"] {
            check(None, &[("WEIR_URL", blank), ("WEIR_AUTH", blank)], usual, None);
            check(Some("http://a"), &[("WEIR_URL", blank)], "http://a/v1/stream", None);
        }
        let given = [("WEIR_URL", " https://b/x "), ("WEIR_AUTH", " key ")];
        check(None, &given, "https://b/x", Some("Bearer key"));
        check(Some("http://a"), &given, "http://a/v1/stream", Some("Bearer key"));
    }

    #[test]
    fn what_is_no_url_in_the_environment_is_told_to_be_there() {
        let flags = TargetFlags { url: None, root: None, auth: None };
        let environment = [("WEIR_URL".to_owned(), "nonsense".to_owned())];
        let refused = flags.target(&environment.into_iter().collect()).expect_err("no URL");
        assert!(format!("{refused:#}").starts_with("WEIR_URL: \"nonsense\""), "{refused:#}");
        assert!(refused.is::<BadUrl>(), "a failure of usage");
    }
}

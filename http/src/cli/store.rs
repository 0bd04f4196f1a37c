//! Flags that say where objects are kept, shared by all commands that use the bucket.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::flags::{parse_duration, parse_size};

/// Which bucket.
#[derive(Clone, Debug, Args)]
pub struct StoreFlags {
    /// Where sealed segments are kept for good. Credentials of a cloud come from its own
    /// environment variables
    #[arg(long, value_enum, value_name = "KIND", default_value = "local")]
    pub object_store: StoreKind,

    /// Name of the bucket or container [env: AWS_BUCKET, DURABLE_STREAMS_R2_BUCKET,
    /// GOOGLE_BUCKET or AZURE_CONTAINER_NAME]
    #[arg(long, value_name = "NAME")]
    pub bucket: Option<String>,

    /// Keep all objects below this prefix, so that several servers can share a bucket
    #[arg(long, value_name = "PREFIX")]
    pub bucket_prefix: Option<String>,

    /// Directory of the local bucket; another disk makes it a backup [default: DIR/bucket]
    #[arg(long, value_name = "DIR")]
    pub bucket_dir: Option<PathBuf>,
}

/// How the bucket is used.
#[derive(Clone, Copy, Debug, Args)]
pub struct PublishFlags {
    /// How long objects are kept that are no longer needed, 1m to 365d. A server that was
    /// paused for longer must not write again
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
    pub gc_grace: Duration,

    /// Bytes that may wait for the bucket; appends get 429 until there are fewer
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    pub backlog_bytes: usize,
}

/// Kinds of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    /// A directory
    Local,
    /// Amazon S3, and what speaks like it at `AWS_ENDPOINT_URL`
    S3,
    /// Cloudflare R2
    R2,
    /// Google Cloud Storage
    Gcs,
    /// Azure Blob Storage
    Azure,
    /// The memory of the process, for trials: lost when it ends
    Memory,
}

impl StoreKind {
    /// Its name, as the flag has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::S3 => "s3",
            Self::R2 => "r2",
            Self::Gcs => "gcs",
            Self::Azure => "azure",
            Self::Memory => "memory",
        }
    }
}

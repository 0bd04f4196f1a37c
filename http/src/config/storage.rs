//! Where sealed segments are published to, and how much may wait for it.
//!
//! Knows which variables belong to which cloud; what they mean is known below. The credentials
//! among them are handed on and never shown.

use std::{path::Path, time::Duration};

use weir_io::{
    objects::Key,
    os::objects::{Bucket, Kind},
};

use super::{ConfigError, Environment};
use crate::cli::store::{PublishFlags, StoreFlags, StoreKind};

/// Bytes of a prefix, so that the keys below it fit.
const PREFIX_BYTES_MAX: usize = 256;
const GC_GRACE_MIN: Duration = Duration::from_secs(60);
const GC_GRACE_MAX: Duration = Duration::from_secs(365 * 86_400);

/// The bucket to use.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Which kind.
    pub kind: StoreKind,
    /// What to open.
    pub bucket: Bucket,
    /// How an operator knows it: kind, name and prefix.
    pub place: String,
}

impl StoreSettings {
    /// Puts flags and environment together; `data` is the directory of everything stored.
    ///
    /// # Errors
    /// [`ConfigError`] says which flag or variable to give, or not to.
    pub fn resolve(
        flags: &StoreFlags,
        data: &Path,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let store = flags.object_store;
        check(flags)?;
        let name = match cloud_of(store) {
            Some(cloud) => Some(bucket_name(flags, &cloud, environment)?),
            None => None,
        };
        let prefix = flags.bucket_prefix.as_deref().map(prefix).transpose()?;
        let directory = flags.bucket_dir.clone().unwrap_or_else(|| data.join("bucket"));
        let mut place = match (store, &name) {
            (StoreKind::Local, _) => format!("local: {}", directory.display()),
            (StoreKind::Memory, _) => "memory".to_owned(),
            (_, name) => format!("{}: {}", store.as_str(), name.as_deref().unwrap_or_default()),
        };
        if let Some(prefix) = &prefix {
            place = format!("{place}, below {prefix}/");
        }
        let variables = cloud_of(store).map(|cloud| environment.below(cloud.variables));
        let kind = match store {
            StoreKind::Local => Kind::Local { directory },
            StoreKind::S3 => Kind::S3,
            StoreKind::R2 => Kind::R2,
            StoreKind::Gcs => Kind::Gcs,
            StoreKind::Azure => Kind::Azure,
            StoreKind::Memory => Kind::Memory,
        };
        let bucket = Bucket { kind, name, prefix, variables: variables.unwrap_or_default() };
        Ok(Self { kind: store, bucket, place })
    }

    /// What an operator must know of a store that protects from less than it seems to.
    #[must_use]
    pub const fn warning(&self) -> Option<&'static str> {
        match self.kind {
            StoreKind::Local => Some("on the same disk it is no backup"),
            StoreKind::Memory => Some("lost when the server ends"),
            StoreKind::S3 | StoreKind::R2 | StoreKind::Gcs | StoreKind::Azure => None,
        }
    }
}

/// How much may wait to be published, and how long what is no longer needed is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publishing {
    /// How long an object outlives the manifest that last named it.
    pub gc_grace: Duration,
    /// Bytes of unpublished segments at which appends are refused.
    pub backlog_bytes_max: u64,
}

impl Publishing {
    /// Checks what the flags say.
    ///
    /// # Errors
    /// A value out of its bounds.
    pub fn resolve(flags: PublishFlags, memtable_bytes_max: usize) -> Result<Self, ConfigError> {
        if !(GC_GRACE_MIN..=GC_GRACE_MAX).contains(&flags.gc_grace) {
            return Err(ConfigError::Conflict("--gc-grace must be between 1 minute and 365 days"));
        }
        if flags.backlog_bytes < memtable_bytes_max {
            // One seal would be more than may wait.
            return Err(ConfigError::Conflict("--backlog-bytes must be at least --memtable-bytes"));
        }
        let backlog_bytes_max = u64::try_from(flags.backlog_bytes).expect("usize fits u64");
        Ok(Self { gc_grace: flags.gc_grace, backlog_bytes_max })
    }
}

/// Flags that mean nothing to a kind are a misunderstanding.
fn check(flags: &StoreFlags) -> Result<(), ConfigError> {
    let store = flags.object_store;
    if flags.bucket.is_some() && cloud_of(store).is_none() {
        return Err(ConfigError::Conflict(
            "--bucket names a bucket in a cloud: say which one with --object-store",
        ));
    }
    if flags.bucket_dir.is_some() && store != StoreKind::Local {
        return Err(ConfigError::Conflict("--bucket-dir is for --object-store local"));
    }
    Ok(())
}

/// The variables of a cloud.
struct Cloud {
    /// How the names of those begin that it is told.
    variables: &'static [&'static str],
    /// Those that may name the bucket, the first that is set.
    names: &'static [&'static str],
}

const fn cloud_of(store: StoreKind) -> Option<Cloud> {
    let (variables, names): (&[&str], &[&str]) = match store {
        StoreKind::Local | StoreKind::Memory => return None,
        StoreKind::S3 => (&["AWS_"], &["AWS_BUCKET", "AWS_BUCKET_NAME"]),
        StoreKind::R2 => (
            &["DURABLE_STREAMS_R2_", "CLOUDFLARE_ACCOUNT_ID", "AWS_"],
            &["DURABLE_STREAMS_R2_BUCKET", "AWS_BUCKET"],
        ),
        StoreKind::Gcs => {
            (&["GOOGLE_", "SERVICE_ACCOUNT"], &["GOOGLE_BUCKET", "GOOGLE_BUCKET_NAME"])
        }
        StoreKind::Azure => (&["AZURE_", "IDENTITY_ENDPOINT"], &["AZURE_CONTAINER_NAME"]),
    };
    Some(Cloud { variables, names })
}

fn bucket_name(
    flags: &StoreFlags,
    cloud: &Cloud,
    environment: &Environment,
) -> Result<String, ConfigError> {
    let named = || cloud.names.iter().find_map(|name| environment.get(name));
    let name = flags.bucket.as_deref().or_else(named).filter(|name| !name.is_empty());
    name.map(str::to_owned)
        .ok_or(ConfigError::Bucket { store: flags.object_store.as_str(), variable: cloud.names[0] })
}

fn prefix(text: &str) -> Result<Key, ConfigError> {
    let invalid = || ConfigError::Invalid { what: "--bucket-prefix", value: text.to_owned() };
    let bare = text.trim_matches('/');
    if bare.len() > PREFIX_BYTES_MAX {
        return Err(invalid());
    }
    Key::new(bare).map_err(|_| invalid())
}

#[cfg(test)]
mod tests;

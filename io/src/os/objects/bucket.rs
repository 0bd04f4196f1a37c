//! Which bucket, and how its cloud is told who asks.
//!
//! The variables are those that each cloud's own tools read (`AWS_*`, `GOOGLE_*`,
//! `AZURE_*`), and for R2 also `DURABLE_STREAMS_R2_*`. They are handed in, not read here, and
//! never shown.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr};

use object_store::{
    ClientConfigKey, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder, GoogleConfigKey},
};

use super::{connector::Connector, refusal::reason};
use crate::objects::{Key, ObjectError};

/// Where objects are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In a directory. On the disk of the data it is no backup.
    Local {
        /// The directory, made if missing.
        directory: PathBuf,
    },
    /// In the memory of the process, for trials.
    Memory,
    /// Amazon S3 and what speaks like it.
    S3,
    /// Cloudflare R2.
    R2,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

/// A bucket to open.
#[derive(Clone)]
pub struct Bucket {
    /// Where.
    pub kind: Kind,
    /// Name of the bucket or container. `None`: a variable names it.
    pub name: Option<String>,
    /// Every key lies below this one.
    pub prefix: Option<Key>,
    /// Environment variables by name. Others than those of the kind are ignored.
    pub variables: BTreeMap<String, String>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bucket { kind, name, prefix, variables } = self;
        f.debug_struct("Bucket")
            .field("kind", kind)
            .field("name", name)
            .field("prefix", prefix)
            // Some of them are secrets, and some secrets have surprising names.
            .field("variables", &format_args!("{} hidden", variables.len()))
            .finish()
    }
}

/// Repeating is `retry`'s, which must know of every attempt.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

impl Bucket {
    pub(super) fn s3(&self, connector: Connector) -> Result<AmazonS3, ObjectError> {
        let mut builder = AmazonS3Builder::new();
        for (key, value) in self.settings::<AmazonS3ConfigKey>("AWS_") {
            if key != AmazonS3ConfigKey::Client(ClientConfigKey::ProxyUrl) {
                builder = builder.with_config(key, value);
            }
        }
        if let Some(name) = &self.name {
            builder = builder.with_bucket_name(name);
        }
        let builder = builder
            // One deletion is a plain DELETE, which every service has.
            .with_disable_bulk_delete(true)
            .with_retry(no_retries())
            .with_http_connector(connector);
        built(builder.build())
    }

    /// R2 speaks like S3 at an address of the account's own. Credentials are the peer's
    /// variables or, where they are missing, those of S3.
    pub(super) fn r2(&self, connector: Connector) -> Result<AmazonS3, ObjectError> {
        let own = |name: &str| self.variable(&format!("DURABLE_STREAMS_R2_{name}"));
        let aws = |name: &str| self.variable(&format!("AWS_{name}"));
        let bucket = self.name.as_deref().or(own("BUCKET")).or(aws("BUCKET"));
        let endpoint = own("ENDPOINT").or(aws("ENDPOINT_URL_S3")).or(aws("ENDPOINT_URL"));
        let account = own("ACCOUNT_ID").or(self.variable("CLOUDFLARE_ACCOUNT_ID"));
        let endpoint = match (endpoint, account) {
            (Some(endpoint), _) => endpoint.to_owned(),
            (None, Some(account)) => format!("https://{account}.r2.cloudflarestorage.com"),
            (None, None) => return Err(missing("DURABLE_STREAMS_R2_ACCOUNT_ID")),
        };
        let need = |value: Option<&str>, name: &str| {
            value.map(str::to_owned).ok_or_else(|| missing(&format!("DURABLE_STREAMS_R2_{name}")))
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(need(bucket, "BUCKET")?)
            .with_endpoint(endpoint)
            .with_region(own("REGION").unwrap_or("auto"))
            .with_access_key_id(need(
                own("ACCESS_KEY_ID").or(aws("ACCESS_KEY_ID")),
                "ACCESS_KEY_ID",
            )?)
            .with_secret_access_key(need(
                own("SECRET_ACCESS_KEY").or(aws("SECRET_ACCESS_KEY")),
                "SECRET_ACCESS_KEY",
            )?)
            .with_allow_http(aws("ALLOW_HTTP").is_some_and(|it| it == "true"))
            .with_disable_bulk_delete(true)
            .with_retry(no_retries())
            .with_http_connector(connector);
        if let Some(token) = aws("SESSION_TOKEN").filter(|_| own("ACCESS_KEY_ID").is_none()) {
            builder = builder.with_token(token);
        }
        built(builder.build())
    }

    pub(super) fn gcs(&self, connector: Connector) -> Result<GoogleCloudStorage, ObjectError> {
        let mut builder = GoogleCloudStorageBuilder::new();
        if let Some(path) = self.variable("SERVICE_ACCOUNT") {
            builder = builder.with_service_account_path(path);
        }
        for (key, value) in self.settings::<GoogleConfigKey>("GOOGLE_") {
            builder = builder.with_config(key, value);
        }
        if let Some(name) = &self.name {
            builder = builder.with_bucket_name(name);
        }
        built(builder.with_retry(no_retries()).with_http_connector(connector).build())
    }

    pub(super) fn azure(&self, connector: Connector) -> Result<MicrosoftAzure, ObjectError> {
        let mut builder = MicrosoftAzureBuilder::new();
        for (key, value) in self.settings::<AzureConfigKey>("AZURE_") {
            builder = builder.with_config(key, value);
        }
        if let Some(endpoint) = self.variable("IDENTITY_ENDPOINT") {
            builder = builder.with_msi_endpoint(endpoint);
        }
        if let Some(name) = &self.name {
            builder = builder.with_container_name(name);
        }
        built(builder.with_retry(no_retries()).with_http_connector(connector).build())
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The settings of a cloud among the variables. Names it does not know are for other tools.
    fn settings<K: FromStr>(&self, prefix: &str) -> impl Iterator<Item = (K, &str)> {
        let known = self.variables.iter().filter(move |(name, _)| name.starts_with(prefix));
        known.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, &**value)))
    }
}

fn missing(variable: &str) -> ObjectError {
    ObjectError::Refused(format!("{variable} is not set"))
}

fn built<S>(result: object_store::Result<S>) -> Result<S, ObjectError> {
    result.map_err(|error| ObjectError::Refused(reason(&error)))
}

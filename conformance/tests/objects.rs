//! The S3 client against a mock of S3 that others wrote.

use std::sync::Arc;

use conformance::{http, moto::Moto};
use weir_io::{
    laws,
    objects::{Key, ObjectError, Objects, probe},
    os::{
        self,
        objects::{Bucket, Kind},
    },
    retry::{Patience, Retrying},
};

const BUCKET: &str = "weir-test";

fn bucket(moto: &Moto, kind: Kind, name: &str, prefix: Option<Key>) -> Bucket {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_ENDPOINT_URL", moto.url()),
        ("DURABLE_STREAMS_R2_ACCESS_KEY_ID", "test"),
        ("DURABLE_STREAMS_R2_SECRET_ACCESS_KEY", "test"),
        ("DURABLE_STREAMS_R2_ENDPOINT", moto.url()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Bucket { kind, name: Some(name.to_owned()), prefix, variables: variables.into() }
}

/// moto with an empty bucket.
fn moto() -> Moto {
    let moto = Moto::start().expect("moto starts");
    let (_, port) = moto.url().rsplit_once(':').expect("a URL with a port");
    let mut client = http::Client::new(port.parse().expect("a port"));
    let made = client.put(&format!("/{BUCKET}"), &[], b"").expect("moto answers");
    assert_eq!(made.status, 200, "moto makes a bucket");
    moto
}

#[tokio::test]
async fn s3_keeps_the_laws_of_buckets_and_fences() {
    let moto = moto();
    let world = os::world().expect("a runtime is around");
    let prefix = Key::new("some/prefix").expect("a key");
    for (kind, prefix) in [(Kind::S3, None), (Kind::R2, None), (Kind::S3, Some(prefix))] {
        let bucket = bucket(&moto, kind, BUCKET, prefix);
        let client: Arc<dyn Objects> =
            os::objects::open(&bucket, &world).await.expect("it is configured");
        laws::objects::all(&client).await;
        let client = Retrying::new(client, Arc::clone(&world.entropy), Patience::default());
        probe(&client, &*world.entropy).await.expect("moto fences");
    }
}

#[tokio::test]
async fn a_missing_bucket_is_refused_and_never_reads_as_empty() {
    let moto = moto();
    let world = os::world().expect("a runtime is around");
    let bucket = bucket(&moto, Kind::S3, "not-there", None);
    let client = os::objects::open(&bucket, &world).await.expect("it is configured");
    let key = Key::new("a").expect("a key");
    let ends = [
        client.get(&key, 10).await.map(drop),
        client.get_range(&key, 0..1).await.map(drop),
        client.head(&key).await.map(drop),
        client.list("", None, 10).await.map(drop),
        client.create(&key, "some".into()).await.map(drop),
        client.delete(&key).await,
    ];
    for end in ends {
        assert!(matches!(end, Err(ObjectError::Refused(_))), "{end:?}");
    }
}

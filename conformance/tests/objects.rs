//! The S3 client against a mock of S3 that others wrote.

use std::sync::Arc;

use conformance::{http, moto::Moto, server::Scratch};
use weir_io::{
    disk::Create,
    laws,
    objects::{Created, Delivery, Key, ObjectError, Objects, probe},
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
async fn a_large_file_goes_up_in_parts() {
    let moto = moto();
    let world = os::world().expect("a runtime is around");
    let scratch = Scratch::new().expect("a directory");
    let path = scratch.path().join("large");
    let size: usize = (128 << 20) + 1;
    let bytes: Vec<u8> = (0..=250).cycle().take(size).collect();
    let file = world.disk.create(&path, Create::New).expect("creates");
    file.write_all_at(&bytes, 0).expect("writes");
    let size = u64::try_from(size).expect("usize fits u64");
    let key = Key::new("rows/large").expect("a key");
    for (kind, prefix) in [(Kind::S3, None), (Kind::R2, Some(Key::new("p").expect("a key")))] {
        let bucket = bucket(&moto, kind, BUCKET, prefix);
        let client = os::objects::open(&bucket, &world).await.expect("it is configured");
        let sent = client.create_from_file(&key, &path, size).expect("it is large").await;
        // A look for an object that is missing is two, five parts have a beginning and an end.
        let delivery = Delivery { created: Created::New, requests: 9, bytes: size };
        assert_eq!(sent, Ok(delivery));
        let meta = client.head(&key).await.expect("moto answers").expect("it is there");
        assert_eq!(meta.size, size);
        let last = size - 1;
        for range in [0..10, (32 << 20) - 5..(32 << 20) + 5, last - 9..size] {
            let at = usize::try_from(range.start).expect("small");
            let found = client.get_range(&key, range).await.expect("moto answers");
            assert_eq!(found, bytes[at..at + found.len()]);
        }
        let again = client.create_from_file(&key, &path, size).expect("it is large").await;
        assert_eq!(again.expect("moto answers").created, Created::AlreadyThere);
        client.delete(&key).await.expect("moto answers");
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

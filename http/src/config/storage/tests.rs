//! Which bucket flags and variables come to.

use std::collections::BTreeMap;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    store: StoreFlags,
}

fn resolve(flags: &str, environment: &[(&str, &str)]) -> Result<StoreSettings, ConfigError> {
    let args = ["x"].into_iter().chain(flags.split_whitespace());
    let line = Line::try_parse_from(args).expect("flags parse");
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let environment = environment.iter().map(owned).collect();
    StoreSettings::resolve(&line.store, Path::new("/data"), &environment)
}

#[test]
fn a_bucket_is_a_directory_beside_the_store_unless_something_else_is_asked_for() {
    for (flags, place, directory) in [
        ("", "local: /data/bucket", "/data/bucket"),
        ("--object-store local", "local: /data/bucket", "/data/bucket"),
        ("--bucket-dir /other", "local: /other", "/other"),
        ("--bucket-prefix a/b/", "local: /data/bucket, below a/b/", "/data/bucket"),
    ] {
        let settings = resolve(flags, &[("AWS_BUCKET", "x")]).expect(flags);
        assert_eq!(settings.place, place);
        assert_eq!(settings.bucket.kind, Kind::Local { directory: directory.into() }, "{flags}");
        assert_eq!((settings.bucket.name, settings.bucket.variables), (None, BTreeMap::new()));
    }
    let memory = resolve("--object-store memory", &[]).expect("valid");
    assert_eq!((memory.place.as_str(), memory.bucket.kind.clone()), ("memory", Kind::Memory));
    assert!(memory.warning().is_some_and(|warning| warning.contains("lost")));
}

#[test]
fn a_flag_names_the_bucket_or_a_variable_of_the_cloud_does() {
    let everywhere = [
        ("AWS_BUCKET", "of-aws"),
        ("DURABLE_STREAMS_R2_BUCKET", "of-r2"),
        ("GOOGLE_BUCKET", "of-google"),
        ("AZURE_CONTAINER_NAME", "of-azure"),
    ];
    for (store, place, variable) in [
        ("s3", "s3: of-aws", "AWS_BUCKET"),
        ("r2", "r2: of-r2", "DURABLE_STREAMS_R2_BUCKET"),
        ("gcs", "gcs: of-google", "GOOGLE_BUCKET"),
        ("azure", "azure: of-azure", "AZURE_CONTAINER_NAME"),
    ] {
        let flags = format!("--object-store {store}");
        let settings = resolve(&flags, &everywhere).expect("valid");
        assert_eq!((settings.place.as_str(), settings.warning()), (place, None));
        let named = resolve(&format!("{flags} --bucket mine"), &everywhere).expect("valid");
        assert_eq!(named.bucket.name.as_deref(), Some("mine"));
        for environment in [&[][..], &[(variable, "")]] {
            let error = resolve(&flags, environment).expect_err("no bucket");
            assert_eq!(error, ConfigError::Bucket { store, variable });
        }
    }
    let other = [("AWS_BUCKET", "of-aws")];
    assert_eq!(resolve("--object-store r2", &other).expect("valid").place, "r2: of-aws");
}

#[test]
fn a_cloud_is_told_its_own_variables_and_shows_none_of_them() {
    let environment = [
        ("AWS_BUCKET", "b"),
        ("AWS_SECRET_ACCESS_KEY", "hush"),
        ("DURABLE_STREAMS_R2_SECRET_ACCESS_KEY", "hush"),
        ("GOOGLE_SERVICE_ACCOUNT", "hush"),
        ("API_KEY", "hush"),
    ];
    let told = |store: &str| {
        let flags = format!("--object-store {store} --bucket b");
        let settings = resolve(&flags, &environment).expect("valid");
        assert!(!format!("{settings:?}").contains("hush"));
        settings.bucket.variables.into_keys().collect::<Vec<_>>()
    };
    let aws = ["AWS_BUCKET", "AWS_SECRET_ACCESS_KEY"];
    assert_eq!(told("s3"), aws);
    assert_eq!(told("r2"), [&aws[..], &["DURABLE_STREAMS_R2_SECRET_ACCESS_KEY"]].concat());
    assert_eq!(told("gcs"), ["GOOGLE_SERVICE_ACCOUNT"]);
    assert_eq!(told("azure"), Vec::<String>::new());
}

#[test]
fn flags_that_mean_nothing_together_are_refused() {
    let long = format!("--bucket-prefix {}", "a/".repeat(150));
    for flags in [
        "--bucket b",
        "--object-store memory --bucket b",
        "--object-store s3 --bucket b --bucket-dir /x",
        "--object-store memory --bucket-dir /x",
        "--bucket-prefix a//b",
        "--bucket-prefix /",
        "--bucket-prefix .hidden",
        &long,
    ] {
        assert!(resolve(flags, &[]).is_err(), "{flags}");
    }
}

//! What flags and the environment come to.

use clap::Parser as _;

use super::*;
use crate::cli::flags::Cli;

fn resolve(flags: &str, environment: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let args = ["weir", "serve"].into_iter().chain(flags.split_whitespace());
    let flags = Cli::try_parse_from(args).expect("flags parse").into_serve().expect("a server");
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Settings::resolve(flags, &environment.iter().map(owned).collect())
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_default() {
    let env = [("PORT", "9001"), ("DS_HOST", "127.0.0.2"), ("DS_ROOT", "/tmp/x")];
    let plain = resolve("", &[]).expect("defaults run");
    assert_eq!((plain.port, plain.data.to_str()), (8080, Some("./weir-data")));
    let from_env = resolve("", &env).expect("valid");
    assert_eq!((from_env.port, from_env.host.to_string()), (9001, "127.0.0.2".into()));
    assert_eq!(from_env.data.to_str(), Some("/tmp/x"));
    let from_flags = resolve("--port 9002 --data /tmp/y --host ::1", &env).expect("valid");
    assert_eq!((from_flags.port, from_flags.host.to_string()), (9002, "::1".into()));
    assert_eq!(from_flags.data.to_str(), Some("/tmp/y"));
    assert!(resolve("", &[("PORT", "x")]).is_err());
}

#[test]
fn who_may_ask_is_said_where_others_can_reach_the_server() {
    let key = [("API_KEY", "0123456789")];
    assert!(matches!(resolve("", &[]).expect("loopback").http.auth, Auth::Open));
    assert!(resolve("--host 0.0.0.0 --no-auth", &[]).is_ok());
    assert!(resolve("--host 0.0.0.0 --auth-strategy api-key", &key).is_ok());
    let everywhere = "0.0.0.0".parse().expect("an address");
    for (flags, env, error) in [
        ("--host 0.0.0.0", &[][..], ConfigError::AuthMissing(everywhere)),
        ("--no-auth --auth-strategy api-key", &key[..], ConfigError::AuthTwice),
        ("--auth-strategy=api-key", &[], ConfigError::ApiKey),
        ("--auth-strategy api-key", &[("API_KEY", "123456789")], ConfigError::ApiKey),
    ] {
        assert_eq!(resolve(flags, env).expect_err(flags), error, "{flags}");
    }
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    for flags in [
        "--long-poll-timeout 61s",
        "--sse-keepalive 0s",
        "--webhook-timeout 0s",
        "--webhook-timeout 3m",
        "--body-max 0",
        "--body-max 65MiB",
        "--body-max 20MiB --memtable-bytes 10MiB",
        "--gc-grace 59s",
        "--gc-grace 366d",
        "--backlog-bytes 63MiB",
        "--public-url ftp://x",
        "--public-url nonsense",
        "--host example.com",
    ] {
        assert!(resolve(flags, &[]).is_err(), "{flags}");
    }
}

#[test]
fn trusted_proxies_are_networks() {
    let settings = resolve("--trusted-proxy 10.0.0.0/8 --trusted-proxy ::1", &[]);
    let proxies = settings.expect("valid").http.trusted_proxies;
    assert_eq!(proxies, ["10.0.0.0/8", "::1"].map(|it| it.parse().expect("a network")));
    let many = "--trusted-proxy ::1 ".repeat(super::proxies::PROXIES_MAX + 1);
    assert!(resolve(&many, &[]).is_err());
}

#[test]
fn only_the_whole_key_is_the_key() {
    let key = ApiKey::new("correct horse".into()).expect("long enough");
    for (offered, expect) in [
        ("correct horse", true),
        ("correct hors", false),
        ("correct horse\0", false),
        ("Correct horse", false),
        ("", false),
    ] {
        assert_eq!(key.is(offered.as_bytes()), expect, "{offered}");
    }
    assert!(!format!("{key:?}").contains("horse"));
}

#[test]
fn an_open_loopback_server_answers_to_its_own_names_only() {
    let hosts = resolve("--public-url https://streams.example/x", &[]).expect("valid").http.hosts;
    for (host, expect) in [
        ("localhost:8080", true),
        ("LOCALHOST", true),
        ("127.0.0.1:1", true),
        ("127.9.9.9", true),
        ("[::1]:8080", true),
        ("streams.example", true),
        ("evil.example", false),
        ("127.0.0.1.evil.example", false),
        ("localhost.evil.example:8080", false),
        ("192.168.0.1", false),
    ] {
        assert_eq!(hosts.allow(&host.parse().expect("an authority")), expect, "{host}");
    }
}

#[test]
fn a_store_is_restored_for_the_time_in_which_it_will_erase() {
    let hour = std::time::Duration::from_secs(3600);
    let settings = resolve("--bootstrap --erase-within 1h", &[]).expect("valid");
    let restore = settings.bootstrap.expect("it was asked for");
    assert_eq!((restore.erase_within, settings.erase_within), (hour, hour));
    assert!(resolve("--erase-within 1h", &[]).expect("valid").bootstrap.is_none());
}

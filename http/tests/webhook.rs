//! Keys of webhooks as the operator meets them: files, flags and `weir keys rotate`.
#![expect(clippy::disallowed_methods, reason = "tests wait for real processes and look at files")]

mod support;

use std::{
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use support::fresh_dir;

/// Made by `openssl genpkey -algorithm ed25519` for these tests.
const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIAFbktYPC4ykUWJxdSZbsQvTGIfc4FbnzEzkoHnCiSoo\n\
    -----END PRIVATE KEY-----\n";
const PEM_X: &str = "Q0fCUr_xCcVZ1m5F-YJXeG3P0jT8SB7y6wj1jiG9oms";

fn weir(args: &[&str], data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(args).arg("--data").arg(data);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["PORT", "DS_HOST", "DS_ROOT", "API_KEY", "RUST_LOG"] {
        command.env_remove(name);
    }
    command
}

/// A server that has said where it listens; killed when dropped.
struct Running(Child);

impl Running {
    fn start(args: &[&str], data: &Path) -> Self {
        let args = [&["serve", "--port", "0"], args].concat();
        let mut child = weir(&args, data).spawn().expect("starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("text");
        let running = Self(child);
        assert!(line.contains("listens on"), "{line}");
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn run(args: &[&str], data: &Path) -> (bool, String) {
    let Output { status, stdout, stderr } = weir(args, data).output().expect("runs");
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

fn keys(data: &Path) -> PathBuf {
    data.join("store").join("keys")
}

fn index(data: &Path) -> serde_json::Value {
    let text = std::fs::read(keys(data).join("keys.json")).expect("there");
    serde_json::from_slice(&text).expect("JSON")
}

fn seeds(data: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(keys(data)).expect("there");
    let names = entries.map(|it| it.expect("readable").file_name().to_string_lossy().into_owned());
    names.filter(|it| it.starts_with("signing-")).collect()
}

#[test]
fn keys_are_their_owners_alone_and_stay_over_a_restart() {
    let dir = fresh_dir();
    drop(Running::start(&[], &dir));
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&keys(&dir)), 0o700);
    let kid = index(&dir)["active"]["kid"].as_str().expect("text").to_owned();
    let seed = format!("signing-{kid}.key");
    for name in ["keys.json", "token.key", "lock", &seed] {
        assert_eq!(mode(&keys(&dir).join(name)), 0o600, "{name}");
    }
    let lax = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(keys(&dir), lax).expect("it is ours");
    drop(Running::start(&[], &dir));
    assert_eq!(mode(&keys(&dir)), 0o700, "as after a careless restore");
    assert_eq!(index(&dir)["active"]["kid"], *kid);
    assert_eq!(seeds(&dir), [seed]);
}

#[test]
fn a_rotation_needs_a_store_and_works_beside_its_server() {
    let dir = fresh_dir();
    let (done, says) = run(&["keys", "rotate"], &dir);
    assert!(!done && says.contains("no store in"), "{says}");
    let _running = Running::start(&[], &dir);
    let old = index(&dir)["active"]["kid"].clone();
    let (done, says) = run(&["keys", "rotate"], &dir);
    let new = index(&dir)["active"]["kid"].as_str().expect("text").to_owned();
    assert!(done, "{says}");
    assert!(says.contains(&format!("signing with {new}\n")), "{says}");
    assert!(says.contains(&format!("{} is published", old.as_str().expect("text"))), "{says}");
    assert_eq!(index(&dir)["retired"][0]["kid"], old);
    assert_eq!(seeds(&dir), [format!("signing-{new}.key")]);
}

#[test]
fn a_damaged_key_stops_the_start_and_is_named() {
    let dir = fresh_dir();
    drop(Running::start(&[], &dir));
    let path = keys(&dir).join("token.key");
    std::fs::write(&path, "damaged\n").expect("writable");
    let (done, says) = run(&["serve", "--port", "0"], &dir);
    assert!(!done && says.contains(&*path.display().to_string()), "{says}");
    assert!(!says.contains("damaged"), "what is in it is nobody's business: {says}");
}

#[test]
fn the_operators_key_is_taken_from_its_file_only() {
    let dir = fresh_dir();
    let path = dir.join("key.pem");
    let flag = path.to_str().expect("UTF-8");
    let serve = ["serve", "--port", "0", "--signing-key", flag];
    let (done, says) = run(&serve, &dir);
    assert!(!done && says.contains(flag), "missing: {says}");
    std::fs::write(&path, PEM.replace("MC4C", "MC4D")).expect("writable");
    let (done, says) = run(&serve, &dir);
    assert!(!done && says.contains(flag) && !says.contains("MC4D"), "{says}");
    std::fs::write(&path, PEM).expect("writable");
    drop(Running::start(&["--signing-key", flag], &dir));
    assert_eq!(index(&dir)["active"]["x"], PEM_X);
    assert_eq!(seeds(&dir), [""; 0], "it is not copied");
    let (done, says) = run(&["keys", "rotate"], &dir);
    assert!(!done && says.contains("--signing-key"), "{says}");
}

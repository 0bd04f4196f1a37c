//! Keys over restarts, rotations, crashes and damage, on the simulated drive.

use std::time::Duration;

use weir_io::{disk::Create, memory::Machine};

use super::*;

const DIR: &str = "/store/keys";
/// Made by `openssl genpkey -algorithm ed25519`, and its public key by `openssl pkey -pubout`.
const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIAFbktYPC4ykUWJxdSZbsQvTGIfc4FbnzEzkoHnCiSoo\n\
    -----END PRIVATE KEY-----\n";
const PEM_X: &str = "Q0fCUr_xCcVZ1m5F-YJXeG3P0jT8SB7y6wj1jiG9oms";
const PEM_KID: &str = "ds_xY_tUAsL37pkwgTviWU1PiuWyGMpNHN3j4aGLzxF1yk";

async fn open(world: &World) -> Result<(Keys, [u8; 32]), KeysError> {
    Keys::open(world, PathBuf::from(DIR), None).await
}

async fn open_with_flag(world: &World) -> Keys {
    let path = Path::new("/operator.pem");
    let file = world.disk.create(path, Create::Truncate).expect("a healthy disk");
    file.write_all_at(PEM.as_bytes(), 0).expect("a healthy disk");
    let opened = Keys::open(world, PathBuf::from(DIR), Some(path.to_owned())).await;
    opened.expect("the operator's key is one").0
}

fn kids(keys: &Keys) -> Vec<String> {
    let set: serde_json::Value = serde_json::from_str(&keys.jwks_json()).expect("JSON");
    let keys = set["keys"].as_array().expect("a set");
    keys.iter().map(|it| it["kid"].as_str().expect("each has one").to_owned()).collect()
}

fn files(world: &World) -> Vec<String> {
    let paths = world.disk.list(Path::new(DIR)).expect("there");
    let name = |it: &PathBuf| it.file_name().expect("a file").to_string_lossy().into_owned();
    paths.iter().map(name).collect()
}

#[test]
fn a_jwk_is_named_by_its_thumbprint() {
    // RFC 8037, appendix A.3.
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let key = PublicKey::new(&BASE64_URL_SAFE_NO_PAD.decode(x).expect("base64url"));
    assert_eq!(key.kid, "ds_kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    let jwk = serde_json::json!({
        "kty": "OKP", "crv": "Ed25519", "kid": key.kid, "use": "sig", "alg": "EdDSA", "x": x,
    });
    assert_eq!(key.jwk(), jwk);
}

/// Version 1 as `docs/FORMATS.md` has it: what a later version must still read.
#[tokio::test(start_paused = true)]
async fn files_of_version_1_are_read() {
    let machine = Machine::new(1);
    let world = machine.boot(Duration::ZERO);
    let own = "ds_1IG2tMH7J2wbJZnOf8LJzQitKf7LMvoAElsuDMVM54Y";
    let retired = json!({ "kid": PEM_KID, "x": PEM_X, "at": 1_767_225_600 });
    let x = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg";
    let active = json!({ "kid": own, "x": x, "from": "directory" });
    let index = json!({ "version": 1, "active": active, "retired": [retired] }).to_string();
    world.disk.create_dir_all(Path::new(DIR)).expect("a healthy disk");
    for (name, text) in [
        ("keys.json".to_owned(), index),
        ("token.key".to_owned(), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n".to_owned()),
        (format!("signing-{own}.key"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n".to_owned()),
    ] {
        let path = Path::new(DIR).join(name);
        let file = world.disk.create(&path, Create::New).expect("a healthy disk");
        file.write_all_at(text.as_bytes(), 0).expect("a healthy disk");
    }
    let (keys, token) = open(&world).await.expect("version 1");
    assert_eq!(kids(&keys), [own, PEM_KID]);
    assert_eq!(token, std::array::from_fn(|at| u8::try_from(at).expect("32 bytes")));
}

#[tokio::test(start_paused = true)]
async fn keys_are_made_once_and_survive_a_restart() {
    let machine = Machine::new(1);
    let world = machine.boot(Duration::ZERO);
    let (first, token) = open(&world).await.expect("an empty drive");
    let kid = first.active_kid();
    assert!(kid.starts_with("ds_"), "{kid}");
    assert_eq!(kids(&first), [kid.as_str()]);
    assert_eq!(files(&world), ["keys.json", "lock", &format!("signing-{kid}.key"), "token.key"]);
    machine.drive().kill();
    machine.drive().power_cycle();
    let (again, token_again) = open(&machine.boot(Duration::ZERO)).await.expect("it was synced");
    assert_eq!((again.active_kid(), token_again), (kid, token));
}

#[tokio::test(start_paused = true)]
async fn a_rotated_key_is_published_for_a_while_and_signs_no_more() {
    let machine = Machine::new(1);
    let world = machine.boot(Duration::ZERO);
    let (keys, _) = open(&world).await.expect("an empty drive");
    let old = keys.active_kid();
    let rotated = rotate(&world, PathBuf::from(DIR)).await.expect("nobody else does");
    assert_eq!(rotated.retired.as_deref(), Some(old.as_str()));
    assert_eq!(keys.active_kid(), old, "a running server has not looked yet");
    keys.reread().expect("readable");
    let new = keys.active_kid();
    assert_eq!(new, rotated.active);
    assert_eq!(kids(&keys), [new.as_str(), &old]);
    assert!(!files(&world).contains(&format!("signing-{old}.key")), "nothing needs it any more");
    tokio::time::advance(Duration::from_secs(598)).await;
    let (restarted, _) = open(&world).await.expect("readable");
    assert_eq!(kids(&restarted), [new.as_str(), &old]);
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(kids(&restarted), [new.as_str()]);
    assert_eq!(kids(&keys), [new.as_str()]);
}

#[tokio::test(start_paused = true)]
async fn the_operators_key_wins_and_the_one_before_is_retired() {
    let machine = Machine::new(1);
    let world = machine.boot(Duration::ZERO);
    let own = open(&world).await.expect("an empty drive").0.active_kid();
    let keys = open_with_flag(&world).await;
    let external = keys.active_kid();
    assert_eq!(keys.held().active.public().x, PEM_X);
    assert_eq!(kids(&keys), [external.as_str(), &own]);
    let refused = rotate(&world, PathBuf::from(DIR)).await.expect_err("not ours to rotate");
    assert!(matches!(refused, KeysError::FromFlag), "{refused}");
    let (without, _) = open(&world).await.expect("readable");
    let fresh = without.active_kid();
    assert!(fresh != own && fresh != external);
    assert_eq!(kids(&without), [fresh.as_str(), &own, &external]);
    assert_eq!(kids(&open_with_flag(&world).await)[0], external, "back again, and listed once");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_is_named_and_nothing_is_made_in_its_place() {
    let machine = Machine::new(1);
    let world = machine.boot(Duration::ZERO);
    let kid = open(&world).await.expect("an empty drive").0.active_kid();
    for name in ["keys.json".to_owned(), "token.key".to_owned(), format!("signing-{kid}.key")] {
        let path = Path::new(DIR).join(&name);
        let file = world.disk.open(&path).expect("there");
        let mut content = vec![0; usize::try_from(file.len().expect("open")).expect("short")];
        file.read_exact_at(&mut content, 0).expect("readable");
        let mut turned = content.clone();
        turned.reverse();
        for damage in [&b""[..], &b"x\n"[..], &content[..content.len() / 2], &turned] {
            let file = world.disk.create(&path, Create::Truncate).expect("a healthy disk");
            file.write_all_at(damage, 0).expect("a healthy disk");
            let error = open(&world).await.err().expect("damaged");
            assert!(matches!(error, KeysError::Corrupt { .. }), "{error}");
            assert!(error.to_string().contains(&name), "{error}");
        }
        let file = world.disk.create(&path, Create::Truncate).expect("a healthy disk");
        file.write_all_at(&content, 0).expect("a healthy disk");
    }
    assert_eq!(open(&world).await.expect("mended").0.active_kid(), kid);
    world.disk.remove(&Path::new(DIR).join(format!("signing-{kid}.key"))).expect("there");
    let error = open(&world).await.err().expect("a key is missing");
    assert!(error.to_string().contains(&kid), "{error}");
}

#[tokio::test(start_paused = true)]
async fn one_process_changes_the_keys_at_a_time() {
    let machine = Machine::new(1);
    let world = machine.boot(Duration::ZERO);
    let files = Files::new(Arc::clone(&world.disk), PathBuf::from(DIR));
    let lock = files.prepare().expect("a healthy disk");
    let refused = rotate(&world, PathBuf::from(DIR)).await.expect_err("locked");
    assert!(matches!(refused, KeysError::Busy(_)), "{refused}");
    // A server that starts beside a rotation waits for its end.
    let other = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        drop(lock);
    };
    let (opened, ()) = tokio::join!(open(&world), other);
    opened.expect("the other ended in time");
    for _ in 0..=17 {
        drop(rotate(&world, PathBuf::from(DIR)).await);
    }
    let refused = rotate(&world, PathBuf::from(DIR)).await.expect_err("each is published");
    assert!(matches!(refused, KeysError::TooMany), "{refused}");
    tokio::time::advance(Duration::from_secs(601)).await;
    rotate(&world, PathBuf::from(DIR)).await.expect("they are no more");
}

/// Whatever the moment of a crash, the next start finds keys, and a key that signed before is
/// active or published after.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_moment_loses_no_key() {
    for n in 1.. {
        let machine = Machine::new(n);
        let world = machine.boot(Duration::ZERO);
        let store = Path::new("/store");
        world.disk.create_dir_all(store).expect("a healthy disk");
        world.disk.sync_dir(Path::new("/")).expect("a healthy disk");
        let files = Files::new(Arc::clone(&world.disk), PathBuf::from(DIR));
        // Directly, not as a job: a job of a dead machine never answers.
        let life = |world: &World| {
            let now = seconds(&*world.clock);
            let _lock = files.prepare()?;
            files.token_key(&*world.entropy)?;
            let (active, _) = files.activate(None, &*world.entropy, now)?;
            let before = files.index()?;
            files.switch(before, None, &*world.entropy, now)?;
            Ok::<_, KeysError>(active.kid().to_owned())
        };
        machine.drive().kill_in(n);
        let survived = life(&world);
        let whole = !machine.drive().is_dead();
        machine.drive().kill();
        machine.drive().power_cycle();
        let world = machine.boot(Duration::ZERO);
        let (keys, _) = open(&world).await.unwrap_or_else(|error| panic!("{n}: {error}"));
        let seeds = files_of_seeds(&world);
        assert_eq!(seeds, [format!("signing-{}.key", keys.active_kid())], "{n}");
        if let Ok(signed) = survived {
            assert!(kids(&keys).contains(&signed), "{n}");
        }
        if whole {
            assert!(n > 15, "every step of both was cut off once");
            return;
        }
    }
}

fn files_of_seeds(world: &World) -> Vec<String> {
    files(world).into_iter().filter(|it| it.starts_with("signing-")).collect()
}

//! The program with and without the secrets of a service whose store is sealed.

use std::process::Stdio;

use axum_idem::store::{Entry, SqliteStore, Store};
use tempfile::TempDir;

use crate::harness::{Prepared, Program, Ran, SEAL_KEY, prepare, seal};

/// A file with one record in each state.
struct Scene {
    folder: TempDir,
    store: SqliteStore,
    prepared: Prepared,
}

impl Scene {
    async fn new(is_sealed: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqliteStore::open(folder.path().join("idem.db")).await;
        let store = store.expect("the file opens");
        let program = Program::sealed(String::new());
        let prepared = if is_sealed {
            prepare(&program, &seal(store.clone())).await
        } else {
            prepare(&program, &store).await
        };
        Self {
            folder,
            store,
            prepared,
        }
    }

    /// The program with all secrets of the service.
    fn program(&self) -> Program {
        Program::sealed(format!("sqlite://{}/idem.db", self.folder.path().display()))
    }

    /// The program with other sealing keys.
    fn with_keys(&self, keys: Option<&str>) -> Program {
        let mut program = self.program();
        program.secrets.remove(0);
        let keys = keys.map(|keys| ("IDEM_SEAL_KEYS", keys.to_owned()));
        program.secrets.extend(keys);
        program
    }

    async fn is_unknown(&self) -> bool {
        let entry = self.store.look_up(self.prepared.unknown).await;
        matches!(entry, Ok(Some(Entry::Unknown { .. })))
    }
}

/// Runs a command, and checks its exit code. Nothing that it writes contains a secret.
fn run(program: &Program, code: i32, arguments: &[&str], input: &str) -> Ran {
    let ran = program.run_with(arguments, input);
    assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
    let all = [&ran.stdout[..], &ran.stderr[..]].concat();
    // The name of the variable is no secret.
    let all = all.replace("IDEM_ID_SECRET", "");
    let has_a_secret = all.contains("SECRET") || all.contains(SEAL_KEY);
    assert!(!has_a_secret, "{arguments:?}: {all}");
    ran
}

const FIND: [&str; 3] = ["find", "--scope", "value"];
const FOUND: &str = "SECRET-user\nSECRET-recorded\n";

fn resolve(prepared: &Prepared) -> Vec<String> {
    let line = format!(
        "resolve {} --fence {} --status 201 --ttl 1h --reason test",
        prepared.unknown, prepared.fence
    );
    line.split(' ').map(str::to_owned).collect()
}

/// The arguments as the program takes them.
fn words(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}

/// The service could not open such a record, and the decision of the operator would be lost to it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_resolved_with_a_key_that_has_sealed_no_record() {
    let scene = Scene::new(true).await;
    let resolve = resolve(&scene.prepared);
    let other = "07".repeat(32);
    for keys in [
        // A wrong key under the same id, another id, and a first key that the service does not have.
        format!("2:{other}"),
        format!("1:{other}"),
        format!("3:{other} 2:{SEAL_KEY}"),
    ] {
        let refused = run(&scene.with_keys(Some(&keys)), 2, &words(&resolve), "");
        let says = refused.stderr.contains("nothing was changed");
        assert!(says && refused.stderr.contains("primary"), "{refused:?}");
        assert!(scene.is_unknown().await);
    }
    let keys = format!("2:{SEAL_KEY} 3:{other}");
    run(&scene.with_keys(Some(&keys)), 0, &words(&resolve), "");
    assert!(!scene.is_unknown().await);
}

/// `idem doctor | head -1` closes the standard output early.
#[tokio::test(flavor = "multi_thread")]
async fn the_verdict_of_doctor_does_not_depend_on_its_reader() {
    let scene = Scene::new(true).await;
    let unfit = scene.with_keys(Some(&format!("2:{}", "07".repeat(32))));
    for (program, code) in [(unfit, 4), (scene.program(), 0)] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ran = program.run_to(&["doctor"], "", writer.into(), Stdio::piped());
        assert_eq!(ran.code, code, "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_sealing_key_is_named() {
    let scene = Scene::new(true).await;
    let id = scene.prepared.recorded.to_string();
    let other = format!("1:{}", "07".repeat(32));
    let program = scene.with_keys(Some(&other));
    for (arguments, input) in [
        (&["show", &id][..], ""),
        (&["show", &id, "--body"], ""),
        (&FIND, FOUND),
    ] {
        let refused = run(&program, 6, arguments, input);
        assert!(refused.stderr.contains("key 2"), "{refused:?}");
        assert!(refused.stdout.is_empty(), "{refused:?}");
    }
    // The other keys are found nevertheless.
    let several = "SECRET-user\nSECRET-recorded\nSECRET-none\nSECRET-unknown\n";
    let found = run(&program, 6, &[&FIND[..], &["--json"]].concat(), several);
    assert_eq!(found.json().len(), 1, "{found:?}");
    assert_eq!(found.json()[0]["state"], "unknown");
    for part in [
        &format!("key 1 has the record {id}: "),
        "key 2 has no record",
    ] {
        assert!(found.stderr.contains(part), "{part}: {found:?}");
    }
    let list = ["list", "--state", "recorded", "--json"];
    let listed = &run(&program, 0, &list, "").json()[0];
    assert_eq!(listed["state"], "unreadable", "{listed}");
    let error = listed["error"].as_str().expect("an error");
    assert!(error.contains("key 2"), "{error}");
    let unfit = run(&program, 4, &["doctor"], "");
    assert!(unfit.stdout.contains("key 2"), "{unfit:?}");
    // A wrong key under the same id.
    let wrong = scene.with_keys(Some(&format!("2:{}", "07".repeat(32))));
    let refused = run(&wrong, 6, &["show", &id], "");
    assert!(refused.stderr.contains("does not open"), "{refused:?}");
    let added = scene.with_keys(Some(&format!("{other} 2:{SEAL_KEY}")));
    run(&added, 0, &["show", &id], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_record_is_not_shown_and_nothing_is_resolved_without_keys() {
    let scene = Scene::new(true).await;
    let program = scene.with_keys(None);
    let id = scene.prepared.recorded.to_string();
    let refused = run(&program, 6, &["show", &id, "--body"], "");
    assert!(refused.stderr.contains("IDEM_SEAL_KEYS"), "{refused:?}");
    let doctor = run(&program, 0, &["doctor"], "");
    assert!(doctor.stdout.contains("records are sealed"), "{doctor:?}");
    let resolve = resolve(&scene.prepared);
    let refused = run(&program, 2, &words(&resolve), "");
    assert!(
        refused.stderr.contains("nothing was changed"),
        "{refused:?}"
    );
    assert!(scene.is_unknown().await);
    run(&scene.program(), 0, &words(&resolve), "");
    assert!(!scene.is_unknown().await);
}

/// The service of this store would refuse a sealed record.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_not_sealed_is_refused_with_keys() {
    let scene = Scene::new(false).await;
    let program = scene.program();
    let id = scene.prepared.recorded.to_string();
    let resolve = resolve(&scene.prepared);
    let refused = run(&program, 6, &["show", &id], "");
    assert!(refused.stderr.contains("--read-unsealed"), "{refused:?}");
    run(&program, 4, &["doctor"], "");
    run(&program, 2, &words(&resolve), "");
    assert!(scene.is_unknown().await);
    run(&program, 0, &["show", &id, "--read-unsealed"], "");
    run(&program, 0, &["doctor", "--read-unsealed"], "");
    let accepted = [&words(&resolve)[..], &["--read-unsealed"]].concat();
    run(&program, 0, &accepted, "");
    run(&scene.with_keys(None), 2, &["list", "--read-unsealed"], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_found_only_with_the_id_secret() {
    let scene = Scene::new(true).await;
    let mut program = scene.program();
    let found = run(&program, 0, &FIND, FOUND);
    let id = scene.prepared.recorded.to_string();
    assert!(found.stdout.contains(&id), "{found:?}");
    for secret in [None, Some("SECRET of another service")] {
        program.secrets.truncate(1);
        let secret = secret.map(|secret| ("IDEM_ID_SECRET", secret.to_owned()));
        program.secrets.extend(secret);
        run(&program, 3, &FIND, FOUND);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_read_from_files_but_not_from_arguments() {
    let scene = Scene::new(true).await;
    let mut program = scene.program();
    let secrets = std::mem::take(&mut program.secrets);
    let files = ["keys", "secret"].map(|name| scene.folder.path().join(name));
    std::fs::write(&files[0], format!("2:{SEAL_KEY}\n1:{}\n", "07".repeat(32))).expect("writable");
    std::fs::write(&files[1], format!("{}\r\n", secrets[1].1)).expect("writable");
    let [keys, secret] = files.each_ref().map(|file| file.to_str().expect("UTF-8"));
    let find = [
        &FIND[..],
        &["--seal-keys-file", keys, "--id-secret-file", secret],
    ]
    .concat();
    run(&program, 0, &find, FOUND);
    // A secret in two places, although only one of them can be right.
    for secret in secrets {
        program.secrets = vec![secret];
        run(&program, 2, &find, FOUND);
    }
    program.secrets.clear();
    let missing = scene.folder.path().join("no").display().to_string();
    for wrong in [
        ["--seal-keys-file", &missing],
        ["--id-secret-file", &missing],
        ["--seal-keys-file", secret],
        ["--seal-keys", SEAL_KEY],
        ["--id-secret", "SECRET of the ids of the service"],
    ] {
        let list = [&["list"][..], &wrong].concat();
        let ran = program.run(&list);
        assert_eq!(ran.code, 2, "{wrong:?}: {ran:?}");
        assert!(ran.stdout.is_empty(), "{ran:?}");
    }
    for wrong in [
        ("IDEM_SEAL_KEYS", SEAL_KEY.to_owned()),
        ("IDEM_SEAL_KEYS", String::new()),
        ("IDEM_SEAL_KEYS", format!("1:{SEAL_KEY} 1:{SEAL_KEY}")),
        ("IDEM_ID_SECRET", "SECRET".to_owned()),
    ] {
        program.secrets = vec![wrong];
        run(&program, 2, &["list"], "");
    }
}

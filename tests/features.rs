//! Checks that an optional part of a crate adds its dependencies only when its feature is on.

use std::collections::BTreeSet;
use std::process::Command;

/// The names of the packages that a user of a package builds with these features.
fn built(package: &str, features: &str) -> BTreeSet<String> {
    // The server has no default features, and should not get one by mistake.
    let without_default = (package == "idem-client").then_some("--no-default-features");
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--target=all", "--package", package])
        .args(["--edges=normal,build", "--prefix=none", "--format={p}"])
        .args(without_default)
        .args(["--features", features])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{package} with {features}");
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    let names = lines.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

/// `parts` are the packages that a feature adds. Another feature adds a package of this list only if it names it too.
fn check(package: &str, parts: &[(&str, &[&str])]) {
    let optional = parts.iter().flat_map(|(_, packages)| *packages);
    let optional: BTreeSet<_> = optional.map(ToString::to_string).collect();
    for (feature, packages) in [("", &[][..])].iter().chain(parts) {
        let built = built(package, feature);
        let added: BTreeSet<_> = built.intersection(&optional).cloned().collect();
        let expected = packages.iter().map(ToString::to_string).collect();
        assert_eq!(added, expected, "{package} with `{feature}`");
    }
}

#[test]
fn each_feature_of_the_server_adds_only_its_own_dependencies() {
    check(
        "axum-idem",
        &[
            ("aide", &["aide", "schemars"]),
            ("blake3", &["blake3"]),
            ("console", &[]),
            ("metrics", &["metrics"]),
            ("postgres", &["sqlx", "sqlx-postgres"]),
            ("redis", &["redis"]),
            ("seal", &["ring"]),
            ("sqlite", &["libsqlite3-sys", "sqlx", "sqlx-sqlite"]),
            ("testing", &[]),
            ("utoipa", &["utoipa"]),
        ],
    );
}

#[test]
fn each_feature_of_the_client_adds_only_its_own_dependencies() {
    check(
        "idem-client",
        &[
            (
                "reqwest-middleware",
                &["reqwest", "reqwest-middleware", "tokio", "tower-layer"],
            ),
            ("tower", &["tokio", "tower-layer"]),
        ],
    );
    let all = built("idem-client", "reqwest-middleware,tower");
    assert!(!all.iter().any(|name| name.starts_with("axum")));
}
